"""The DeepSpeed config that follows from a run config; a user's own JSON is completed, and checked against it."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mft.errors import ConfigError
from mft.training.config import DistributedConfig, TrainingConfig

QUIET_STEPS = 10**9


def deepspeed_config(distributed: DistributedConfig, training: TrainingConfig, *, ranks: int, pin_memory: bool,
                     beside: Path = Path()) -> dict[str, Any]:
    """What DeepSpeed is given: every number resolved, no `auto`.

    Weights keep their types: neither `bf16` nor `fp16` is on, as both would cast the adapter's float32 weights; activations are cast
    by autocast, as under every other engine.

    Args:
        ranks: number of processes. pin_memory: the host's memory that tensors are offloaded to is page-locked (CUDA).
        beside: where a relative `distributed.deepspeed_config` starts.

    Raises:
        ConfigError: the user's JSON cannot be read, or contradicts the run config; each contradiction is named.
    """
    ours = _resolved(distributed, training, ranks, pin_memory)
    if distributed.deepspeed_config is None:
        return ours
    path = beside / distributed.deepspeed_config
    given = _read(path)
    faults = [f"{path}: {key} is {json.dumps(value)}, but this run needs {json.dumps(wanted)} ({reason})"
              for key, value, wanted, reason in _contradictions(given, ours)]
    if faults:
        raise ConfigError(faults)
    return _filled(given, ours)


def _resolved(distributed: DistributedConfig, training: TrainingConfig, ranks: int, pin_memory: bool) -> dict[str, Any]:
    zero: dict[str, Any] = {"stage": distributed.stage, "contiguous_gradients": True, "overlap_comm": False}
    host = {"device": "cpu", "pin_memory": pin_memory}
    if distributed.offload != "none":
        zero["offload_optimizer"] = host
    if distributed.offload == "all":
        zero["offload_param"] = host
    if distributed.stage == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = False
    return {
        "train_micro_batch_size_per_gpu": training.rows_at_once,
        "gradient_accumulation_steps": training.global_batch_rows // (training.rows_at_once * ranks),
        "train_batch_size": training.global_batch_rows, "gradient_clipping": training.clip, "zero_optimization": zero,
        "bf16": {"enabled": False}, "fp16": {"enabled": False}, "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False, "steps_per_print": QUIET_STEPS, "wall_clock_breakdown": False}


def _read(path: Path) -> dict[str, Any]:
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from error
    except ValueError as error:
        raise ConfigError([f"{path}: is not JSON: {error}"]) from error
    if not isinstance(given, dict):
        raise ConfigError([f"{path}: holds no JSON object"])
    return given


FREE = ("steps_per_print", "wall_clock_breakdown", "zero_optimization.overlap_comm", "zero_optimization.contiguous_gradients",
        "zero_optimization.stage3_gather_16bit_weights_on_model_save", "zero_allow_untested_optimizer",
        "zero_optimization.offload_optimizer.pin_memory", "zero_optimization.offload_param.pin_memory")
"""Keys that change speed or chatter alone: the user's value stands."""

UNSET: Mapping[str, Any] = {"zero_optimization.offload_optimizer.device": "none", "zero_optimization.offload_param.device": "none",
                            "sequence_parallel_size": 1}
"""What a key that our config leaves out must be."""

SECTIONS = {"optimizer": "training.optimizer makes the optimizer", "scheduler": "training.schedule makes the schedule"}

REASONS: Mapping[str, str] = {
    "train_micro_batch_size_per_gpu": "training.micro_batch_rows",
    "gradient_accumulation_steps": "training.global_batch_rows / (ranks * training.micro_batch_rows)",
    "train_batch_size": "training.global_batch_rows", "gradient_clipping": "training.clip",
    "zero_optimization.stage": "distributed.zero_stage", "zero_force_ds_cpu_optimizer": SECTIONS["optimizer"],
    "bf16.enabled": "it would cast the adapter's float32 weights; quantization.compute_dtype sets the type of the activations",
    "fp16.enabled": "it would cast the adapter's float32 weights; quantization.compute_dtype sets the type of the activations",
    "zero_optimization.offload_optimizer.device": "distributed.offload", "zero_optimization.offload_param.device": "distributed.offload",
    "sequence_parallel_size": "sequences split over ranks have no task loss",
}


def _contradictions(given: Mapping[str, Any], ours: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any, str]]:
    """(dotted key, the user's value, the run's, where the run's comes from) of each key that contradicts the run config."""
    for section, reason in SECTIONS.items():
        if section in given:
            yield section, given[section], None, reason
    wanted = {**UNSET, **dict(_flat(ours))}
    for key, value in _flat({name: value for name, value in given.items() if name not in SECTIONS}):
        if key in wanted and key not in FREE and value not in (wanted[key], "auto"):
            yield key, value, wanted[key], REASONS.get(key, "the run config")


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def _filled(given: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    """The user's values, ours where there are none or `auto`."""
    out = dict(ours)
    for key, value in given.items():
        if isinstance(value, Mapping) and isinstance(ours.get(key), Mapping):
            out[key] = _filled(value, ours[key])
        elif value != "auto":
            out[key] = value
    return out
