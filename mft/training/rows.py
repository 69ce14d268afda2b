"""Packed rows as the trainer reads them: in an order that the seed and the epoch decide, nothing else."""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Dataset, Sampler

from mft.tokenization.collate import Batch, collate, gather
from mft.tokenization.encode import TokenizedSample
from mft.tokenization.packing import pack
from mft.tokenization.token_store import TokenStore, lengths_of


class PackedRows(Dataset[list[int]]):
    """Samples packed into rows of at most `context` tokens; item i is the list of the samples' indices of row i."""

    def __init__(self, samples: Sequence[TokenizedSample], context: int, seed: int) -> None:
        self.samples = samples
        self.rows = pack(lengths_of(samples), context, seed)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> list[int]:
        return self.rows[index]

    def batch(self, rows: Sequence[Sequence[int]]) -> Batch:
        """Rows of a micro-batch laid side by side as [1, T]: more than one row would defeat flash attention's packing test."""
        indices = [index for row in rows for index in row]
        if isinstance(self.samples, TokenStore):
            return gather(self.samples, indices)
        return collate([self.samples[index] for index in indices])


class SeededOrder(Sampler[int]):
    """A new order of all rows for each epoch. `set_epoch` is called by the trainer, also when a run is resumed."""

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        yield from torch.randperm(self.size, generator=generator).tolist()
