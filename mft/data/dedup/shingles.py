"""Texts as sets of hashed shingles: runs of `ngram` tokens, each run one 64-bit number."""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from mft.data.filters.tokens import tokens_of

Hashes = NDArray[np.uint64]

MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
"""Odd; its powers weigh the places of a shingle, so that order counts."""


class Shingler:
    """Turns texts into shingle sets. A token is hashed once, by BLAKE2b, so the numbers are the same on every machine."""

    def __init__(self, ngram: int) -> None:
        self.ngram = ngram
        self._hash_of: dict[str, int] = {}

    def __call__(self, texts: Iterable[str]) -> Hashes:
        """The sorted, distinct hashes of the shingles of these texts; no shingle reaches from one text into the next.

        A text with fewer tokens than a shingle is one shingle; a text without tokens gives none.
        """
        parts = [self._shingles(tokens_of(text)) for text in texts]
        return np.unique(np.concatenate(parts)) if parts else np.empty(0, np.uint64)

    def _shingles(self, tokens: Sequence[str]) -> Hashes:
        if not tokens:
            return np.empty(0, np.uint64)
        hashes = np.array([self._token_hash(token) for token in tokens], np.uint64)
        width = min(self.ngram, len(tokens))
        windows = np.lib.stride_tricks.sliding_window_view(hashes, width)
        weights = np.cumprod(np.full(width, MULTIPLIER), dtype=np.uint64)
        return mixed((windows * weights).sum(axis=1, dtype=np.uint64))

    def _token_hash(self, token: str) -> int:
        found = self._hash_of.get(token)
        if found is None:
            found = int.from_bytes(hashlib.blake2b(token.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
            self._hash_of[token] = found
        return found


def mixed(values: Hashes) -> Hashes:
    """The finalizer of SplitMix64 (Steele, Lea and Flood 2014): every bit of a value moves every bit of the result."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def jaccard(first: Hashes, second: Hashes) -> float:
    """Shared over all of two shingle sets (both sorted and distinct); 0.0 when either is empty."""
    if not len(first) or not len(second):
        return 0.0
    shared = len(np.intersect1d(first, second, assume_unique=True))
    return shared / (len(first) + len(second) - shared)
