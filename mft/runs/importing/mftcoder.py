"""MFTCoder's JSON, of both eras: `mft_peft_hf` (September 2023, commit 99aaae8) and `mftcoder_accelerate` (v0.3 to 8ba13f4).

The first has no defaults, every key stands in the file; those of the second are the fields of `pefts/mft_arguments.py`.
"""

from collections.abc import Mapping
from typing import Any, Final

from mft.errors import ConfigError
from mft.runs.importing.draft import TRAIN, Draft
from mft.runs.importing.engines import DISTRIBUTED, Wish, map_timeout, settle_engine
from mft.runs.importing.layouts import role_markers
from mft.runs.importing.mftcoder_balance import map_balance
from mft.runs.importing.mftcoder_keys import KNOWN, MEANINGLESS, MISSING
from mft.runs.importing.optimization import TRAINING, map_batch, map_epochs, map_floor, map_max_steps, map_schedule, note_batch_of_samples
from mft.runs.importing.recipes import add_task, local_path, set_split, source_key

TOOL: Final = "MFTCoder"
RELEASE_KEYS: Final = ("evalation_steps", "vocab_file")
"""Keys that only the code of 2023 reads; the first is spelled so."""

RELEASE_TARGETS: Final[dict[str, str | list[str]]] = {
    "llama": "release_2023", "gpt_neox": ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"],
    "baichuan": ["W_pack", "o_proj", "gate_proj", "down_proj", "up_proj"], "starcoder": ["c_proj", "c_attn", "q_attn", "c_fc"],
    "qwen": ["c_proj", "c_attn", "w1", "w2"], "chatglm2": ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"],
}
"""Layers that the code of 2023 trains, by `model_type`. Source: `pefts/model_mapping.py` at 99aaae8."""

ATTENTIONS: Final = ("flash_attention_2", "sdpa", "eager")


def import_mftcoder(draft: Draft, options: Mapping[str, Any]) -> None:
    """Fill the draft.

    Raises:
        ConfigError: a config of preference training, or values that cannot be read.
    """
    source = draft.source
    if source.has("xxpo"):
        raise ConfigError([f"{source.document.where(('xxpo',))}: xxpo: {source.text('xxpo')}: preference training has no counterpart here; "
                           "configs of multi-task fine-tuning (mft_accelerate.py) can be imported"])
    release = any(source.has(key) for key in RELEASE_KEYS)
    tasks = _data(draft, release)
    _model(draft, release)
    _adapter(draft, release)
    map_balance(draft, tasks)
    _training(draft, release)
    _habits(draft, release)
    draft.sweep(MEANINGLESS, MISSING, KNOWN)
    _note_schedule(draft, release)
    draft.note("There a cosine goes to 0 and is cut off at min_lr; here it ends at min_learning_rate.")
    if release:
        draft.note("That code read each process's share of the data through a second sharding sampler, so an epoch saw a part of the rows; "
                   "here it sees all of them.")


def _note_schedule(draft: Draft, release: bool) -> None:
    steps = draft.get(TRAINING + "warmup")
    there = f"{steps} / {draft.gpus} = {steps / draft.gpus:.3g}" if draft.gpus_given else f"{steps} / processes"
    draft.note("There the learning-rate schedule ticks once for each process at every step. "
               + (f"Here it ticks once: warm-up takes {steps} steps, there it took {there}; the cosine has the same length."
                  if release else "Its length and warm-up were multiplied to fit, so the curve is the one written here."))


def _data(draft: Draft, release: bool) -> list[str]:
    """One task for each file or folder; returns their names."""
    paths = draft.source.words("data_paths") or ["$DATA_PATHS"]
    pretrain = draft.source.text("tokenize_mode") in ("sst", "pretrain")
    steps = [{"type": "normalise", "apply": ["nbsp", "full_width"] if release else ["nbsp"]}]
    names, globs = [], []
    for path in paths:
        local = local_path(draft, path)
        globs.append(local if local.endswith(".jsonl") else f"{local.rstrip('/')}/**/*.jsonl")
        entry = {"type": "jsonl", "path": globs[-1], **({"converter": "text"} if pretrain else {})}
        names.append(add_task(draft, path.rstrip("/").rpartition("/")[2].removesuffix(".jsonl"), entry))
    draft.recipe["steps"] = steps
    if draft.source.has("data_paths"):
        draft.map("data_paths", source_key(names[0], "path") if len(names) == 1 else "recipe:tasks", globs, write=False)
    if any("$" in path for path in paths):
        draft.note("data_paths is a placeholder that MFTCoder's command line fills in: give it here too, as "
                   "`mft import mftcoder FILE data_paths=[/data/a,/data/b.jsonl]`, or write the paths into the recipe.")
    draft.assume("recipe:steps", steps, "that code rewrites these characters, in answers too", write=False)
    _split(draft)
    return names


def _split(draft: Draft) -> None:
    text = draft.source.text("data_split")
    parts = (text or "98,2,0").replace("/", ",").split(",")
    try:
        share = 1 - float(parts[0]) / 100
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        draft.source.refuse(("data_split",), f"expected percentages such as '95,5,0', found {text!r}")
        share = 0.0
    if text is None:
        draft.recipe["split"] = {"validation": 0.02, "by": "id"}
        draft.assume("recipe:split.validation", 0.02, f"default of {TOOL}", write=False)
        return
    set_split(draft, "data_split", round(share, 6))
    if len(parts) > 2 and parts[2].strip() not in ("", "0", "0.0"):
        draft.note("data_split names a test share; that code gives it to validation, and so does the recipe.")


def _model(draft: Draft, release: bool) -> None:
    source = draft.source
    base = draft.copy("pretrained_model_path", "model.base", "text")
    if base is None:
        draft.assume("model.base", "$MODEL_NAME_OR_PATH", "a placeholder: the file names no base")
    if "$" in str(base or "$"):
        draft.note("model.base is a placeholder: set it, or import with pretrained_model_path=BASE.")
    markers = source.at("role_markers")
    if source.text("tokenize_mode") in ("sst", "pretrain"):
        draft.map("tokenize_mode", "model.format", "raw")
        draft.note("In that mode all tokens of prompt/answer rows were trained too; here the recipe reads the key `text` of each row.")
    else:
        if source.has("tokenize_mode"):
            draft.ignore("tokenize_mode", "sft: answers are trained, as here")
        if isinstance(markers, dict) and all(isinstance(markers.get(role), str) for role in ("system", "user", "assistant")):
            draft.map("role_markers", "model.format", role_markers(markers["system"], markers["user"], markers["assistant"]))
        else:
            draft.assume("model.format", "codefuse" if release else "mftcoder", "the text of that code")
    if source.has("role_markers") and not draft.claimed(("role_markers",)):
        draft.drop("role_markers", "not the three texts system, user and assistant; write a format of your own (model.format)")
    draft.copy("seq_length", "model.context", "whole", 4096)
    attention = source.text("attn_implementation")
    if attention in ATTENTIONS:
        draft.map("attn_implementation", "model.attention", attention)
    elif attention is not None:
        draft.drop("attn_implementation", f"not offered here: {attention}; auto is written")


def _adapter(draft: Draft, release: bool) -> None:
    source = draft.source
    kind = source.text("peft_type") if "peft_type" in source.document.data else "qlora"
    bits = "4bit" if kind == "qlora" else source.text("quantization") if release else None
    full = kind is None
    if kind not in (None, "lora", "qlora"):
        source.refuse(("peft_type",), f"expected lora, qlora or null, found '{kind}'")
    nf4 = bits == "4bit" and not full
    _say_kind(draft, full, nf4)
    draft.set(TRAIN + "quantization.type", "nf4" if nf4 else "none")
    if bits == "8bit":
        draft.drop("quantization", "an 8-bit base is not offered: bf16 is written, of twice the memory; nf4 needs less")
    elif source.has("quantization"):
        counts = release or bits == source.text("quantization")
        if counts:
            draft.map("quantization", TRAIN + "quantization.type", "nf4" if nf4 else "none")
        else:
            draft.ignore("quantization", "that code sets it by peft_type")
    draft.set(TRAIN + "quantization.compute_dtype", "bf16")
    if not full:
        for key, ours, default in (("lora_rank", "rank", 96), ("lora_alpha", "alpha", 32), ("lora_dropout", "dropout", 0.05)):
            draft.copy(key, f"{TRAIN}adapter.{ours}", "whole" if ours == "rank" else "number", default)
        _targets(draft, release)
    else:
        for key in ("lora_rank", "lora_alpha", "lora_dropout", "target_modules"):
            if source.has(key):
                draft.ignore(key, "every weight trains (peft_type: null)")
    wish = Wish("deepspeed", None, 2) if full and draft.gpus > 1 else Wish("ddp")
    settle_engine(draft, wish, four_bit=nf4, full=full)
    draft.assume(DISTRIBUTED + "engine", draft.get(DISTRIBUTED + "engine"), "the file does not say; as shipped, accelerate's YAML has "
                 "ZeRO-2 with the optimizer on the host, 8 processes", write=False)


def _say_kind(draft: Draft, full: bool, nf4: bool) -> None:
    ours = "full" if full else "lora"
    if "peft_type" in draft.source.document.data:
        draft.map("peft_type", TRAIN + "adapter.type", ours)
    else:
        draft.assume(TRAIN + "adapter.type", ours, f"default of {TOOL}: qlora")
    if nf4 and not draft.source.has("quantization"):
        draft.assume(TRAIN + "quantization.type", "nf4", "qlora")


def _targets(draft: Draft, release: bool) -> None:
    source = draft.source
    kind, ours = source.text("model_type"), TRAIN + "adapter.targets"
    named = source.words("target_modules")
    if release:
        targets = RELEASE_TARGETS.get(kind or "")
        if targets is None:
            draft.assume(ours, "release_2023", "the layers of llama: that code chose them by model_type")
        else:
            draft.map("model_type", ours, targets)
        if named:
            draft.ignore("target_modules", "that code chooses the layers by model_type")
    elif named:
        draft.map("target_modules", ours, "all-linear" if named == ["all-linear"] else named)
    else:
        draft.assume(ours, "all-linear", f"default of {TOOL}")


def _training(draft: Draft, release: bool) -> None:
    source = draft.source
    map_epochs(draft, "num_train_epochs", 4)
    map_max_steps(draft, "max_train_steps")
    map_batch(draft, "per_device_train_batch_size", 8, "gradient_accumulation_steps")
    rate = draft.copy("learning_rate", TRAINING + "learning_rate", "number", 5e-5)
    schedule = map_schedule(draft, "lr_scheduler_type", "cosine")
    floor = source.number("min_lr")
    if floor is not None:
        map_floor(draft, "min_lr", floor, rate, schedule)
    elif not release and schedule == "cosine" and rate >= 5e-6:
        draft.assume(TRAINING + "min_learning_rate", 5e-6, f"default of {TOOL}")
    draft.copy("num_warmup_steps", TRAINING + "warmup", "number", 0.05)
    draft.copy("weight_decay", TRAINING + "weight_decay", "number", 0.01)
    draft.copy("seed", TRAINING + "seed", "whole", 1234)
    draft.assume(TRAINING + "betas", [0.9, 0.95] if release else [0.9, 0.999], "fixed in that code")
    draft.assume(TRAINING + "clip", 1.0, "accelerate_ds_config.yaml as shipped")
    mode = source.text("padding_mode")
    if mode is not None:
        draft.drop("padding_mode", {
            "padding": "rows are always packed here, with whole samples that do not see each other",
            "pack": "rows are packed here too, but samples in a row do not see each other, and none is lost at the end",
        }.get(mode, "samples are never cut here; those longer than model.context are dropped and counted"))
    if mode in (None, "padding"):
        note_batch_of_samples(draft)


def _habits(draft: Draft, release: bool) -> None:
    """Logging, evaluation, checkpoints, early stopping."""
    source = draft.source
    draft.copy("log_interval", TRAINING + "log_every", "whole", 10)
    steps = "evalation_steps" if source.has("evalation_steps") else "evaluation_steps"
    held_out = draft.recipe["split"]["validation"] > 0
    if held_out:
        draft.copy(steps, TRAINING + "evaluate_every", "whole", 100)
    else:
        draft.set(TRAINING + "evaluate_every", 0)
        if source.has(steps):
            draft.ignore(steps, "data_split holds nothing out")
    draft.copy("checkpointing_steps", TRAINING + "checkpoint_every", "whole", 100)
    map_timeout(draft, "init_timeout_seconds")
    recomputes = source.flag("checkpoint_activations")
    if recomputes is not None:
        draft.map("checkpoint_activations", TRAINING + "recompute", "full" if recomputes else "none")
    kept = source.whole("saving_limit")
    if kept:
        draft.map("saving_limit", TRAINING + "keep_last", kept)
    else:
        draft.assume(TRAINING + "keep_last", 2, "there all are kept: these hold the optimizer too, and are large")
    stops = source.flag("early_stopping")
    patience = source.whole("early_stopping_stall_num") or 5
    if stops is False or not held_out:
        for key in ("early_stopping", "early_stopping_stall_num"):
            if source.has(key):
                draft.ignore(key, "early stopping is off" if held_out else "data_split holds nothing out")
        return
    block = TRAINING + "early_stopping"
    if stops:
        draft.map("early_stopping", block, {"patience": patience})
    else:
        draft.assume(block, {"patience": patience}, f"default of {TOOL}")
    if source.has("early_stopping_stall_num"):
        draft.map("early_stopping_stall_num", block, {"patience": patience})
    draft.assume(TRAINING + "keep_best", True, "there the adapter of every evaluation is kept, the best one among them")
