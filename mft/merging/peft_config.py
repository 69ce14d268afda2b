"""adapter_config.json of a LoRA adapter: what it says of every module, and which settings are more than a merge can follow."""

import math
import re
from pathlib import Path
from typing import Any

from mft.errors import ModelError
from mft.files import read_json

CONFIG = "adapter_config.json"
SAVED = "modules_to_save"
TOKEN_ROWS = "trainable_token_indices"

PLAIN_KEYS = frozenset({
    "peft_type", "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",
    "r", "lora_alpha", "use_rslora", "use_dora", "lora_dropout", "init_lora_weights", "target_modules", "exclude_modules",
    "layers_to_transform", "layers_pattern", "megatron_core", "qalora_group_size", "eva_config", "runtime_config",
    "rank_pattern", "alpha_pattern", "fan_in_fan_out", "ensure_weight_tying", SAVED, TOKEN_ROWS})
"""Keys of adapter_config.json whose value does not change what `W + scale * B @ A` is, or that are read here."""

SAME_BASE_INITS = (True, False, "gaussian", "eva", "orthogonal")
"""`init_lora_weights` that leave the base as it is; PiSSA, OLoRA, CorDA, LoftQ and LoRA-GA subtract from it."""


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """The config of a LoRA adapter that can be merged.

    Raises:
        ModelError: there is none, it is damaged, or it says more than LoRA, rsLoRA and DoRA do; also what a newer PEFT may add: an
            unknown key that is set.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise ModelError(f"{folder}: has no {CONFIG}, so it is not a PEFT adapter folder")
    try:
        config: dict[str, Any] = read_json(path)
        if (kind := config.get("peft_type", "LORA")) != "LORA":
            raise _other_kind(path, kind)
        rank, alpha = config["r"], config["lora_alpha"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path}: not the config of a LoRA adapter ({error!r})") from error
    _refuse_other_kinds(path, config)
    patterns = {"r": [rank, *_pattern(path, config, "rank_pattern").values()],
                "lora_alpha": [alpha, *_pattern(path, config, "alpha_pattern").values()]}
    if not all(isinstance(value, int) and value > 0 for value in patterns["r"]) or not all(
            isinstance(value, int | float) for value in patterns["lora_alpha"]):
        raise ModelError(f"{path}: r is {rank!r} and lora_alpha {alpha!r} (rank_pattern {config.get('rank_pattern')!r}, alpha_pattern "
                         f"{config.get('alpha_pattern')!r}); positive whole numbers and numbers are needed")
    return config


def rank_of(config: dict[str, Any], module: str) -> int:
    """Rank of the pair of one module (its name in the base, such as `model.layers.0.mlp.up_proj`)."""
    return int(_of_module(config.get("rank_pattern"), module, config["r"]))


def scale_of(config: dict[str, Any], module: str) -> float:
    """`alpha / rank` of one module, or with rsLoRA `alpha / sqrt(rank)` (arXiv:2312.03732)."""
    rank, alpha = rank_of(config, module), _of_module(config.get("alpha_pattern"), module, config["lora_alpha"])
    return float(alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank)


def is_saved_whole(config: dict[str, Any], module: str) -> bool:
    """Whether `modules_to_save` names a module, or one that it is part of: PEFT takes every module whose name ends so."""
    parts = module.split(".")
    modules = [".".join(parts[:stop]) for stop in range(1, len(parts) + 1)]
    return any(outer.endswith(name) for name in config.get(SAVED) or [] for outer in modules)


def _of_module(pattern: dict[str, Any] | None, module: str, otherwise: Any) -> Any:
    """What the first key says that matches the end of the module's name, as in PEFT's `get_pattern_key`."""
    return next((value for key, value in (pattern or {}).items() if re.match(rf"(.*\.)?({key})$", module)), otherwise)


def _pattern(path: Path, config: dict[str, Any], key: str) -> dict[str, Any]:
    pattern = config.get(key) or {}
    try:
        if not isinstance(pattern, dict):
            raise TypeError(f"found {type(pattern).__name__}")
        for name in pattern:
            re.compile(name)
    except (TypeError, re.error) as error:
        raise ModelError(f"{path}: {key}: names or regular expressions of modules with a number each are needed ({error})") from error
    return pattern


def _refuse_other_kinds(path: Path, config: dict[str, Any]) -> None:
    if config.get("peft_type") != "LORA":
        raise _other_kind(path, config.get("peft_type"))
    if config.get("init_lora_weights", True) not in SAME_BASE_INITS:
        raise ModelError(f"{path}: init_lora_weights is {config['init_lora_weights']!r}, which changes the base weights, so the adapter "
                         "does not belong on the original ones; convert it to plain LoRA when saving "
                         "(PEFT: path_initial_model_for_weight_conversion)")
    extra = {key: value for key, value in config.items() if key not in PLAIN_KEYS and value and not (key == "bias" and value == "none")}
    if extra:
        listed = ", ".join(f"{key}={value!r}" for key, value in extra.items())
        raise ModelError(f"{path}: {listed}: an adapter with this is more than scale * B @ A on linear layers and is not merged")


def _other_kind(path: Path, kind: Any) -> ModelError:
    return ModelError(f"{path}: peft_type is {kind!r}; only LORA adapters are merged")
