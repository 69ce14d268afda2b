"""axolotl's adapters and the type of the base while they train."""

import re
from typing import Any, Final

from mft.runs.importing.draft import TRAIN, Draft
from mft.runs.importing.optimization import TRAINING

ADAPTER: Final = TRAIN + "adapter."
MODULE_NAME: Final = re.compile(r"[A-Za-z_][\w.]*")


def map_adapter(draft: Draft) -> tuple[bool, bool]:
    """Whether the base is in 4 bits, and whether every weight trains."""
    source = draft.source
    full = source.text("adapter") in (None, "none", "")
    four_bit = bool(source.flag("load_in_4bit")) and not full
    kind = "full" if full else "dora" if source.flag("peft_use_dora") else "rslora" if source.flag("peft_use_rslora") else "lora"
    if source.has("adapter"):
        draft.map("adapter", ADAPTER + "type", kind)
    else:
        draft.assume(ADAPTER + "type", kind, "axolotl trains every weight where the file names no adapter")
    draft.set(TRAIN + "quantization.type", "nf4" if four_bit else "none")
    if four_bit:
        draft.map("load_in_4bit", TRAIN + "quantization.type", "nf4")
    elif source.has("load_in_4bit"):
        draft.settle("load_in_4bit", "every weight trains: a base in 4 bits cannot")
    if source.has("load_in_8bit"):
        draft.settle("load_in_8bit", "an 8-bit base is not offered: bf16 is written, of twice the memory; set quantization: {type: nf4}")
    _bits(draft, four_bit)
    if full:
        for key in [key for key in source.document.data if key.startswith(("lora_", "peft_", "loraplus_")) and source.has(key)]:
            draft.ignore(key, "every weight trains (no adapter)")
        return four_bit, True
    for key, name in (("peft_use_dora", "dora"), ("peft_use_rslora", "rslora")):
        if source.flag(key) and kind == name:
            draft.map(key, ADAPTER + "type", name)
        elif source.has(key):
            draft.settle(key, "dora and rslora do not go together here; dora is written")
    draft.copy("lora_r", ADAPTER + "rank", "whole", 8, "the file names no lora_r; PEFT's default")
    draft.copy("lora_alpha", ADAPTER + "alpha", "number", 8, "the file names no lora_alpha; PEFT's default")
    draft.copy("lora_dropout", ADAPTER + "dropout", "number", 0.0)
    _targets(draft)
    if source.number("loraplus_lr_ratio"):
        draft.copy("loraplus_lr_ratio", TRAINING + "lora_plus_ratio", "number")
    return four_bit, False


def _bits(draft: Draft, four_bit: bool) -> None:
    """bitsandbytes' own settings; axolotl's default is double quantisation."""
    ours = TRAIN + "quantization.double_quant"
    given = draft.source.at("bnb_config_kwargs")
    for name in given if isinstance(given, dict) else ():
        path = ("bnb_config_kwargs", name)
        if name == "bnb_4bit_use_double_quant" and four_bit:
            draft.map(path, ours, bool(draft.source.flag(*path)))
        else:
            draft.drop(path, "4-bit bases are nf4, with double_quant as a choice")
    if four_bit and draft.get(ours) is None:
        draft.assume(ours, True, f"default of {draft.tool}")


def _targets(draft: Draft) -> None:
    source, ours = draft.source, ADAPTER + "targets"
    linear, named = source.flag("lora_target_linear"), source.at("lora_target_modules")
    names = [named] if isinstance(named, str) else source.words("lora_target_modules") or []
    plain = [name for name in names if MODULE_NAME.fullmatch(name)]
    targets: Any = "all-linear" if linear or names == ["all-linear"] or not plain else list(dict.fromkeys(plain))
    if source.has("lora_target_linear"):
        draft.map("lora_target_linear", ours, targets)
    if source.has("lora_target_modules"):
        if len(plain) < len(names) and names != ["all-linear"]:
            draft.drop("lora_target_modules", f"a pattern over module paths: targets are names of layers; {targets} is written")
            draft.set(ours, targets)
        else:
            draft.map("lora_target_modules", ours, targets)
    if not linear and not names:
        draft.assume(ours, "all-linear", "the file names no layers", write=True)
