"""Whether a merged model says what base + adapter say: logits of whole models on random token sequences.

Both are computed in fp32, so that what differs is the rounding of the merged weights. Each matrix product of V = W + sBA + E
then has a relative error of about u / sqrt(3) (u: unit roundoff of the output dtype), 7 products a layer add up like
independent errors, and a logit's error is compared in units of the logits' own spread:

    tolerance = 8 (u + 16 v sqrt(hidden size)) sqrt(7 layers) std(logits)

where the second term, with v = 2^-24, is for the fp32 sums of the two models themselves, and only matters for fp32 output
(16: activations of trained models have outliers; with 2 the tiny base missed its tolerance by a factor of 3).
That is an estimate, not a bound, and a small adapter hides below it. So the merged model must also be nearer to base +
adapter than the base alone is: its KL divergence must be the smaller one.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from transformers import AutoModelForCausalLM, PreTrainedModel

from mft.errors import CheckFailed
from mft.merging.result import Verdict
from mft.modeling.compute import DTYPES
from mft.modeling.config import QuantizationConfig

NUM_SEQUENCES = 4
SEQUENCE_TOKENS = 32
SEED = 20240
DEVIATIONS = 8.0
PRODUCTS_PER_LAYER = 7
SUMS = 16
REFERENCE = f"logits of base + adapter (PEFT, unmerged, fp32) on {NUM_SEQUENCES} random sequences of {SEQUENCE_TOKENS} tokens"
ROUNDOFF = {"bf16": 2.0**-8, "fp16": 2.0**-11, "fp32": 2.0**-24}


def tolerance_of(dtype: str, layers: int, hidden_size: int, spread: float) -> float:
    """Largest difference of logits that rounding may account for; `spread` is their standard deviation."""
    roundoff = ROUNDOFF[dtype] + SUMS * ROUNDOFF["fp32"] * math.sqrt(hidden_size)
    return DEVIATIONS * roundoff * math.sqrt(PRODUCTS_PER_LAYER * layers) * spread


@dataclass(frozen=True, slots=True)
class LogitDistance:
    """How far logits are from reference logits: largest difference, mean KL(reference || other) in nats, equal first choices."""

    max_abs_diff: float
    kl: float
    top1_agreement: float


def distance(reference: torch.Tensor, other: torch.Tensor) -> LogitDistance:
    """Compare logits [tokens, vocabulary]."""
    log_p, log_q = reference.double().log_softmax(-1), other.double().log_softmax(-1)
    return LogitDistance(max_abs_diff=float((reference - other).abs().max()), kl=float((log_p.exp() * (log_p - log_q)).sum(-1).mean()),
                         top1_agreement=float((reference.argmax(-1) == other.argmax(-1)).double().mean()))


@dataclass(frozen=True, slots=True)
class Unmerged:
    """A base and the adapters on it, each with its weight. `rounded`: its weights that go through NF4, and how; None: none does."""

    base: Path
    adapters: tuple[tuple[Path, float], ...]
    vocabulary: int | None = None
    """Rows of the embedding, where an adapter brought another number of them."""
    rounded: tuple[frozenset[str], QuantizationConfig] | None = None


def verify_logits(unmerged: Unmerged, merged: Path, dtype: str, trained: Unmerged | None = None) -> tuple[Verdict, LogitDistance | None]:
    """Compare a merged folder with base + adapters, and with what was `trained`. One model at a time is in memory, in fp32.

    Raises:
        CheckFailed: the logits differ by more than the tolerance, or are no nearer than the base's.
    """
    adapted = _adapt(unmerged)
    shape = adapted.get_base_model().config.get_text_config()
    ids = torch.randint(shape.vocab_size, (NUM_SEQUENCES, SEQUENCE_TOKENS), generator=torch.Generator().manual_seed(SEED))
    for config in adapted.peft_config.values():
        _put_in(ids, getattr(config, "trainable_token_indices", None))
    reference = _logits(adapted, ids)
    with adapted.disable_adapter():
        without = distance(reference, _logits(adapted, ids))
    del adapted
    of_trained = reference if trained == unmerged else None if trained is None else _logits(_adapt(trained), ids)
    logits = _logits(_load(merged), ids)
    found = distance(reference, logits)
    tolerance = tolerance_of(dtype, shape.num_hidden_layers, shape.hidden_size, float(reference.std()))
    if not found.max_abs_diff <= tolerance:
        raise CheckFailed(f"the merged model's logits differ from base + adapter by up to {found.max_abs_diff:.3g}, where "
                          f"{tolerance:.3g} is allowed (KL {found.kl:.3g} nats, same first choice {found.top1_agreement:.1%})")
    if not found.kl < without.kl:
        raise CheckFailed(f"the merged model is no nearer to base + adapter (KL {found.kl:.3g} nats) than the base is ({without.kl:.3g}): "
                          "the adapter's part is lost in rounding")
    verdict = Verdict(found.max_abs_diff, tolerance, REFERENCE, found.kl, found.top1_agreement)
    return verdict, None if of_trained is None else distance(of_trained, logits)


def _adapt(unmerged: Unmerged) -> PeftModel:
    model = _load(unmerged.base)
    if unmerged.rounded:
        _round(model, *unmerged.rounded)
    if unmerged.vocabulary:
        model.resize_token_embeddings(unmerged.vocabulary, mean_resizing=False)
    names = [f"adapter{number}" for number in range(len(unmerged.adapters))]
    adapted = PeftModel.from_pretrained(model, str(unmerged.adapters[0][0]), adapter_name=names[0])
    for name, (folder, _) in list(zip(names, unmerged.adapters, strict=True))[1:]:
        adapted.load_adapter(str(folder), adapter_name=name)
    adapted.base_model.set_adapter(names)
    for module in adapted.modules():
        if isinstance(module, LoraLayer):
            for name, (_, weight) in zip(names, unmerged.adapters, strict=True):
                if name in module.scaling:
                    module.set_scale(name, weight)
    return adapted.eval()


@torch.no_grad()
def _round(model: PreTrainedModel, names: frozenset[str], quantization: QuantizationConfig) -> None:
    """Give the named weights the values that their NF4 copies compute with."""
    for name, weight in model.named_parameters():
        if name in names:
            stored = weight.to(DTYPES[quantization.compute_dtype])
            rows = stored.view(-1, 64) if stored.numel() % 64 == 0 else stored.view(1, -1)     # nf4.py has the reason
            packed, state = quantize_4bit(rows, compress_statistics=quantization.double_quant, quant_type="nf4")
            weight.copy_(dequantize_4bit(packed, state).view(stored.shape))


def _put_in(ids: torch.Tensor, trained: dict[str, list[int]] | list[int] | None) -> None:
    """Let every sequence begin with tokens whose rows were trained: by chance hardly one of them would be drawn."""
    rows = [index for ids_of in trained.values() for index in ids_of] if isinstance(trained, dict) else trained or []
    for place, index in enumerate(dict.fromkeys(rows)):
        ids[place % NUM_SEQUENCES, place // NUM_SEQUENCES % (SEQUENCE_TOKENS // 2)] = index


def _load(folder: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, use_safetensors=True, local_files_only=True,
                                                trust_remote_code=False).eval()


@torch.no_grad()
def _logits(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    """Logits [all tokens, vocabulary]."""
    return torch.cat([model(input_ids=row[None]).logits[0].float() for row in ids])
