"""A picture of `mft data stats`: how long the rows of each task are, and how its share changes with what is counted."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mft.errors import OutputError
from mft.extras import require
from mft.files import atomic_file

FORMATS = (".png", ".svg", ".pdf")

COUNTED = (("requested_share", "rows asked for", "#c9c9c9"), ("realised_share", "rows", "#7aa6c2"),
           ("token_share", "tokens", "#2f6f9f"), ("trained_token_share", "trained tokens", "#173f5f"),
           ("character_share", "characters", "#2f6f9f"), ("trained_character_share", "trained characters", "#173f5f"))
"""Key of a task in `facts["mixture"]`, what the legend calls it, its colour."""


def check_plot(path: Path, *, overwrite: bool) -> None:
    """Refuse a picture that cannot be written, before anything is counted.

    Raises:
        OutputError: the file exists, or its name says no format that can be drawn. DependencyError: matplotlib is missing.
    """
    require("matplotlib", extra="plot", why="--plot")
    if path.suffix.lower() not in FORMATS:
        raise OutputError(f"{path}: a picture's name ends in {', '.join(FORMATS)}")
    if path.exists() and not overwrite:
        raise OutputError(f"{path}: exists; give another --plot, or --overwrite")


def plot_statistics(facts: Mapping[str, Any], path: Path) -> None:
    """Draw the facts of `mft data stats`: left the lengths of each task (one axis for all, logarithmic, ticks at p50, p90, p99),
    right its shares by rows, tokens (or characters) and trained ones, beside what the mixture asked for."""
    from matplotlib.figure import Figure

    names = [task for task, numbers in facts["per_task"].items() if numbers["samples"]]
    figure = Figure(figsize=(13, 1.6 + 0.95 * max(2, len(names))), layout="constrained")
    grid = figure.add_gridspec(max(1, len(names)), 2, width_ratios=(3, 2))
    first = None
    for index, task in enumerate(names):
        axes = first = figure.add_subplot(grid[index, 0], sharex=first)
        _draw_lengths(axes, facts["histogram"], task, facts["per_task"][task], last=index == len(names) - 1, unit=facts["unit"])
    shares = figure.add_subplot(grid[:, 1])
    _draw_shares(shares, names, _shares(facts, names))
    figure.suptitle(f"{facts['samples']:,} rows, {facts[facts['unit']]:,} {facts['unit']}")
    with atomic_file(path) as partial:
        figure.savefig(partial, format=path.suffix[1:].lower(), dpi=120)


def _draw_lengths(axes: Any, histogram: Mapping[str, Any], task: str, numbers: Mapping[str, Any], *, last: bool, unit: str) -> None:
    axes.stairs(histogram["tasks"][task], [max(edge, 0.9) for edge in histogram["edges"]], fill=True, color="#7aa6c2")
    axes.set_xscale("log")
    axes.set_yticks([])
    axes.spines[["top", "right", "left"]].set_visible(False)
    for name in ("p50", "p90", "p99"):
        axes.axvline(max(1, numbers["lengths"][name]), color="#173f5f", linewidth=1, ymax=0.9)
    axes.set_ylabel(_plain(task), rotation=0, horizontalalignment="right", verticalalignment="center")
    lengths = numbers["lengths"]
    text = f"{numbers['samples']:,} rows   " + "   ".join(f"{name} {lengths[name]:,}" for name in ("p50", "p90", "p99", "max"))
    axes.text(0.995, 0.95, text, transform=axes.transAxes, horizontalalignment="right", verticalalignment="bottom", fontsize=8)
    axes.tick_params(labelbottom=last)
    if last:
        axes.set_xlabel(f"length of a row, in {unit}")


def _draw_shares(axes: Any, names: Sequence[str], shares: Mapping[str, tuple[str, list[float]]]) -> None:
    """Bars side by side for each task, the first task on top."""
    height = 0.8 / max(1, len(shares))
    for number, (label, (colour, values)) in enumerate(shares.items()):
        places = [index - 0.4 + height * (number + 0.5) for index in range(len(names))]
        axes.barh(places, [100 * value for value in values], height=height * 0.92, color=colour, label=label)
        for place, value in zip(places, values, strict=True):
            axes.text(100 * value, place, f" {value:.1%}", verticalalignment="center", fontsize=7)
    axes.set_yticks(range(len(names)), [_plain(name) for name in names])
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("share, %")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=max(1, len(shares)), fontsize=8, frameon=False)


def _shares(facts: Mapping[str, Any], names: Sequence[str]) -> dict[str, tuple[str, list[float]]]:
    """Legend -> colour and the share of each task: of training rows where the mixture is known, else of all rows."""
    mixture = facts.get("mixture")
    if mixture:
        tasks = mixture["tasks"]
        unit = "token" if all("token_share" in task for task in tasks.values()) else "character"
        return {label: (colour, [tasks.get(name, {}).get(key, 0.0) for name in names]) for key, label, colour in COUNTED
                if key in ("realised_share", f"{unit}_share", f"trained_{unit}_share")
                or (key == "requested_share" and mixture["type"] != "proportional")}
    unit = facts["unit"]
    wanted = {"rows": "samples", unit: unit, f"trained {unit}": f"trained_{unit}"}
    colours = {label: colour for _, label, colour in COUNTED}
    return {label: (colours[label], [facts["per_task"][name][key] / max(1, facts[key]) for name in names]) for label, key in wanted.items()}


def _plain(name: str) -> str:
    """A name as matplotlib draws it literally: `$` would begin a formula."""
    return name.replace("$", r"\$")
