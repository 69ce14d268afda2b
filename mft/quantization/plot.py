"""The plot of a matrix: how far from the unquantised model over how large. Its callers have asked for matplotlib."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

MARKS = {"gptq": "o", "rtn": "x", "nf4": "s", "int8": "D"}


def draw(jobs: Sequence[dict[str, Any]], unquantised_bytes: int, path: Path) -> None:
    """KL (logarithmic) over the size as a share of the unquantised one; each method has a mark, each job its label."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for method in dict.fromkeys(job["method"] for job in jobs):
        own = [job for job in jobs if job["method"] == method]
        sizes = [job["bytes"] / unquantised_bytes for job in own]
        axes.errorbar(sizes, [max(job["kl"], 1e-9) for job in own], marker=MARKS.get(method, "^"), linestyle="none", label=method,
                      yerr=[job["quality"]["held_out"]["kl_standard_error"] for job in own])
        for size, job in zip(sizes, own, strict=True):
            axes.annotate(job["label"], (size, max(job["kl"], 1e-9)), textcoords="offset points", xytext=(4, 4), fontsize=7)
    axes.set_yscale("log")
    axes.set_xlabel("size, as a share of the unquantised weights")
    axes.set_ylabel("KL from the unquantised model, nats a token")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120, format="png")
