"""How long a server asks to wait, as its headers say it."""

import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

UNITS_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
EPOCH_S, EPOCH_MS = 1e9, 1e12
"""From here on a bare number is a time of day, in seconds or in milliseconds."""


def asked_wait_s(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds that a reply asks to wait before the next request, or None. `now`: seconds since 1970.

    `Retry-After` counts (seconds, or a date; `retry-after-ms` before it); else, of the limits that are used up
    (`x-ratelimit-remaining-requests: 0`), the latest reset.

    >>> asked_wait_s({"retry-after": "2"}, 0.0)
    2.0
    >>> asked_wait_s({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1m30s", "x-ratelimit-reset-requests": "9h"}, 0.0)
    90.0
    """
    said = _number(headers.get("retry-after-ms", ""), 0.001)
    if said is None:
        said = _moment(headers.get("retry-after", ""), now)
    if said is not None:
        return max(0.0, said)
    resets = [wait for name, left in headers.items() if name.startswith("x-ratelimit-remaining") and left.strip() in ("0", "0.0")
              and (wait := _moment(headers.get(name.replace("remaining", "reset"), ""), now)) is not None]
    return max(0.0, *resets) if resets else None


def _moment(text: str, now: float) -> float | None:
    """Seconds from now: of `12`, `1m30s`, `20ms`, a date, or a moment since 1970."""
    text = text.strip()
    number = _number(text, 1.0)
    if number is not None:
        return number / 1000 - now if number >= EPOCH_MS else number - now if number >= EPOCH_S else number
    if re.fullmatch(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|[smhd]))+", text):
        return sum(float(count) * UNITS_S[unit] for count, unit in re.findall(r"([0-9.]+)(ms|[smhd])", text))
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now


def _number(text: str, unit: float) -> float | None:
    return float(text) * unit if re.fullmatch(r"\s*[0-9]+(?:\.[0-9]+)?\s*", text) else None
