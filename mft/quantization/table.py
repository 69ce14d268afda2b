"""One table and one plot of a matrix: what each job costs and what it keeps."""

import logging
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mft.files import atomic_file

logger = logging.getLogger(__name__)

ENGINES = {
    ("gptq", 2): "gptqmodel, transformers", ("gptq", 3): "gptqmodel, transformers",
    ("gptq", 4): "gptqmodel, transformers, vLLM, SGLang, ExLlama", ("gptq", 8): "gptqmodel, transformers, vLLM, SGLang",
    ("nf4", 4): "transformers with bitsandbytes",
    ("int8", 8): "transformers with bitsandbytes", ("awq", 4): "gptqmodel, vLLM, SGLang", ("gguf", None): "llama.cpp",
}
"""Which engines are known to load what, late 2026; vLLM has dropped 2 and 3 bits (its pull request 38288), so try before relying on it."""


def engines_of(job: dict[str, Any]) -> str:
    """Engines that load a job's folder; `rtn` has GPTQ's layout."""
    return ENGINES.get((job["method"].replace("rtn", "gptq"), job["bits"]), "transformers")


def header_and_rows(result: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The comparison as text: a row for the unquantised model, one for each job."""
    texts = list(result.get("unquantised_perplexity") or {})
    header = ["name", "method", "bits", "group", "act-order", "damp", "GB", *(f"perplexity {name}" for name in texts), "KL", "same first",
              "s"]
    base = result.get("unquantised_perplexity") or {}
    whole = ["(unquantised)", "-", "16", "-", "-", "-", _gb(result["unquantised_bytes"]), *(f"{base[name]:.4f}" for name in texts), "0",
             "100%", "-"]
    return header, [whole] + [_row(job, texts) for job in result["jobs"]]


def _row(job: dict[str, Any], texts: Sequence[str]) -> list[str]:
    quality = job.get("quality") or {}
    head = [job["name"], job["method"], *(_text(job[key]) for key in ("bits", "group_size", "desc_act", "damp")), _gb(job["bytes"])]
    if "error" in job:
        return [*head, *["failed"] * len(texts), "-", "-", "-"]
    return [*head, *(f"{quality[name]['perplexity']:.4f}" if name in quality else "-" for name in texts),
            "-" if job.get("kl") is None else f"{job['kl']:.5f}",
            "-" if job.get("top1_agreement") is None else f"{job['top1_agreement']:.2%}", f"{job['seconds']:.0f}"]


def markdown(result: dict[str, Any]) -> str:
    """The comparison as Markdown, with what would surprise a reader below it."""
    header, rows = header_and_rows(result)
    rows = [[*rows[0], "all"], *([*row, engines_of(job)] for row, job in zip(rows[1:], result["jobs"], strict=True))]
    lines = ["| " + " | ".join(row) + " |" for row in ([*header, "loads in"], ["---"] * (len(header) + 1), *rows)]
    notes = [f"Model: {result['model']}. KL: mean over the held-out rows' trained tokens, in nats, from the unquantised model to this one; "
             f"same first: tokens where both would say the same. Calibration rows: sha256 {result['calibration_sha256']}."]
    return "\n".join([*lines, "", *notes, *(f"Warning: {warning}." for warning in result["warnings"])]) + "\n"


def order_warnings(jobs: Sequence[dict[str, Any]]) -> list[str]:
    """Pairs of jobs of one method, one larger than the other and worse all the same: more than two standard errors of KL apart."""
    warnings = []
    measured = sorted((job for job in jobs if job.get("kl") is not None), key=lambda job: int(job["bytes"]))
    for place, small in enumerate(measured):
        for large in measured[place + 1:]:
            if large["method"] != small["method"] or large["bytes"] == small["bytes"]:
                continue
            error = sum(job["quality"]["held_out"]["kl_standard_error"] ** 2 for job in (small, large)) ** 0.5
            if large["kl"] - small["kl"] > 2 * error:
                warnings.append(f"{large['label']} is larger than {small['label']} and further from the unquantised model "
                                f"(KL {large['kl']:.5f} and {small['kl']:.5f})")
    return warnings


def write_plot(result: dict[str, Any], path: Path) -> bool:
    """KL over size, a point a job; without matplotlib there is no plot, and the log says so."""
    jobs = [job for job in result["jobs"] if job.get("kl") is not None]
    if not jobs:
        return False
    if find_spec("matplotlib") is None:
        logger.info("no plot: it needs matplotlib; pip install 'mft[plot]'")
        return False
    from mft.quantization.plot import draw

    with atomic_file(path) as partial:
        draw(jobs, result["unquantised_bytes"], partial)
    return True


def _gb(number: int | None) -> str:
    return "-" if number is None else f"{number / 1e9:.3f}" if number < 10**9 else f"{number / 1e9:.2f}"


def _text(value: Any) -> str:
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def preview_tables(result: dict[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    """(title, header, rows) of a dry run: sizes and memory; then the longest context of one request that each card holds."""
    whole = {"name": "(unquantised)", "label": "", "bytes": result["unquantised_bytes"], "fits": result["unquantised_fits"]}
    sizes = [[job["name"], job["label"], _gb(job["bytes"]), _gib(job.get("quantising_bytes")), _gib(job.get("serving_bytes"))]
             for job in [whole, *result["jobs"]]]
    cards = [f"{fit['card']} ({fit['memory_bytes'] / 2**30:.0f} GiB)" for fit in whole["fits"]]
    fits = [[job["name"], *(f"{fit['longest_context']:,}" if fit["longest_context"] else "no" for fit in job["fits"])]
            for job in [whole, *result["jobs"]]]
    header = ["name", "job", "GB", "GiB to quantise", f"GiB to serve {result['serving_context']:,}"]
    return [(f"{result['model']}: weights and memory", header, sizes),
            ("longest context that fits (one request; arithmetic, not measured)", ["name", *cards], fits)]


def _gib(number: int | None) -> str:
    return "-" if number is None else f"{number / 2**30:.1f}"
