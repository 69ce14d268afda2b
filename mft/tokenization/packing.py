"""Which samples share a row: lengths in, rows of indices out. Tokens are neither read nor moved."""

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mft.errors import DataError

Integers = NDArray[np.int64]


def pack(lengths: Sequence[int], capacity: int, seed: int = 0) -> list[list[int]]:
    """Put every sample into a row of at most `capacity` tokens, with as few rows as best-fit decreasing finds.

    All lengths are looked at together, longest first; each goes to the row where it leaves the least space. No sample is
    cut or left out. The result depends on the arguments alone: `seed` decides which of several samples of one length goes
    where, and shuffles the rows, so that each epoch may have a packing of its own. Within a row the longest comes first.

    >>> pack([5, 2, 7, 3, 3], capacity=8)      # 3 + 2, 7 and 5 + 3
    [[4, 1], [2], [0, 3]]
    >>> pack([5, 2, 7, 3, 3], capacity=8, seed=3)
    [[0, 4], [3, 1], [2]]

    Args:
        lengths: tokens of each sample, at least 1.
        capacity: tokens of a row.
        seed: whole number, 0 or more.

    Raises:
        DataError: a length is below 1 or above `capacity`; the message names the first such sample.

    Source: best-fit decreasing, Johnson 1973; never more than 11/9 of the fewest rows, plus four.
    """
    sizes = _checked(lengths, capacity)
    if not len(sizes):
        return []
    noise = np.random.PCG64(seed)
    mixed = _shuffled(len(sizes), noise)
    order = mixed[np.argsort((capacity - sizes[mixed]).astype(np.min_scalar_type(capacity)), kind="stable")]
    row_of = np.array(_best_fit(_groups(sizes[order]), capacity), dtype=np.int64)
    row_count = int(row_of.max()) + 1
    row_of = _shuffled(row_count, noise)[row_of]
    members = order[np.argsort(row_of, kind="stable")].tolist()
    ends = np.cumsum(np.bincount(row_of, minlength=row_count)).tolist()
    return [members[start:end] for start, end in pairwise([0, *ends])]


def fill(lengths: Sequence[int], rows: Sequence[Sequence[int]], capacity: int) -> float:
    """Share of the rows' tokens that is used, from 0 to 1; 0 when there is no row.

    >>> fill([5, 2, 7, 3, 3], [[4, 1], [2], [0, 3]], capacity=8)
    0.8333333333333334
    """
    used = sum(lengths[index] for row in rows for index in row)
    return used / (len(rows) * capacity) if rows else 0.0


def _checked(lengths: Sequence[int], capacity: int) -> Integers:
    if capacity < 1:
        raise DataError(f"a row of {capacity} tokens holds nothing; the capacity must be at least 1")
    sizes = np.asarray(lengths)
    if len(sizes) and sizes.dtype.kind not in "iu":
        raise TypeError(f"lengths must be whole numbers, not {sizes.dtype}")
    sizes = sizes.astype(np.int64)
    wrong = np.flatnonzero((sizes < 1) | (sizes > capacity))
    if len(wrong):
        first = int(wrong[0])
        fault = "has no tokens" if sizes[first] < 1 else f"has {sizes[first]} tokens, more than the {capacity} of a row"
        raise DataError(f"sample {first} {fault} ({len(wrong)} such of {len(sizes)}); drop it and count it before packing")
    return sizes


def _shuffled(count: int, noise: np.random.PCG64) -> Integers:
    """The numbers below `count` in random order, the same with every numpy and on every machine.

    Raw bits of a named generator are kept by numpy for ever, what `Generator.permutation` makes of them is not. The low
    bits of each key are its own number: all keys differ, so every sorting algorithm gives one order.
    """
    bits = count.bit_length()
    keys = noise.random_raw(count) >> bits << bits | np.arange(count, dtype=np.uint64)
    return (np.sort(keys) & ((1 << bits) - 1)).astype(np.int64)


def _groups(falling: Integers) -> Iterable[tuple[int, int]]:
    """(length, how many) of sorted lengths."""
    starts = np.flatnonzero(np.diff(falling, prepend=falling[0] + 1))
    counts = np.diff(starts, append=len(falling))
    return zip(falling[starts].tolist(), counts.tolist(), strict=True)


class _OpenRows:
    """Rows that have space left, by their free space.

    Rows with the same free space are alike, so they are taken and put back together: 600,000 samples need some ten
    thousand steps instead of as many searches.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.count = 0
        self._spaces: list[int] = []
        self._rows: dict[int, list[int]] = {}

    def take(self, length: int, samples: int) -> tuple[int, list[int]]:
        """(free space, rows): the tightest that `length` fits into, and as many of them as `samples` of it need."""
        at = bisect_left(self._spaces, length)
        if at == len(self._spaces):
            needed = -(-samples // (self.capacity // length))
            self.count += needed
            return self.capacity, list(range(self.count - needed, self.count))
        space = self._spaces[at]
        needed = -(-samples // (space // length))
        alike = self._rows[space]
        taken = alike[-needed:]
        del alike[-needed:]
        if not alike:
            del self._spaces[at], self._rows[space]
        return space, taken

    def put(self, space: int, rows: list[int]) -> None:
        """Give back rows that now have this much free space."""
        if not space or not rows:
            return
        if space in self._rows:
            self._rows[space] += rows
        else:
            insort(self._spaces, space)
            self._rows[space] = rows


def _best_fit(groups: Iterable[tuple[int, int]], capacity: int) -> list[int]:
    """Row of every sample, in order; samples are given as (length, how many), longest first."""
    row_of: list[int] = []
    open_rows = _OpenRows(capacity)
    for length, samples in groups:
        while samples:
            space, rows = open_rows.take(length, samples)
            # While a row has room for one more of this length it is the tightest, so it is filled before the next row.
            each = space // length
            full = min(len(rows), samples // each)
            row_of += rows[:full] * each
            open_rows.put(space - each * length, rows[:full])
            samples -= full * each
            if full < len(rows):
                row_of += rows[full:] * samples
                open_rows.put(space - samples * length, rows[full:])
                samples = 0
    return row_of
