"""Bytes as a person reads them."""


def size(number: int) -> str:
    """A number of bytes in the unit that suits it, in powers of ten.

    >>> size(131_072), size(22_400_000_000), size(3_000_000_000_000)
    ('0.13 MB', '22.4 GB', '3.0 TB')
    """
    for unit, one in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6)):
        if number >= one:
            return f"{number / one:.1f} {unit}"
    return f"{number / 10**6:.2f} MB"
