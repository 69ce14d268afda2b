"""The optimizer of a run: which weights decay, which learn faster, in which precision the state is held; and the rate by step."""

import math
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from mft.errors import ConfigError, DependencyError
from mft.modeling.config import AdapterConfig
from mft.training.config import TrainingConfig


def optimizer_faults(training: TrainingConfig, adapter: AdapterConfig) -> list[str]:
    """What of the optimizer's settings would not act; one message each."""
    if training.lora_plus_ratio is not None and adapter.type == "full":
        return ["training.lora_plus_ratio: LoRA+ sets the rate of an adapter's B matrices, but adapter.type is full; remove it"]
    return []


def check_optimizer(name: str) -> None:
    """Check that this machine can run an optimizer, before anything is loaded.

    Raises:
        DependencyError: bitsandbytes is not installed.
        ConfigError: a paged optimizer without CUDA.
    """
    if name != "adamw" and find_spec("bitsandbytes") is None:
        raise DependencyError(f"training.optimizer: {name} needs the package 'bitsandbytes', which is not installed; "
                              "run: pip install bitsandbytes, or set optimizer: adamw")
    if faults := machine_faults(name):
        raise ConfigError(faults)


def machine_faults(name: str) -> list[str]:
    """Why this machine cannot run an optimizer.

    Without CUDA, bitsandbytes would take an unpaged optimizer in place of a paged one, with no more than a warning.
    """
    if not name.startswith("paged_") or torch.cuda.is_available():
        return []
    return [f"training.optimizer: {name}: its state moves between GPU and host, and this machine has no CUDA device; "
            f"use {name.removeprefix('paged_')}"]


def make_optimizer(model: nn.Module, training: TrainingConfig) -> Optimizer:
    """The optimizer over all weights of `model` that train; groups of `parameter_groups`.

    With 8 bits the states of embeddings, and of tensors of less than 4096 numbers, stay in 32 bits, as bitsandbytes advises.

    Raises:
        ConfigError, DependencyError: this machine cannot run it (`check_optimizer`).
    """
    check_optimizer(training.optimizer)
    groups = parameter_groups(model, training)
    rate, betas = training.learning_rate, training.betas
    if training.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=rate, betas=betas)
    import bitsandbytes

    eight_bits = training.optimizer.endswith("_8bit")
    if eight_bits:
        manager = bitsandbytes.optim.GlobalOptimManager.get_instance()
        for module in model.modules():
            if isinstance(module, nn.Embedding) and module.weight.requires_grad:
                manager.register_module_override(module, "weight", {"optim_bits": 32})
    made: Optimizer = bitsandbytes.optim.AdamW(groups, lr=rate, betas=betas, optim_bits=8 if eight_bits else 32,
                                               is_paged=training.optimizer.startswith("paged_"))
    return made


def parameter_groups(model: nn.Module, training: TrainingConfig) -> list[dict[str, Any]]:
    """Trained weights by rate and decay: at most four groups, none of them empty, in the order of the model.

    Matrices decay, a LoRA adapter's A and B among them (as in transformers); vectors do not: norms, biases, and DoRA's magnitudes,
    which transformers' rule by names would pull to zero and with them the weight itself. With LoRA+ the B matrices have a rate of
    their own; magnitudes keep that of A.

    Source: LoRA+, arXiv:2402.12354: rate of B = ratio * rate of A.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        decay = training.weight_decay if _num_dimensions(parameter) >= 2 else 0.0
        faster = training.lora_plus_ratio if training.lora_plus_ratio and ".lora_B." in name else 1.0
        groups.setdefault((training.learning_rate * faster, decay), []).append(parameter)
    return [{"params": parameters, "lr": rate, "weight_decay": decay} for (rate, decay), parameters in groups.items()]


def _num_dimensions(parameter: nn.Parameter) -> int:
    """Of the whole tensor: DeepSpeed's stage 3 leaves a flat piece in its place and notes the shape."""
    return len(getattr(parameter, "ds_shape", parameter.shape))


def make_schedule(optimizer: Optimizer, training: TrainingConfig, steps: int) -> LambdaLR:
    """The rates of a run of `steps` optimizer steps: each group's own rate times `rate_factor`; `step()` is called once a step."""
    return LambdaLR(optimizer, rate_factor(training, steps))


def rate_factor(training: TrainingConfig, steps: int) -> Callable[[int], float]:
    """The share of the full rate by number of the step, from 0.

    Warm-up of w steps: 1/w, 2/w, ... 1, so that no step is taken at rate 0 (transformers' schedules take their first one so). Then
    `cosine` falls from 1 towards min_learning_rate / learning_rate, `linear` towards 0, which the step after the last one would have;
    `constant` stays.
    """
    warmup = warmup_steps(training.warmup, steps)
    highest = max(warmup - 1, 0)
    floor = training.min_learning_rate / training.learning_rate

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        past = min(1.0, (step - highest) / max(1, steps - highest))
        if training.schedule == "cosine":
            return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * past))
        return 1.0 if training.schedule == "constant" else 1 - past
    return factor


def warmup_steps(warmup: float, steps: int) -> int:
    """`training.warmup` as a number of steps: below 1 a share, rounded up."""
    return int(warmup) if warmup >= 1 else math.ceil(warmup * steps)
