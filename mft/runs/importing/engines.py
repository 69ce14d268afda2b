"""Over how many processes, and by which engine: from DeepSpeed and FSDP settings of other tools."""

import json
import re
from dataclasses import dataclass
from typing import Any, Final, Literal

from mft.config.yaml import KeyPath
from mft.runs.importing.draft import TRAIN, Draft

DISTRIBUTED: Final = TRAIN + "distributed."
STAGE_IN_NAME: Final = re.compile(r"(?:zero_?|z)([0-3])(?!\d)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Wish:
    """What a file asks for. `key`: which key of it, None where it says nothing."""

    engine: Literal["ddp", "deepspeed", "fsdp"]
    key: KeyPath | None = None
    zero_stage: int | None = None
    offload: str = "none"
    offload_key: KeyPath | None = None
    """The key that asks for offload, where it is one of its own."""


def map_timeout(draft: Draft, key: str) -> None:
    """Seconds, which are minutes here."""
    seconds = draft.source.number(key)
    if seconds:
        minutes = seconds / 60
        draft.map(key, DISTRIBUTED + "timeout_minutes", int(minutes) if minutes.is_integer() else minutes)


def fsdp_wish(draft: Draft) -> Wish | None:
    """FSDP by `fsdp` (a list of words) or `fsdp_config`; None where the file has neither. What is left of them, mft chooses."""
    source = draft.source
    words, config = source.at("fsdp"), source.at("fsdp_config")
    inner = list(config) if isinstance(config, dict) else []
    if not words and not config:
        return None
    offload = next((("fsdp_config", name) for name in inner if name in ("offload_params", "fsdp_offload_params")), None)
    wants = offload is not None and bool(source.flag(*offload))
    rest = [("fsdp_config", name) for name in inner if ("fsdp_config", name) != offload]
    key: KeyPath = ("fsdp",) if words else rest[0] if rest else ("fsdp_config",)
    listed = isinstance(words, list) and "offload" in words
    return Wish("fsdp", key, offload="all" if wants or listed else "none",
                offload_key=offload if wants and key != ("fsdp_config",) else None)


def deepspeed_wish(draft: Draft, key: str) -> Wish:
    """ZeRO stage and offload, from the JSON that a key holds or names; where that is not found, from its name."""
    value = draft.source.at(key)
    settings = value if isinstance(value, dict) else _read(draft, str(value))
    if settings is None:
        match = STAGE_IN_NAME.search(str(value).rpartition("/")[2])
        stage = int(match[1]) if match else 2
        offload = "none" if "offload" not in str(value).lower() else "all" if stage == 3 else "optimizer"
        draft.note(f"{value} was not found: ZeRO stage {stage} and offload {offload} are read from its name"
                   f"{'' if match else ', which says nothing of a stage'}. Look into the file.")
    else:
        given = settings.get("zero_optimization")
        zero: dict[str, Any] = given if isinstance(given, dict) else {}
        stage = zero["stage"] if zero.get("stage") in (1, 2, 3) else 0
        offload = "optimizer" if _on_host(zero, "offload_optimizer") else "none"
        offload = "all" if stage == 3 and _on_host(zero, "offload_param") else offload
        draft.note("Of the DeepSpeed settings stage and offload were taken; the rest is filled in here (distributed.deepspeed_config takes "
                   "a JSON of your own).")
    return Wish("deepspeed", (key,), stage, offload if stage else "none") if stage else Wish("ddp", (key,))


def settle_engine(draft: Draft, wish: Wish, *, four_bit: bool, full: bool) -> None:
    """Write the engine that does what was wished and exists for these weights."""
    engine, stage, offload = wish.engine, wish.zero_stage, wish.offload
    if engine == "fsdp" and (four_bit or full):
        engine, stage = "deepspeed", 3
        draft.note(f"FSDP is not offered here for {'a 4-bit base' if four_bit else 'training every weight'}: deepspeed with zero_stage 3 "
                   "shards the same.")
    ours = "none" if engine == "ddp" and draft.gpus == 1 else engine
    if wish.key:
        draft.map(wish.key, DISTRIBUTED + "engine", ours)
    else:
        draft.set(DISTRIBUTED + "engine", ours)
    if ours == "deepspeed":
        draft.set(DISTRIBUTED + "zero_stage", stage)
        if offload != "none":
            draft.set(DISTRIBUTED + "offload", offload)
        if wish.offload_key:
            draft.map(wish.offload_key, DISTRIBUTED + "offload", offload)
    elif wish.offload_key:
        draft.drop(wish.offload_key, "fsdp has no offload here; engine: deepspeed with zero_stage: 3 has offload: all")
    if draft.get("model.add_tokens") and not full and (ours == "fsdp" or stage == 3):
        draft.note("model.add_tokens does not go with fsdp or ZeRO-3: take zero_stage 2 or ddp.")


def map_compute_type(draft: Draft, key: str, name: str) -> None:
    """The type of activations and weights; to be called when the engine is known."""
    engine = draft.get(DISTRIBUTED + "engine")
    ours = TRAIN + "quantization.compute_dtype"
    if name == "fp16" and engine in ("deepspeed", "fsdp"):
        draft.drop(key, f"fp16 does not go with {engine} here; bf16 is written")
        draft.set(ours, "bf16")
    else:
        draft.map(key, ours, name)


def _on_host(zero: dict[str, Any], key: str) -> bool:
    return isinstance(zero.get(key), dict) and zero[key].get("device") in ("cpu", "nvme")


def _read(draft: Draft, name: str) -> dict[str, Any] | None:
    path = draft.source.find(name)
    if path is None or not path.is_file():
        return None
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError):
        return None
    return settings if isinstance(settings, dict) else None
