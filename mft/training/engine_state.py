"""Trained weights and optimizer state by the names of the parameters: the same on one process, under DDP and under ZeRO.

DeepSpeed's own checkpoint goes on with the same number of ranks alone. What is trained here is an adapter, small beside the base, so
it and its Adam moments are gathered and written whole; any engine on any number of ranks goes on from them:

    {"parameters": {"...lora_A.default.weight": {"exp_avg": [r, d], "exp_avg_sq": [r, d], "step": [] }, ...},
     "groups": [{"names": [...], "lr": 1e-4, "betas": (0.9, 0.95), ...}, ...]}
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import Trainer

from mft.errors import CheckpointError

ADAM_MOMENTS = ("exp_avg", "exp_avg_sq")
"""What DeepSpeed's partitions hold for AdamW; both have the shape of the parameter."""

State = dict[str, Any]


def trainable_state(trainer: Trainer) -> dict[str, Tensor]:
    """Every trained parameter, whole, on the CPU. All ranks must call it."""
    return {name: _whole(parameter).cpu() for name, parameter in _trained(trainer.model)}


def optimizer_state(trainer: Trainer) -> State:
    """The optimizer's state by parameter name. All ranks must call it; only rank 0's result is complete."""
    names = {parameter: name for name, parameter in _trained(trainer.model)}
    if trainer.is_deepspeed_enabled:
        return _from_deepspeed(trainer.model_wrapped.optimizer, names)
    optimizer = _plain(trainer.optimizer)
    return {"parameters": {names[parameter]: {key: _whole(value).cpu() if isinstance(value, Tensor) else value
                                              for key, value in optimizer.state[parameter].items()}
                           for group in optimizer.param_groups for parameter in group["params"] if parameter in optimizer.state},
            "groups": [_settings(group, [names[parameter] for parameter in group["params"]]) for group in optimizer.param_groups]}


def load_optimizer_state(trainer: Trainer, state: State) -> None:
    """Put a state into the optimizer of a trainer that has made it. All ranks must call it.

    Raises:
        CheckpointError: the state is of other parameters.
    """
    names = dict(_trained(trainer.model))
    if unknown := names.keys() ^ state["parameters"].keys():
        raise CheckpointError("the optimizer state is not that of this run's parameters; only on one side: "
                              + ", ".join(sorted(unknown)[:5]))
    if trainer.is_deepspeed_enabled:
        _into_deepspeed(trainer.model_wrapped.optimizer, names, state)
        return
    optimizer = _plain(trainer.optimizer)
    for name, values in state["parameters"].items():
        parameter = names[name]
        optimizer.state[parameter] = {key: _like(value, parameter) if isinstance(value, Tensor) else value for key, value in values.items()}
    _set_groups(optimizer.param_groups, state)


def _trained(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            yield name.removeprefix("module."), parameter


def _plain(optimizer: Any) -> torch.optim.Optimizer:
    """The optimizer inside accelerate's wrapper."""
    inner: torch.optim.Optimizer = getattr(optimizer, "optimizer", optimizer)
    return inner


def _whole(value: Tensor) -> Tensor:
    """A tensor without its sharding: ZeRO-3's partitions and FSDP's DTensors gathered."""
    if hasattr(value, "ds_id"):
        from deepspeed.utils import safe_get_full_fp32_param

        return safe_get_full_fp32_param(value).detach()
    value = value.detach()
    return value.full_tensor() if isinstance(value, DTensor) else value


def _like(value: Tensor, parameter: nn.Parameter) -> Tensor:
    """A piece of optimizer state where its parameter lives; a step count stays on the CPU, where torch keeps it."""
    if value.ndim == 0:
        return value.clone()
    value = value.to(parameter.device)
    if isinstance(parameter, DTensor) and value.shape == parameter.shape:
        return distribute_tensor(value, parameter.device_mesh, parameter.placements)
    return value


def _settings(group: Mapping[str, Any], names: Iterable[str]) -> State:
    return {"names": list(names), **{key: value for key, value in group.items() if key != "params"}}


def _set_groups(groups: list[dict[str, Any]], state: State) -> None:
    for group, saved in zip(groups, state["groups"], strict=True):
        group.update({key: value for key, value in saved.items() if key != "names"})


def _from_deepspeed(zero: Any, names: Mapping[nn.Parameter, str]) -> State:
    from deepspeed.utils import safe_get_full_optimizer_state

    step = next(iter(zero.optimizer.state.values()))["step"]
    step = torch.tensor(float(step), dtype=torch.float32)
    return {"parameters": {name: {"step": step.clone(), **{key: safe_get_full_optimizer_state(parameter, key).reshape(shape).cpu()
                                                           for key in ADAM_MOMENTS}}
                           for parameter, name in names.items() for shape in [getattr(parameter, "ds_shape", parameter.shape)]},
            "groups": [_settings(group, [names[parameter] for parameter in own])
                       for group, own in zip(zero.optimizer.param_groups, _groups_of(zero), strict=True)]}


def _groups_of(zero: Any) -> list[list[nn.Parameter]]:
    """The parameters of each of the optimizer's groups."""
    if not hasattr(zero, "fp16_groups"):
        return [list(group) for group in zero.bit16_groups]
    groups: list[list[nn.Parameter]] = [[] for _ in zero.optimizer.param_groups]
    for number, own in enumerate(zero.fp16_groups):   # ZeRO-3 cuts a group into sub-groups
        groups[zero.sub_group_to_group_id[number]] += own
    return groups


def _into_deepspeed(zero: Any, names: Mapping[str, nn.Parameter], state: State) -> None:
    """Fill the moments of this rank's partitions, which DeepSpeed would make at its first step."""
    sharded = hasattr(zero, "fp16_groups")
    step = next(iter(state["parameters"].values()))["step"]
    for flat in zero.fp32_partitioned_groups_flat if sharded else zero.single_partition_of_fp32_groups:
        own = zero.optimizer.state[flat]
        own["step"] = step.clone() if isinstance(zero.optimizer, torch.optim.AdamW) else int(step)
        own.update({key: torch.zeros_like(flat.data) for key in ADAM_MOMENTS})
    if not sharded:
        zero._lazy_init_hp_params_optimizer_state()   # makes the views of `own` that the next lines write through
    for name, parameter in names.items():
        for key in ADAM_MOMENTS:
            _set_moment(parameter, state["parameters"][name][key], key)
    _set_groups(zero.optimizer.param_groups, state)


def _set_moment(parameter: Any, value: Tensor, key: str) -> None:
    from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

    if not hasattr(parameter, "ds_id"):
        safe_set_full_optimizer_state(parameter, value.to(parameter.device), key)
        return
    # Not the full setter: it does not know that the last rank's part is padded.
    part, ranks = parameter.ds_tensor.numel(), torch.distributed.get_world_size()
    padded = torch.cat((value.flatten(), value.new_zeros(part * ranks - value.numel())))
    rank = torch.distributed.get_rank()
    safe_set_local_optimizer_state(parameter, padded[rank * part:(rank + 1) * part], key)
