"""Evaluation mode, or adapters that do not cast, for a while."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from peft.tuners.lora import LoraLayer
from torch.nn import Module


@contextmanager
def without_dropout(model: Module) -> Iterator[None]:
    """Evaluation mode inside the block; afterwards each module is in the mode it was in, were they mixed or not."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def uncast_inputs(layers: Sequence[LoraLayer]) -> Iterator[None]:
    """Inside the block, LoRA layers take their input in the type that it comes in: for use under autocast.

    PEFT casts it to the adapter's float32, does dropout in it, and autocast casts it back for the product: bytes moved for nothing.
    (PEFT leaves it alone itself for 4-bit layers under CUDA's autocast, but not under the CPU's, nor for other layers.)
    """
    before = [layer.cast_input_dtype_enabled for layer in layers]
    for layer in layers:
        layer.cast_input_dtype_enabled = False
    try:
        yield
    finally:
        for layer, enabled in zip(layers, before, strict=True):
            layer.cast_input_dtype_enabled = enabled
