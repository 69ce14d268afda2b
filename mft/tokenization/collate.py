"""Samples of packed rows laid side by side as one row of tensors."""

from collections.abc import Iterable, Sequence
from typing import TypedDict, cast

import numpy as np
import torch
from torch import Tensor

from mft.errors import DataError
from mft.tokenization.encode import IGNORE_INDEX, TokenizedSample
from mft.tokenization.token_store import TokenStore


class Batch(TypedDict):
    """One row of T tokens: int64 tensors of shape [1, T].

    There is no attention mask, and none may be added: transformers keeps the samples of a row apart by `position_ids`,
    and only where it is given neither a mask nor a cache. So a model is called with `use_cache=False`, in evaluation too.
    The row is always one, because FlashAttention looks for packed samples in batches of one row alone.
    """

    input_ids: Tensor
    labels: Tensor
    """The token itself where it is trained, else -100 (not shifted)."""

    position_ids: Tensor
    """Place of the token in its sample, from 0."""

    task_ids: Tensor
    """Training task of the token's sample."""

    sample_ids: Tensor
    """Which sample of this batch the token belongs to, from 0."""


def collate(samples: Sequence[TokenizedSample]) -> Batch:
    """Lay samples end to end. Several packed rows become one batch by handing over the samples of all of them.

    A sample of task 0 with three tokens, of which the last two are trained, then one of task 2 with two tokens:

        input_ids     [1, 7, 2]  [1, 9]             [[   1, 7, 2,    1, 9]]
        labels     [-100, 7, 2]  [-100, 9]          [[-100, 7, 2, -100, 9]]
        position_ids                          ->    [[   0, 1, 2,    0, 1]]
        task_ids       0             2              [[   0, 0, 0,    2, 2]]
        sample_ids                                  [[   0, 0, 0,    1, 1]]

    Raises:
        DataError: a sample has no tokens, or its first token is trained: in a row it would be predicted from the sample
            before it.
    """
    if not samples:
        raise DataError("a batch needs at least one sample")
    for sample in samples:
        if not len(sample.input_ids):
            raise DataError(f"sample '{sample.id}' has no tokens")
        if sample.labels[0] != IGNORE_INDEX:
            raise DataError(f"sample '{sample.id}': its first token has label {sample.labels[0]}, not {IGNORE_INDEX}; "
                            "nothing stands before it to predict it from")
    lengths = [len(sample.input_ids) for sample in samples]
    return Batch(
        input_ids=_row(sample.input_ids for sample in samples),
        labels=_row(sample.labels for sample in samples),
        position_ids=_row(range(length) for length in lengths),
        task_ids=_row([sample.task_id] * length for sample, length in zip(samples, lengths, strict=True)),
        sample_ids=_row([index] * length for index, length in enumerate(lengths)),
    )


def lay_out(samples: Sequence[TokenizedSample], indices: Sequence[int]) -> Batch:
    """These samples side by side, by the faster way where they lie in a store.

    Raises:
        DataError: as `collate`.
    """
    return gather(samples, indices) if isinstance(samples, TokenStore) else collate([samples[index] for index in indices])


def gather(store: TokenStore, indices: Sequence[int]) -> Batch:
    """`collate` of these samples of a store, made from its flat arrays.

    Raises:
        DataError: there is no index.
    """
    if not len(indices):
        raise DataError("a batch needs at least one sample")
    records = store.records[np.asarray(indices)]
    lengths = records["tokens"].astype(np.int64)
    ends = np.cumsum(lengths)
    starts = ends - lengths
    ids = np.concatenate([store.ids[start:start + length] for start, length in zip(
        records["start"].tolist(), lengths.tolist(), strict=True)], dtype=np.int64)
    labels = np.full(len(ids), IGNORE_INDEX, dtype=np.int64)
    for shift, first, count in zip(starts.tolist(), records["spans"].tolist(), records["span_count"].tolist(), strict=True):
        for begin, end in store.spans[first:first + count].tolist():
            labels[shift + begin:shift + end] = ids[shift + begin:shift + end]
    rows = {"input_ids": ids, "labels": labels, "position_ids": np.arange(len(ids)) - np.repeat(starts, lengths),
            "task_ids": np.repeat(records["task"].astype(np.int64), lengths), "sample_ids": np.repeat(np.arange(len(lengths)), lengths)}
    return cast("Batch", {name: torch.from_numpy(row)[None] for name, row in rows.items()})


def _row(pieces: Iterable[Sequence[int]]) -> Tensor:
    """[1, T] of the pieces laid end to end."""
    return torch.tensor([[token for piece in pieces for token in piece]], dtype=torch.int64)
