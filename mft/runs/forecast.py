"""What a stage would take, as `mft run --dry-run` says it: one line, facts, and what is known of hours, cost and disk."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mft.modeling.base import config_of_base
from mft.modeling.shape import Shape, shape_of

PRECISION_BYTES = {"bf16": 2, "fp16": 2, "fp32": 4}


@dataclass(frozen=True, slots=True)
class Forecast:
    """`text`: for a person; `facts`: for `--json`. Hours, cost and disk are 0 where a stage takes none, and None where it is not known.

    `fault`: why the stage could not run on the device that was asked about.
    """

    text: str
    facts: dict[str, Any] = field(default_factory=dict)
    hours: float | None = 0.0
    cost: float | None = 0.0
    disk_bytes: int | None = 0
    fault: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {"forecast": self.text, **self.facts, "hours": self.hours, "cost": self.cost, "disk_bytes": self.disk_bytes}


def total(values: Sequence[float | None]) -> float | None:
    """The sum, or None where one is not known."""
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def size(number: float | None) -> str:
    """Bytes as a person reads them.

    >>> size(67_490_000_000), size(2_500_000), size(None)
    ('67.5 GB', '2.5 MB', 'not known')
    """
    if number is None:
        return "not known"
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.1f} MB"


def shape_behind(base: str, beside: Path) -> Shape:
    """The shape of a project's base; nothing is fetched.

    Raises:
        ModelError: its config.json is not on this machine and not known, or of a kind whose shape is not.
    """
    return shape_of(config_of_base(base, beside, fetch=False)[0])


def unknown(error: Exception) -> Forecast:
    """The forecast of a stage of which nothing can be said yet, with the reason."""
    return Forecast(f"not known: {str(error).splitlines()[0]}", hours=None, cost=None, disk_bytes=None)
