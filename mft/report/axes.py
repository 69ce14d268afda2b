"""Scales, tick marks and the frame of a chart.

A chart is an SVG without a viewBox: positions are percentages of the plot's own box, so it fills any width while its text and
line widths stay as the style sheet says. Labels stand outside that box, in the padding of the surrounding `.plot` element.
Curves, which cannot use percentages, are drawn in a nested SVG that is stretched (`curve`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mft.report.markup import Html, joined, tag
from mft.report.units import count, decimal

SERIES = 8
"""Colours in the style sheet; later series take them again with dashes."""


@dataclass(frozen=True, slots=True)
class Scale:
    """A linear scale from `low` to `high` with its tick values and the unit that labels the axis."""

    low: float
    high: float
    ticks: tuple[float, ...]
    label: str

    def share(self, value: float) -> float:
        """Where a value lies between `low` (0) and `high` (100)."""
        return 100 * (value - self.low) / (self.high - self.low)

    def text(self, value: float) -> str:
        """A tick's label, with as many decimals as the distance between ticks needs."""
        step = self.ticks[1] - self.ticks[0] if len(self.ticks) > 1 else 1.0
        places = max(0, -math.floor(math.log10(step) + 1e-9))
        return count(value) if places == 0 else f"{value:,.{places}f}".replace("-", "\u2212")


def scale(values: Sequence[float], label: str, *, ticks: int = 5, from_zero: bool = False, whole: bool = False,
          snug: bool = False) -> Scale:
    """A scale over finite `values` with round ticks (1, 2 or 5 times a power of ten), about `ticks` of them.

    The ends are ticks, unless `snug`: then they are the smallest and largest value. `whole` asks for whole-numbered ticks.

    >>> scale([1.3, 2.9], "loss").ticks
    (1.0, 1.5, 2.0, 2.5, 3.0)
    """
    low, high = (0.0 if from_zero else min(values)), max(values)
    if high <= low:
        low, high = (low, low + 1) if from_zero or whole else (low - 0.5, high + 0.5)
    step = _round_step((high - low) / ticks)
    if whole:
        step = max(1.0, step)
    first = math.ceil(low / step - 1e-9) if snug else math.floor(low / step + 1e-9)
    last = math.floor(high / step + 1e-9) if snug else math.ceil(high / step - 1e-9)
    marks = tuple(round(index * step, 12) for index in range(first, last + 1))
    return Scale(low, high, marks, label) if snug else Scale(marks[0], marks[-1], marks, label)


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))


def at(share: float) -> str:
    """A position as a percentage of the plot."""
    return f"{share:.3f}".rstrip("0").rstrip(".") + "%"


def series_class(index: int) -> str:
    """The classes that give the series its colour and, from the ninth on, its dashes."""
    return f"series-{index % SERIES}" + (" dashed" if index // SERIES % 2 else "")


def frame(x: Scale, y: Scale | None) -> Html:
    """Grid lines and tick labels; without `y`, vertical grid lines only."""
    parts: list[Html] = []
    if y is not None:
        for value in y.ticks:
            height = at(100 - y.share(value))
            parts.append(tag("line", x1="0", x2="100%", y1=height, y2=height, class_="grid"))
            parts.append(tag("text", y.text(value), x="0", y=height, dx="-8", dy="4", class_="tick end"))
    for value in x.ticks:
        place = at(x.share(value))
        if y is None:
            parts.append(tag("line", x1=place, x2=place, y1="0", y2="100%", class_="grid"))
        else:
            parts.append(tag("line", x1=place, x2=place, y1="100%", y2="100%", class_="notch"))
        parts.append(tag("text", x.text(value), x=place, y="100%", dy="20", class_="tick middle"))
    return joined(parts)


def curve(points: Sequence[tuple[float, float]], class_: str) -> Html:
    """A line through points given in percent of the plot, (0, 0) at the upper left."""
    path = " ".join(f"{10 * x:.1f},{10 * y:.1f}" for x, y in points)
    line = tag("polyline", points=path, class_=class_, vector_effect="non-scaling-stroke")
    return tag("svg", line, viewBox="0 0 1000 1000", preserveAspectRatio="none", width="100%", height="100%")


def plot(height: int, *drawing: object, title: str, x_label: str, y_label: str | None = None,
         name_width: int | None = None) -> Html:
    """The box around a drawing: the y axis' label above it, the x axis' label below it.

    `height` in pixels; `name_width` is the room, in characters, that names at the left need instead of tick labels.
    """
    svg = tag("svg", *drawing, width="100%", height=str(height), role="img", aria_label=title)
    room = None if name_width is None else f"padding-left: calc({name_width}ch + 1rem)"
    above = tag("div", y_label, class_="y-label") if y_label else None
    return joined([above, tag("div", svg, class_="plot", style=room), tag("div", x_label, class_="x-label")])


def legend(swatches: Mapping[str, str]) -> Html:
    """A key: the name of each thing and the class that gives its swatch shape and colour."""
    entries = (tag("li", tag("span", class_=f"swatch {class_}"), name) for name, class_ in swatches.items())
    return tag("ul", *entries, class_="legend")


def figure(drawing: Html, caption: object = None, *, key: Html | None = None) -> Html:
    """A chart with its key above and its caption below."""
    return tag("figure", key, drawing, tag("figcaption", caption) if caption else None)


def short(value: float) -> str:
    """A value for a hover title."""
    return count(value) if float(value).is_integer() else decimal(value)
