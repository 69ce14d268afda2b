"""Let the layers of a model recompute what a plan says, by torch's checkpoints without re-entry."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from mft.errors import ModelError
from mft.modeling.recompute import Level, Recompute, every

PARTS: dict[Level, tuple[str, ...]] = {
    "keep": (), "norms": ("input_layernorm", "post_attention_layernorm"),
    "attention": ("input_layernorm", "post_attention_layernorm", "self_attn"),
    "mlp": ("input_layernorm", "post_attention_layernorm", "mlp")}
"""The modules of a layer of Llama's kind that each level computes again."""

_checkpointed = partial(checkpoint, use_reentrant=False)


def decoder_layers(model: nn.Module) -> list[GradientCheckpointingLayer]:
    """The layers of a model, the first one first."""
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


def recompute_layers(model: nn.Module, recompute: Recompute) -> None:
    """Set each layer's level, once, before the model is wrapped for several ranks. It acts where gradients are asked for.

    A module's `forward` is what runs again, not its call: hooks, as those that gather sharded weights, stay outside.

    Raises:
        ModelError: the model has another number of layers.
    """
    layers = decoder_layers(model)
    if len(layers) != len(recompute.levels):
        raise ModelError(f"the model has {len(layers)} layers that can be recomputed, and the plan is one for {len(recompute.levels)}")
    for layer, level in zip(layers, recompute.levels, strict=True):
        if level == "full":
            layer.forward = _again(layer.forward)
            continue
        for name in PARTS[level]:
            module = layer.get_submodule(name)
            module.forward = _again(module.forward)


def recompute_all(model: nn.Module) -> Recompute:
    """The same for all layers of a model of any kind, whole.

    Raises:
        ModelError: it has no layers that can be recomputed.
    """
    if not (layers := decoder_layers(model)):
        raise ModelError(f"{type(model).__name__} has no layers that can be recomputed; set training.recompute: none")
    recompute = every("full", len(layers))
    recompute_layers(model, recompute)
    return recompute


def _again(forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*inputs: Any, **options: Any) -> Any:
        return _checkpointed(forward, *inputs, **options) if torch.is_grad_enabled() else forward(*inputs, **options)

    return run
