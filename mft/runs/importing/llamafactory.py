"""LLaMA-Factory's YAML: stages `sft` and `pt`, LoRA and full fine-tuning.

Defaults: the dataclasses of `src/llamafactory/hparams/` and, below them, those of transformers' TrainingArguments.
"""

from collections.abc import Mapping
from typing import Any, Final

from mft.errors import ConfigError
from mft.runs.importing.draft import TRAIN, Draft
from mft.runs.importing.engines import Wish, deepspeed_wish, fsdp_wish, map_compute_type, map_timeout, settle_engine
from mft.runs.importing.layouts import LLAMAFACTORY
from mft.runs.importing.llamafactory_data import map_data
from mft.runs.importing.llamafactory_keys import KNOWN, MEANINGLESS, MISSING
from mft.runs.importing.optimization import (
    TRAINING,
    map_batch,
    map_betas,
    map_epochs,
    map_max_steps,
    map_optimizer,
    map_schedule,
    map_warmup,
    note_batch_of_samples,
)
from mft.runs.importing.trainer_habits import map_checkpoints, map_evaluation, map_reports

TOOL: Final = "LLaMA-Factory"
ADAPTER: Final = TRAIN + "adapter."
ATTENTIONS: Final = {"auto": "auto", "disabled": "eager", "sdpa": "sdpa", "fa2": "flash_attention_2", "fa3": "flash_attention_3",
                     "flash_attention_2": "flash_attention_2", "flash_attention_3": "flash_attention_3"}
OTHER_LAYOUTS: Final = {
    "train_dataset": "the layout of its version 1 (keys train_dataset, dist_config) is not imported; that of `llamafactory-cli train` is",
    "export_dir": "an export, not a training run; `mft merge` adds an adapter to its base",
}

OF_TRAINING: Final = ("stage", "do_train", "dataset", "output_dir", "learning_rate", "num_train_epochs")
"""Keys without all of which a file trains nothing."""


def import_llamafactory(draft: Draft, options: Mapping[str, Any]) -> None:
    """Fill the draft. `options["dataset_info"]`: a dataset_info.json, or None.

    Raises:
        ConfigError: a stage or method that does not exist here, or values that cannot be read.
    """
    stage = _check_kind(draft)
    _model(draft, stage)
    held_out = map_data(draft, options.get("dataset_info"), stage)
    four_bit, full = _adapter(draft)
    _distributed(draft, four_bit, full)
    _training(draft, stage)
    map_evaluation(draft, held_out, stall_key="early_stopping_steps", default_every=None)
    map_checkpoints(draft, default_every=500, default_kept=None, why=f"default of {TOOL}")
    map_reports(draft)
    draft.sweep(MEANINGLESS, MISSING, KNOWN)


def _check_kind(draft: Draft) -> str:
    """The stage. Raises what has no counterpart as a whole."""
    source = draft.source
    for key, why in OTHER_LAYOUTS.items():
        if source.has(key):
            raise ConfigError([f"{source.document.where((key,))}: {key}: {why}"])
    stage, method = source.text("stage") or "sft", source.text("finetuning_type") or "lora"
    if stage not in ("sft", "pt"):
        raise ConfigError([f"{source.document.where(('stage',))}: stage: {stage}: preference and reward training have no counterpart here; "
                           "sft and pt can be imported"])
    if method not in ("lora", "full"):
        raise ConfigError([f"{source.document.where(('finetuning_type',))}: finetuning_type: {method}: no counterpart here; lora and full "
                           "can be imported. To take over the rest, import with finetuning_type=lora"])
    if source.flag("do_train") is False or (source.flag("do_predict") and not source.flag("do_train")):
        key = "do_train" if source.has("do_train") else "do_predict"
        raise ConfigError([f"{source.document.where((key,))}: {key}: {source.text(key)}: not a training run"])
    if source.has("infer_backend") and not any(source.has(key) for key in OF_TRAINING):
        raise ConfigError([f"{source.document.where(('infer_backend',))}: infer_backend: {source.text('infer_backend')}: a config for "
                           f"answering (`llamafactory-cli chat`), not a training run: it has none of {', '.join(OF_TRAINING)}"])
    if source.has("stage"):
        if stage == "pt":
            draft.map("stage", "model.format", "raw")
        else:
            draft.ignore("stage", "sft: supervised fine-tuning, as here")
    return stage


def _model(draft: Draft, stage: str) -> None:
    source = draft.source
    if draft.copy("model_name_or_path", "model.base", "text") is None:
        source.refuse((), "model_name_or_path is required and not given")
    if any(mark in (source.text("model_name_or_path") or "").upper() for mark in ("GPTQ", "AWQ", "AQLM")):
        draft.note("The base looks quantised already; here a base is quantised when it is loaded: name the original in model.base, and set "
                   "quantization: {type: nf4}.")
    template = source.text("template")
    if stage == "pt":
        draft.set("model.format", "raw")
        if template:
            draft.ignore("template", "stage pt trains plain text")
    elif template is None:
        draft.assume("model.format", "jinja", "the file names no template: the tokenizer's own")
    else:
        draft.map("template", "model.format", LLAMAFACTORY.get(template, "jinja"))
        _note_template(draft, template)
    draft.copy("cutoff_len", "model.context", "whole", 2048)
    draft.note(f"{TOOL} cuts a sample that is longer than cutoff_len; here it is dropped and counted.")
    tokens = [token for key in ("add_tokens", "add_special_tokens") for token in source.words(key) or []]
    for key in ("add_tokens", "add_special_tokens"):
        if source.has(key):
            draft.map(key, "model.add_tokens", list(dict.fromkeys(tokens)))
    attention = source.text("flash_attn")
    if attention in ATTENTIONS:
        draft.map("flash_attn", "model.attention", ATTENTIONS[attention])
    elif attention is not None:
        draft.drop("flash_attn", f"not offered here: {attention}; auto is written")


def _note_template(draft: Draft, template: str) -> None:
    if template not in LLAMAFACTORY:
        draft.note(f"template {template} became jinja, the tokenizer's own chat template: compare a row of both by `mft data show`"
                   + (", default system message included." if template == "qwen" else "; the tokenizer must have one."))
    elif LLAMAFACTORY[template] == "chatml":
        draft.note("There the newline after <|im_end|> is trained too, here <|im_end|> is the last trained token.")


def _adapter(draft: Draft) -> tuple[bool, bool]:
    """Whether the base is in 4 bits, and whether every weight trains."""
    source = draft.source
    full = source.text("finetuning_type") == "full"
    kind = "full" if full else "dora" if source.flag("use_dora") else "rslora" if source.flag("use_rslora") else "lora"
    if source.has("finetuning_type"):
        draft.map("finetuning_type", ADAPTER + "type", kind)
    else:
        draft.assume(ADAPTER + "type", kind, f"default of {TOOL}")
    four_bit = _quantization(draft, full)
    if full:
        for key in ("lora_rank", "lora_alpha", "lora_dropout", "lora_target", "use_dora", "use_rslora", "loraplus_lr_ratio"):
            if source.has(key):
                draft.ignore(key, "every weight trains (finetuning_type: full)")
        return four_bit, True
    for key, name in (("use_dora", "dora"), ("use_rslora", "rslora")):
        if source.flag(key) and kind == name:
            draft.map(key, ADAPTER + "type", name)
        elif source.has(key):
            draft.settle(key, "dora and rslora do not go together here; dora is written")
    rank = draft.copy("lora_rank", ADAPTER + "rank", "whole", 8)
    draft.copy("lora_alpha", ADAPTER + "alpha", "number", 2 * rank, f"default of {TOOL}: twice the rank")
    draft.copy("lora_dropout", ADAPTER + "dropout", "number", 0.0)
    targets = source.words("lora_target")
    if targets is None:
        draft.assume(ADAPTER + "targets", "all-linear", f"default of {TOOL}")
    else:
        draft.map("lora_target", ADAPTER + "targets", "all-linear" if targets in (["all"], ["all-linear"]) else targets)
    if source.number("loraplus_lr_ratio"):
        draft.copy("loraplus_lr_ratio", TRAINING + "lora_plus_ratio", "number")
    return four_bit, False


def _quantization(draft: Draft, full: bool) -> bool:
    source, block = draft.source, TRAIN + "quantization."
    bits, method = source.whole("quantization_bit"), source.text("quantization_method") or "bnb"
    four_bit = bits == 4 and method in ("bnb", "bitsandbytes") and not full
    draft.set(block + "type", "nf4" if four_bit else "none")
    if four_bit:
        draft.map("quantization_bit", block + "type", "nf4")
        draft.copy("double_quantization", block + "double_quant", "flag", True)
        if source.text("quantization_type") == "fp4":
            draft.drop("quantization_type", "4-bit bases are nf4 here")
        for key in ("quantization_method", "quantization_type"):
            if source.has(key) and not draft.claimed((key,)):
                draft.map(key, block + "type", "nf4")
        return True
    if bits is not None:
        draft.drop("quantization_bit", f"{bits} bits by {method} are not offered while training: bf16 is written, which needs more memory; "
                                       "set quantization: {type: nf4} for less")
    for key in ("quantization_method", "quantization_type", "double_quantization"):
        if source.has(key):
            draft.ignore(key, "the base is not quantised to 4 bits by bitsandbytes")
    return False


def _distributed(draft: Draft, four_bit: bool, full: bool) -> None:
    source = draft.source
    wish = deepspeed_wish(draft, "deepspeed") if source.has("deepspeed") else fsdp_wish(draft) if source.at("fsdp") else None
    settle_engine(draft, wish or Wish("ddp"), four_bit=four_bit, full=full)
    if source.has("ray_num_workers") and not draft.gpus_given:
        draft.note(f"ray_num_workers is {source.text('ray_num_workers')}: say --gpus {source.text('ray_num_workers')} to carry it over.")
    map_timeout(draft, "ddp_timeout")
    for key, name in (("fp16", "fp16"), ("bf16", "bf16"), ("pure_bf16", "bf16")):
        if source.flag(key) and draft.get(TRAIN + "quantization.compute_dtype") is None:
            map_compute_type(draft, key, name)
        elif source.has(key):
            draft.settle(key, "weights that train stay in float32 here; activations are in quantization.compute_dtype")
    if draft.get(TRAIN + "quantization.compute_dtype") is None:
        draft.assume(TRAIN + "quantization.compute_dtype", "bf16", f"{TOOL} takes the base's own type")
    if source.flag("pure_bf16"):
        draft.note("pure_bf16 keeps the trained weights in bf16 there; here they are float32.")


def _training(draft: Draft, stage: str) -> None:
    source = draft.source
    map_epochs(draft, "num_train_epochs", 3)
    map_max_steps(draft, "max_steps")
    map_batch(draft, "per_device_train_batch_size", 8, "gradient_accumulation_steps")
    draft.copy("learning_rate", TRAINING + "learning_rate", "number", 5e-5)
    schedule = map_schedule(draft, "lr_scheduler_type", "linear")
    map_warmup(draft, "warmup_steps", "warmup_ratio", schedule, default=0)
    draft.copy("weight_decay", TRAINING + "weight_decay", "number", 0.0)
    draft.copy("max_grad_norm", TRAINING + "clip", "number", 1.0)
    map_optimizer(draft, "optim", "adamw_torch")
    map_betas(draft, ("adam_beta1", "adam_beta2"), (0.9, 0.999))
    draft.copy("seed", TRAINING + "seed", "whole", 42)
    draft.assume(TRAIN + "tasks.balance", "token_mean", "transformers' loss: every token counts alike")
    if source.number("neftune_noise_alpha"):
        draft.copy("neftune_noise_alpha", TRAINING + "neftune_alpha", "number")
    for key, value in (("disable_gradient_checkpointing", source.flag("disable_gradient_checkpointing")),
                       ("gradient_checkpointing", source.flag("gradient_checkpointing"))):
        if value is not None and draft.get(TRAINING + "recompute") is None:
            draft.map(key, TRAINING + "recompute", "full" if value is (key == "gradient_checkpointing") else "none")
        elif value is not None:
            draft.ignore(key, "another key says it")
    _packing(draft, stage)


def _packing(draft: Draft, stage: str) -> None:
    """Rows are always packed here, apart from each other."""
    source = draft.source
    neat, packs = source.flag("neat_packing"), source.flag("packing")
    if neat is not None:
        draft.ignore("neat_packing", "rows are packed, and samples do not see each other") if neat else draft.ignore("neat_packing", "off")
    if packs is not None:
        if packs or neat:
            draft.ignore("packing", "rows are packed; samples do not see each other")
        else:
            draft.drop("packing", "rows are always packed here, with whole samples that do not see each other")
    if not packs and not neat and stage == "sft":
        note_batch_of_samples(draft)
