"""Numbers as a person reads them: few digits, thousands separators, units."""

import math

MISSING = "–"
MINUS = "\u2212"


def count(value: float | None) -> str:
    """A whole number with thousands separators.

    >>> count(1234567)
    '1,234,567'
    """
    return MISSING if value is None else f"{value:,.0f}".replace("-", MINUS)


def decimal(value: float | None, digits: int = 4) -> str:
    """A number with `digits` significant digits; very small and very large ones in scientific notation.

    >>> decimal(1.23456), decimal(0.0312345), decimal(0.0000123456), decimal(0)
    ('1.235', '0.03123', '1.235e−5', '0')
    """
    if value is None:
        return MISSING
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "infinite" if value > 0 else f"{MINUS}infinite"
    if value == 0:
        return "0"
    scientific = f"{value:.{digits - 1}e}"
    mantissa, exponent = scientific.split("e")
    power = int(exponent)
    if -4 <= power < 6:
        return f"{value:,.{max(0, digits - 1 - power)}f}".replace("-", MINUS)
    return f"{mantissa}e{power}".replace("-", MINUS)


def difference(mean: float, error: float | None) -> str:
    """A signed difference and its standard error, to the second significant digit of the error.

    >>> difference(-0.31234, 0.0201), difference(0.5, None)
    ('−0.312 ± 0.020', '+0.5000')
    """
    sign = "+" if mean > 0 else ""
    if error is None or not math.isfinite(error) or error <= 0 or not math.isfinite(mean):
        return sign + decimal(mean)
    places = max(0, 1 - int(f"{error:.1e}".split("e")[1]))
    return f"{sign}{mean:,.{places}f} ± {error:,.{places}f}".replace("-", MINUS)


def percent(share: float | None, places: int = 2) -> str:
    """A share as a percentage, rounded down so that only a whole 1 reads 100 %; the space does not break.

    >>> percent(0.99996), percent(1.0), percent(0.5, 1)
    ('99.99\xa0%', '100\xa0%', '50.0\xa0%')
    """
    if share is None or not math.isfinite(share):
        return MISSING
    if share == 1:
        return "100\u00a0%"
    shift = 10 ** (places + 2)
    # Rounded to eight digits first, else 0.29 (stored just below) would be floored to 28.99.
    return f"{math.floor(round(share * shift, 8)) * 100 / shift:.{places}f}\u00a0%"


def size(value: float | None) -> str:
    """Bytes in decimal units.

    >>> size(1_234_000_000), size(512)
    ('1.23 GB', '512 B')
    """
    if value is None:
        return MISSING
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(value) >= scale:
            return f"{decimal(value / scale, 3)} {unit}"
    return f"{value:.0f} B"


def duration(seconds: float | None) -> str:
    """A time span.

    >>> duration(0.0421), duration(12.34), duration(95), duration(7500)
    ('42 ms', '12.3 s', '1 min 35 s', '2 h 05 min')
    """
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    if seconds < 3599.5:
        return f"{round(seconds) // 60} min {round(seconds) % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def amount(name: str, value: float) -> str:
    """A value in the unit that the end of its name says: `_bytes`, `seconds` or a plain number."""
    if name.endswith("bytes"):
        return size(value)
    if name.endswith("seconds") or name.endswith("_s"):
        return duration(value)
    return count(value) if isinstance(value, int) else decimal(value)
