"""NEFTune: noise on the embeddings while training, of the size that each sample of a packed row would have alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def noisy_embeddings(model: nn.Module, alpha: float) -> Iterator[None]:
    """Inside the block, embeddings in training mode get uniform noise in +- alpha / sqrt(L d): L tokens of the sample, d the hidden size.

    Nothing is added in evaluation mode, and the hooks are gone after the block. The noise comes from torch's default generator,
    whose state a checkpoint holds. transformers' own hook takes L from the whole packed row, so that the noise would shrink with
    the number of samples that happen to share it. `model` must be called with `position_ids` that begin at 0 in every sample;
    without them a row is one sample. Alpha 0: no hook.

    Source: NEFTune, arXiv:2310.05914, algorithm 1.
    """
    if alpha == 0:
        yield
        return
    noise = _Noise(alpha)
    embeddings: nn.Module = model.get_input_embeddings()  # type: ignore[operator]
    handles = [model.register_forward_pre_hook(noise.note_samples, with_kwargs=True), embeddings.register_forward_hook(noise.add)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def sample_lengths(position_ids: Tensor) -> Tensor:
    """The number of tokens of each token's sample. Shapes: B rows, T tokens; position_ids and result [B, T].

    >>> sample_lengths(torch.tensor([[0, 1, 2, 0, 0, 1]])).tolist()
    [[3, 3, 3, 1, 2, 2]]
    """
    starts = position_ids == 0
    starts[:, 0] = True
    sample = starts.flatten().cumsum(0) - 1
    counts = torch.zeros_like(sample).scatter_add_(0, sample, torch.ones_like(sample))
    return counts[sample].view(position_ids.shape)


class _Noise:
    def __init__(self, alpha: float) -> None:
        self.alpha = alpha
        self._lengths: Tensor | None = None

    def note_samples(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        positions = kwargs.get("position_ids")
        self._lengths = sample_lengths(positions) if positions is not None else None

    def add(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """output: [B, T, d]."""
        if not module.training:
            return output
        noise = torch.empty(output.shape, dtype=torch.float32, device=output.device).uniform_(-1, 1)
        lengths = torch.full(output.shape[:2], output.shape[1], device=output.device) if self._lengths is None else self._lengths
        return output + (noise * (self.alpha / torch.sqrt(lengths * output.shape[2]))[..., None]).to(output.dtype)
