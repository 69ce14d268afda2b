"""The charts of the page as inline SVG: lines over steps, a histogram, bars, and before/after."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mft.report.axes import Scale, at, curve, frame, plot, scale, short
from mft.report.markup import Html, joined, tag
from mft.report.units import count, decimal

MAX_BANDS = 200
MAX_NAME = 20
"""Characters of a name beside a chart; a longer one is cut in the middle and whole in its hover title."""


@dataclass(frozen=True, slots=True)
class Line:
    """One series: faint `each` points, a strong `smooth` line, and `rings`; all (x, y). `class_` gives the colour."""

    name: str
    class_: str
    smooth: Sequence[tuple[float, float]]
    each: Sequence[tuple[float, float]] = ()
    rings: Sequence[tuple[float, float]] = ()
    titles: Mapping[float, str] = field(default_factory=dict)
    """What a hover at an x says of this series."""


def line_chart(lines: Sequence[Line], *, title: str, x_label: str, y_label: str, height: int = 340) -> Html:
    """Lines over whole-numbered x; a hover shows all series at that x."""
    points = [point for line in lines for part in (line.smooth, line.each, line.rings) for point in part]
    x = scale([point[0] for point in points], x_label, ticks=6, whole=True, snug=True)
    values = [point[1] for point in points]
    margin = 0.03 * (max(values) - min(values))
    y = scale([min(values) - margin, max(values) + margin], y_label, ticks=7, snug=True)

    def placed(part: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(x.share(step), 100 - y.share(value)) for step, value in part]

    faint = [curve(placed(line.each), f"each {line.class_}") for line in lines if line.each]
    strong = [curve(placed(line.smooth), f"smooth {line.class_}") for line in lines if line.smooth]
    rings = []
    for line in lines:
        if len(line.rings) > 1:
            rings.append(curve(placed(line.rings), f"between {line.class_}"))
        rings += [tag("circle", cx=at(step), cy=at(value), r="4", class_=f"ring {line.class_}")
                  for step, value in placed(line.rings)]
    shares = {value: x.share(value) for line in lines for value in line.titles}
    bands = _bands(shares, lines, x_label)
    return plot(height, frame(x, y), *faint, *strong, *rings, bands, title=title, x_label=x_label, y_label=y_label)


def _bands(shares: Mapping[float, float], lines: Sequence[Line], x_label: str) -> Html:
    """Invisible upright strips, one for each x (at most MAX_BANDS of them), that carry the hover titles."""
    values = sorted(shares)
    values = values[::-(-len(values) // MAX_BANDS) or 1]
    strips = []
    for index, value in enumerate(values):
        left = 0.0 if index == 0 else (shares[values[index - 1]] + shares[value]) / 2
        right = 100.0 if index == len(values) - 1 else (shares[values[index + 1]] + shares[value]) / 2
        said = [f"{line.name}: {line.titles[value]}" for line in lines if value in line.titles]
        strips.append(tag("rect", tag("title", "\n".join([f"{x_label} {count(value)}", *said])), x=at(left), y="0",
                          width=at(right - left), height="100%", class_="band"))
    return joined(strips)


def histogram(edges: Sequence[float], counts: Sequence[int], *, title: str, x_label: str, y_label: str, height: int = 200) -> Html:
    """Bars of equal width, one for each bin; the edges are written below, as many as fit."""
    y = scale([*counts, 1], y_label, ticks=4, from_zero=True, whole=True)
    bins = len(counts)
    parts = [frame(Scale(0, bins, (), x_label), y)]
    for index, number in enumerate(counts):
        top = 100 - y.share(number)
        said = f"{short(edges[index])} to {short(edges[index + 1])} {x_label}: {count(number)} {y_label}"
        parts.append(tag("rect", tag("title", said), x=at(100 * (index + 0.06) / bins), width=at(88 / bins),
                         y=at(top), height=at(100 - top), class_="bar"))
    stride = max(1, -(-bins // 6))
    marks = list(range(0, bins + 1, stride))
    if marks[-1] != bins:
        marks[-1:] = [bins] if bins - marks[-1] < stride / 2 else [marks[-1], bins]
    parts += [tag("text", short(edges[mark]), x=at(100 * mark / bins), y="100%", dy="20", class_="tick middle") for mark in marks]
    return plot(height, *parts, title=title, x_label=x_label, y_label=y_label)


def bars(values: Mapping[str, int], *, unit: str) -> Html:
    """Horizontal bars from the longest to the shortest, each with its name and number in words."""
    largest = max(values.values())
    rows = []
    for name, value in sorted(values.items(), key=lambda item: (-item[1], item[0])):
        shape = tag("rect", tag("title", f"{name}: {count(value)} {unit}"), x="0", y="0", height="100%",
                    width=at(100 * value / largest if largest else 0), class_="bar")
        rows.append(tag("div", tag("span", name, class_="name"), tag("svg", shape, width="100%", height="14", aria_hidden="true"),
                        tag("span", count(value), class_="value"), class_="bar-row"))
    return tag("div", *rows, class_="bars")


@dataclass(frozen=True, slots=True)
class Part:
    """A named share of a whole and the class that colours it."""

    name: str
    value: int
    class_: str


def stacked_bar(parts: Sequence[Part], *, title: str, unit: str) -> Html:
    """One bar that is filled by its parts, left to right."""
    whole = sum(part.value for part in parts) or 1
    shapes, start = [], 0.0
    for part in parts:
        width = 100 * part.value / whole
        shapes.append(tag("rect", tag("title", f"{part.name}: {count(part.value)} {unit}"), x=at(start), y="0", width=at(width),
                          height="100%", class_=part.class_))
        start += width
    return tag("svg", *shapes, width="100%", height="22", role="img", aria_label=title, class_="stacked")


@dataclass(frozen=True, slots=True)
class Change:
    """A value before and after; `class_` (fall, rise or same) gives the colour."""

    before: float
    after: float
    class_: str


def before_after(rows: Mapping[str, Change], *, title: str, x_label: str, before: str, after: str) -> Html:
    """For each name an open ring (before) and a filled dot (after), joined by a line."""
    x = scale([value for row in rows.values() for value in (row.before, row.after)], x_label, ticks=6)
    height, parts = 34 * len(rows), [frame(x, None)]
    room = min(MAX_NAME, max(len(name) for name in rows))
    for index, (name, row) in enumerate(rows.items()):
        middle, old, new = at(100 * (index + 0.5) / len(rows)), at(x.share(row.before)), at(x.share(row.after))
        said = f"{name}: {before} {decimal(row.before)}, {after} {decimal(row.after)}"
        label = name if len(name) <= room else f"{name[:room // 2 - 1]}…{name[-(room // 2):]}"
        parts.append(tag(
            "g", tag("title", said),
            tag("line", x1="0", x2="100%", y1=middle, y2=middle, class_="touch"),
            tag("line", x1=old, x2=new, y1=middle, y2=middle, class_=f"link {row.class_}"),
            tag("circle", cx=old, cy=middle, r="5", class_="dot before"),
            tag("circle", cx=new, cy=middle, r="6", class_=f"dot {row.class_}"),
            tag("text", label, x="0", y=middle, dx="-12", dy="4", class_="tick end name")))
    return plot(height, *parts, title=title, x_label=x_label, name_width=room)
