"""MinHash signatures of shingle sets, and the buckets of sets that are worth a closer look."""

from collections.abc import Iterator, Sequence

import numpy as np
from datasketch import MinHash

from mft.data.dedup.shingles import MULTIPLIER, Hashes, mixed

PERMUTATIONS = 128
SEED = 1

RECALL = 0.98
"""Two sets whose Jaccard is the threshold meet in a bucket with at least this probability; two that are more alike, with more."""


def bands(threshold: float) -> tuple[int, int]:
    """(bands, rows of a band): the longest bands that still bring two sets at the threshold together with RECALL.

    Two sets of Jaccard s are equal in a band of r rows with probability s**r, and in one of b bands with 1 - (1 - s**r)**b
    (Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, section 3.4.2).

    >>> bands(0.8)
    (18, 7)
    """
    fitting = [rows for rows in range(1, PERMUTATIONS // 2 + 1) if 1 - (1 - threshold**rows) ** (PERMUTATIONS // rows) >= RECALL]
    rows = max(fitting)
    return PERMUTATIONS // rows, rows


def band_keys(sets: Sequence[Hashes], threshold: float) -> Hashes:
    """One number for each set and band, `[len(sets), bands]`; sets that are equal in a band have equal numbers there.

    The sets must not be empty. Their members are 64-bit hashes, so datasketch is told not to hash them once more. Only the numbers
    are kept: datasketch's own index takes some kilobytes a row.
    """
    count, rows = bands(threshold)
    weights = np.cumprod(np.full(rows, MULTIPLIER), dtype=np.uint64)
    keys = np.empty((len(sets), count), np.uint64)
    sketches = MinHash.generator((one.tolist() for one in sets), num_perm=PERMUTATIONS, seed=SEED, hashfunc=_itself, scheme="affine64")
    for number, sketch in enumerate(sketches):
        keys[number] = (sketch.hashvalues[:count * rows].reshape(count, rows) * weights).sum(axis=1, dtype=np.uint64)
    return mixed(keys)


def buckets(keys: Hashes) -> Iterator[list[int]]:
    """The sets that share a band, two or more, in ascending order; band by band."""
    for column in keys.T:
        order = np.argsort(column, kind="stable")
        ends = np.flatnonzero(np.diff(column[order])) + 1
        for bucket in np.split(order, ends):
            if len(bucket) > 1:
                yield bucket.tolist()


def _itself(value: int) -> int:
    return value
