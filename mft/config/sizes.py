"""Sizes in bytes as people write them: `5GB`, `48GiB`."""

import re

UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "MIB": 2**20, "GIB": 2**30}
NAMES = "B, KB, MB, GB, TB, MiB, GiB"


def parse_size(text: str) -> int:
    """Bytes of a size; GB is decimal, as Hugging Face counts, and GiB is 2^30.

    >>> parse_size("5GB"), parse_size("1.5 mb"), parse_size("48GiB")
    (5000000000, 1500000, 51539607552)

    Raises:
        ValueError: not a positive number with one of the units, or less than one byte.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*", text)
    if match is None or match[2].upper() not in UNITS:
        raise ValueError(f"{text!r} is not a size; write a number and one of {NAMES}, for example 5GB")
    size = int(float(match[1]) * UNITS[match[2].upper()])
    if size < 1:
        raise ValueError(f"{text!r} is less than one byte; write for example 5GB")
    return size
