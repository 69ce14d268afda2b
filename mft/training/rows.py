"""Packed rows as the trainer reads them: in an order that the seed and the epoch decide, nothing else."""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Dataset, Sampler

from mft.tokenization.collate import Batch, collate
from mft.tokenization.encode import TokenizedSample
from mft.tokenization.packing import pack


class PackedRows(Dataset[list[TokenizedSample]]):
    """Samples packed into rows of at most `context` tokens; item i is the list of samples of row i."""

    def __init__(self, samples: Sequence[TokenizedSample], context: int, seed: int) -> None:
        self.samples = samples
        self.rows = pack([len(sample.input_ids) for sample in samples], context, seed)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> list[TokenizedSample]:
        return [self.samples[position] for position in self.rows[index]]


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


def collate_rows(rows: Sequence[list[TokenizedSample]]) -> Batch:
    """Rows of a micro-batch laid side by side as [1, T]: more than one row would defeat flash attention's packing test."""
    return collate([sample for row in rows for sample in row])
