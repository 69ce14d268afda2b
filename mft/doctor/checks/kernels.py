"""The 4-bit kernels and the attention implementations, on the device that training would use."""

from mft.doctor.child import ProbeFailed, ask
from mft.doctor.context import Context
from mft.doctor.finding import Finding, fault, ok, warning
from mft.errors import ModelError
from mft.modeling.base import read_model_config

FOUR_BIT_S = 90.0
ATTENTION_S = 120.0
LLAMA_8B = {"num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4096}
"""The heads that attention is tested with where there is no config: Llama 3's 8B."""


def check_four_bit(context: Context) -> Finding:
    """NF4 there and back, a LoRA step on it, and the 8-bit optimizer where the config has one."""
    subject = context.subject
    train = next((train for train in subject.trains if train.quantization.type == "nf4"), None) if subject else None
    optimizers = [train.training.optimizer for train in subject.trains if train.training.optimizer != "adamw"] if subject else []
    arguments = {"compute_dtype": _dtype(context), "double_quant": train is None or train.quantization.double_quant,
                 "optimizer": optimizers[0] if optimizers else "adamw"}
    complain = fault if subject is None or train is not None or optimizers else warning
    remedy = "pip install --force-reinstall bitsandbytes; python -m bitsandbytes says more; or train with quantization: {type: none}"
    try:
        facts = ask("four_bit", arguments, timeout_s=FOUR_BIT_S)
    except ProbeFailed as error:
        return complain(f"the 4-bit kernels of bitsandbytes cannot be used: {error}", remedy)
    if facts["faults"]:
        return complain(f"on {facts['device']} {'; '.join(facts['faults'])}", remedy, **facts)
    return ok(f"NF4 weights, a LoRA step on them{' and the 8-bit optimizer' if optimizers else ''} agree with the reference on "
              f"{facts['device']}, in {facts['computes_in']}", **facts)


def check_attention(context: Context) -> Finding:
    """The leak test of packed samples for every implementation, with the heads of the config's base."""
    subject, base = context.subject, context.base()
    shape = LLAMA_8B
    if base is not None and base.folder is not None:
        try:
            shape = read_model_config(base.folder)
        except ModelError:   # the check of the base says so
            base = None
    asked = subject.model.attention if subject else "auto"
    remedy = "set model.attention: auto" if asked != "auto" else "reinstall torch and transformers: the constraints file names a tested set"
    try:
        facts = ask("attention", {"base_config": shape, "compute_dtype": _dtype(context), "asked": asked}, timeout_s=ATTENTION_S)
    except ProbeFailed as error:
        return fault(f"attention cannot be tested: {error}", "see the checks torch and imports")
    if facts["chosen"] is None:
        return fault(facts["refused"], remedy, **facts)
    passed = [name for name, why in facts["by_name"].items() if why is None]
    return ok(f"packed samples stay apart on {facts['device']} with {', '.join(passed)}; used: {facts['chosen']}", **facts)


def _dtype(context: Context) -> str:
    """The type that the config computes in; bf16 without one."""
    trains = context.subject.trains if context.subject else ()
    return trains[0].quantization.compute_dtype if trains else "bf16"
