"""Evaluation mode for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

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
