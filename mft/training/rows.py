"""Packed rows as the trainer reads them: the steps of an epoch are decided by the seed, a rank's share of each by its cost."""

from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from mft.tokenization.collate import Batch, lay_out
from mft.tokenization.dealing import deal_epoch, row_costs
from mft.tokenization.encode import IGNORE_INDEX, TokenizedSample
from mft.tokenization.packing import pack
from mft.tokenization.token_store import lengths_of


class TrainBatch(Batch):
    """A micro-batch, and which samples it holds."""

    samples: Tensor
    """Index of each sample in the training set, int64 [n]; empty for a micro-batch that a rank computes only to keep in step."""


class PackedRows(Dataset[list[int]]):
    """Samples packed into rows of at most `context` tokens; item i is the list of the samples' indices of row i.

    `attention_weight`: cost of a squared token in tokens (mft/tokenization/dealing.py), by which rows are dealt to ranks.
    """

    def __init__(self, samples: Sequence[TokenizedSample], context: int, seed: int, attention_weight: float = 0.0) -> None:
        self.samples = samples
        self.rows = pack(lengths_of(samples), context, seed)
        self.attention_weight = attention_weight

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> list[int]:
        return self.rows[index]

    def costs(self) -> "np.ndarray[Any, np.dtype[np.float64]]":
        """Cost of each row, in tokens."""
        return row_costs(lengths_of(self.samples), self.rows, self.attention_weight)

    def batch(self, rows: Sequence[Sequence[int]]) -> TrainBatch:
        """Rows of a micro-batch laid side by side as [1, T]: more than one row would defeat flash attention's packing test.

        No row gives a batch of one sample of which nothing is trained: the other ranks have one more row in this step, and every
        rank must run as many forward and backward passes.
        """
        indices = [index for row in rows for index in row]
        own = lay_out(self.samples, indices or [0])
        if not indices:
            own["labels"] = torch.full_like(own["labels"], IGNORE_INDEX)
        return cast("TrainBatch", {**own, "samples": torch.tensor(indices, dtype=torch.int64)})

    def names(self, indices: Sequence[int]) -> list[str]:
        """Ids of samples, for messages."""
        return [self.samples[index].id for index in indices]


class DealtBatches(Sampler[list[int]]):
    """One rank's micro-batches of an epoch, as lists of rows: those of step 1, then of step 2, ...

    A new order of all rows for each epoch. The rows of a step depend on the seed and the epoch alone; all ranks have equally many
    micro-batches, some of which may be empty in the last step.
    """

    def __init__(self, rows: PackedRows, seed: int, *, global_rows: int, micro_rows: int, rank: int = 0, ranks: int = 1) -> None:
        self.size, self.costs = len(rows), rows.costs()
        self.seed, self.epoch = seed, 0
        self.global_rows, self.micro_rows, self.rank, self.ranks = global_rows, micro_rows, rank, ranks

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer, also when a run is resumed."""
        self.epoch = epoch

    def __len__(self) -> int:
        whole, rest = divmod(self.size, self.global_rows)
        width = self.ranks * self.micro_rows
        return whole * (self.global_rows // width) + -(-rest // width)

    def __iter__(self) -> Iterator[list[int]]:
        for deal in deal_epoch(self.order(), self.costs, ranks=self.ranks, rows_per_rank=self.micro_rows, global_rows=self.global_rows):
            yield from deal[self.rank]

    def order(self) -> list[int]:
        """All rows in this epoch's order."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order: list[int] = torch.randperm(self.size, generator=generator).tolist()
        return order


class RankLoader(DataLoader[list[int]]):
    """This rank's batches. The rows are dealt already, so nothing may shard them again (accelerate would)."""

    def __init__(self, rows: PackedRows, batches: DealtBatches) -> None:
        super().__init__(rows, batch_sampler=batches, collate_fn=rows.batch)
        self.batches = batches

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer at the start of each epoch."""
        self.batches.set_epoch(epoch)
