"""axolotl's YAML: supervised fine-tuning with LoRA, QLoRA or all weights, and plain text.

Defaults: the fields of `src/axolotl/utils/schemas/` and, below them, those of transformers' TrainingArguments.
"""

from collections.abc import Mapping
from typing import Any, Final

from mft.errors import ConfigError
from mft.runs.importing.axolotl_adapter import map_adapter
from mft.runs.importing.axolotl_data import map_data
from mft.runs.importing.axolotl_keys import KNOWN, MEANINGLESS, MISSING
from mft.runs.importing.draft import TRAIN, Draft
from mft.runs.importing.engines import Wish, deepspeed_wish, fsdp_wish, map_compute_type, map_timeout, settle_engine
from mft.runs.importing.optimization import (
    TRAINING,
    map_batch,
    map_betas,
    map_epochs,
    map_floor,
    map_max_steps,
    map_optimizer,
    map_schedule,
    map_warmup,
    note_batch_of_samples,
)
from mft.runs.importing.source import is_off
from mft.runs.importing.trainer_habits import map_checkpoints, map_evaluation

TOOL: Final = "axolotl"
OTHER_KINDS: Final = {"rl": "preference and reinforcement training have", "reward_model": "reward models have",
                      "process_reward_model": "reward models have", "diffusion": "diffusion training has", "ebft": "this training has",
                      "processor_type": "training on pictures or sound has"}
ATTENTIONS: Final = {"flash_attention_2": "flash_attention_2", "flash_attention_3": "flash_attention_3", "sdpa": "sdpa", "eager": "eager",
                     "flex_attention": "flex_attention"}
ATTENTION_FLAGS: Final = {"flash_attention": "flash_attention_2", "sdp_attention": "sdpa", "flex_attention": "flex_attention",
                          "eager_attention": "eager"}


def import_axolotl(draft: Draft, options: Mapping[str, Any]) -> None:
    """Fill the draft.

    Raises:
        ConfigError: a kind of training that does not exist here, or values that cannot be read.
    """
    _check_kind(draft)
    _model(draft)
    held_out = map_data(draft)
    four_bit, full = map_adapter(draft)
    _distributed(draft, four_bit, full)
    _training(draft)
    _evaluation(draft, held_out)
    _tracking(draft)
    draft.sweep(MEANINGLESS, MISSING, KNOWN)


def _check_kind(draft: Draft) -> None:
    source = draft.source
    for key, what in OTHER_KINDS.items():
        if not is_off(source.at(key)):
            value = source.text(key) if not isinstance(source.at(key), dict | list | bool) else "set"
            advice = f". To take over what concerns text, import with {key}=null" if key == "processor_type" else ""
            raise ConfigError([f"{source.document.where((key,))}: {key}: {value}: {what} no counterpart here; "
                               f"supervised fine-tuning on text can be imported{advice}"])
    adapter = source.text("adapter")
    if adapter not in (None, "lora", "qlora", "none", ""):
        raise ConfigError([f"{source.document.where(('adapter',))}: adapter: {adapter}: no counterpart here; lora, qlora and none (every "
                           "weight) can be imported. To take over the rest, import with adapter=lora"])


def _model(draft: Draft) -> None:
    source = draft.source
    if draft.copy("base_model", "model.base", "text") is None:
        source.refuse((), "base_model is required and not given")
    draft.copy("sequence_len", "model.context", "whole", 512)
    strategy = source.text("excess_length_strategy")
    if strategy == "drop":
        draft.ignore("excess_length_strategy", "too long samples are dropped and counted, as here")
    elif strategy is not None:
        draft.drop("excess_length_strategy", "a sample longer than model.context is dropped and counted, never cut")
    tokens = source.at("tokens")
    if isinstance(tokens, list) and tokens:
        draft.map("tokens", "model.add_tokens", list(dict.fromkeys(str(token) for token in tokens)))
    attention = source.text("attn_implementation")
    if attention in ATTENTIONS:
        draft.map("attn_implementation", "model.attention", ATTENTIONS[attention])
    elif attention is not None:
        draft.drop("attn_implementation", f"not offered here: {attention}; auto is written")
    for key, name in ATTENTION_FLAGS.items():
        if source.flag(key) and draft.get("model.attention") is None:
            draft.map(key, "model.attention", name)
        elif source.has(key):
            draft.settle(key, f"attn_implementation says {attention}")
    _special_tokens(draft)


def _special_tokens(draft: Draft) -> None:
    """`special_tokens`, and `tokens` in its old spelling."""
    for key in ("special_tokens", "tokens"):
        given = draft.source.at(key)
        for name in given if isinstance(given, dict) else ():
            path = (key, name)
            if not draft.source.has(*path):
                continue
            if name in ("pad_token", "unk_token", "bos_token"):
                draft.ignore(path, "there is no padding" if name == "pad_token" else "the tokenizer's own")
            else:
                draft.drop(path, "the tokenizer's own is used: an answer ends with it, or with the end mark of the prompt format; change "
                                 "it in the base's tokenizer_config.json, or name an end of your own in model.format")


def _distributed(draft: Draft, four_bit: bool, full: bool) -> None:
    wish = deepspeed_wish(draft, "deepspeed") if draft.source.at("deepspeed") else fsdp_wish(draft) or Wish("ddp")
    settle_engine(draft, wish, four_bit=four_bit, full=full)
    map_timeout(draft, "ddp_timeout")
    _compute_type(draft)


def _compute_type(draft: Draft) -> None:
    """bf16 counts before fp16, and neither of them means float32."""
    source, ours = draft.source, TRAIN + "quantization.compute_dtype"
    for key, name in (("bf16", "bf16"), ("bfloat16", "bf16"), ("fp16", "fp16"), ("float16", "fp16")):
        on = source.at(key) == "auto" or (source.has(key) and source.flag(key))
        if on and draft.get(ours) is None:
            map_compute_type(draft, key, name)
        elif source.has(key):
            draft.settle(key, f"compute_dtype is {draft.get(ours)}")
    if draft.get(ours) is None:
        half = bool(source.flag("load_in_8bit"))
        draft.assume(ours, "bf16" if half else "fp32", "neither bf16 nor fp16 is on" + ("; fp16 with an 8-bit base" if half else ""))


def _training(draft: Draft) -> None:
    source = draft.source
    map_epochs(draft, "num_epochs", 1)
    map_max_steps(draft, "max_steps")
    _batch(draft)
    rate = draft.copy("learning_rate", TRAINING + "learning_rate", "number")
    if rate is None:
        source.refuse((), "learning_rate is required and not given")
    schedule = map_schedule(draft, "lr_scheduler", "cosine")
    ratio = source.number("cosine_min_lr_ratio")
    if ratio is not None:
        map_floor(draft, "cosine_min_lr_ratio", ratio * (rate or 0), rate or 0, schedule)
    map_warmup(draft, "warmup_steps", "warmup_ratio", schedule, default=0.03)
    draft.copy("weight_decay", TRAINING + "weight_decay", "number", 0.0)
    draft.copy("max_grad_norm", TRAINING + "clip", "number", 1.0)
    map_optimizer(draft, "optimizer", "adamw_torch_fused")
    map_betas(draft, ("adam_beta1", "adam_beta2"), (0.9, 0.999))
    draft.copy("seed", TRAINING + "seed", "whole", 42, "default of transformers")
    draft.assume(TRAIN + "tasks.balance", "token_mean", "transformers' loss: every token counts alike")
    if source.number("neftune_noise_alpha"):
        draft.copy("neftune_noise_alpha", TRAINING + "neftune_alpha", "number")
    if source.has("gradient_checkpointing"):
        value = source.at("gradient_checkpointing")
        on = value in ("offload", "offload_disk") or bool(source.flag("gradient_checkpointing"))
        draft.map("gradient_checkpointing", TRAINING + "recompute", "full" if on else "none")
    packs = source.flag("sample_packing")
    if packs:
        draft.ignore("sample_packing", "rows are always packed, and samples do not see each other")
    elif draft.get("model.format") != "raw":
        note_batch_of_samples(draft)
    if packs is False:
        draft.drop("sample_packing", "rows are always packed here, with whole samples that do not see each other")


def _batch(draft: Draft) -> None:
    """`batch_size` is the old spelling: rows of a step on one GPU."""
    source = draft.source
    micro, whole = source.whole("micro_batch_size") or 1, source.whole("batch_size")
    map_batch(draft, "micro_batch_size", 1, "gradient_accumulation_steps")
    if whole is None:
        return
    if source.has("gradient_accumulation_steps"):
        draft.ignore("batch_size", "micro_batch_size and gradient_accumulation_steps count before it")
    elif whole % micro or whole < 1:
        source.refuse(("batch_size",), f"expected a multiple of micro_batch_size, {micro}; found {whole}")
    else:
        draft.map("batch_size", TRAINING + "global_batch_rows", whole * draft.gpus)


def _evaluation(draft: Draft, held_out: float) -> None:
    source = draft.source
    times = source.number("evals_per_epoch")
    map_evaluation(draft, held_out, stall_key="early_stopping_patience", default_every=50 if times else None)
    every = draft.get(TRAINING + "evaluate_every")
    if times is not None:
        if every:
            draft.drop("evals_per_epoch", f"evaluations count steps here: evaluate_every: {every} is written; `mft train CONFIG --dry-run` "
                                          "says how many an epoch has")
        else:
            draft.ignore("evals_per_epoch", "nothing is held out, or evaluation is off")
    map_checkpoints(draft, default_every=50, default_kept=4, why="there: at the end of each epoch; checkpoints count steps here")
    saves = source.number("saves_per_epoch")
    if saves is not None:
        written = draft.get(TRAINING + "checkpoint_every")
        draft.drop("saves_per_epoch", f"checkpoints count steps here: checkpoint_every: {written} is written")


def _tracking(draft: Draft) -> None:
    source = draft.source
    project = source.text("wandb_project")
    wandb = source.flag("use_wandb")
    if project and wandb is not False:
        draft.map("wandb_project", "tracking.wandb", True)
        draft.note(f"wandb's project is the project's name here; set WANDB_PROJECT={project} to keep it.")
    if wandb is not None:
        draft.map("use_wandb", "tracking.wandb", wandb)
    if source.has("use_tensorboard"):
        draft.map("use_tensorboard", "tracking.tensorboard", bool(source.flag("use_tensorboard")))
