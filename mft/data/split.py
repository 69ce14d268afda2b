"""Which rows are held out: a stable hash of a key, the same on every machine and for ever."""

import hashlib

STEPS = 1_000_000
"""Resolution of the split: a fraction is honoured to one in a million."""


def hash_fraction(key: str) -> float:
    """A number in [0, 1) that depends on `key` alone: its sha256 as a whole number, modulo one million, over one million.

    >>> hash_fraction("argparse.py")
    0.000903
    """
    return int.from_bytes(hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest(), "big") % STEPS / STEPS


def is_validation(key: str, fraction: float) -> bool:
    """True when the rows of this split key (relative posix path, or row id) belong to the held-out part."""
    return hash_fraction(key) < fraction
