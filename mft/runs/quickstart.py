"""`mft quickstart`: configs/quickstart.yaml, run like any other project."""

import time
from pathlib import Path
from typing import Any

from mft.errors import CheckFailed
from mft.runs.config import load_project
from mft.runs.kinds.context import ReportWriter
from mft.runs.project import Project, run_project
from mft.runs.shipped import shipped_config


def run_quickstart(out: Path, write_report: ReportWriter, *, overwrite: bool = False) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run the shipped quickstart project; returns (the JSON of the verb, run.json).

    The JSON has `run`, `tasks.{t}.loss_before/loss_after`, `overall`, `merge`, `seconds`, `report`.

    Raises:
        CheckFailed: the held-out loss did not fall clearly, or rose on a task.
    """
    started = time.perf_counter()
    path = shipped_config("quickstart.yaml")
    project = Project(load_project(path), path, out, write_report, overwrite=overwrite)
    failed: CheckFailed | None = None
    try:
        record = run_project(project)
    except CheckFailed as error:
        if error.result is None:
            raise
        failed, record = error, error.result
    results = {entry["kind"]: entry["result"] for entry in record["stages"]}
    loss = results["evaluate"]
    summary = {
        "run": str(out), "tasks": {task: before_after(table) for task, table in loss["tasks"].items()},
        "overall": before_after(loss["overall"]), "merge": results["merge"], "report": results["report"]["path"],
        "seconds": time.perf_counter() - started}
    if failed:
        failed.result = summary
        raise failed
    return summary, record


def before_after(table: dict[str, Any]) -> dict[str, Any]:
    """Held-out loss of base, adapter (the second model) and merged model (the third), in nats per trained token."""
    base, adapter, merged = table["loss"].values()
    difference = next(iter(table["difference"].values()), {"mean": None, "se": None})
    return {"rows": table["rows"], "tokens": table["tokens"], "loss_before": base, "loss_after": adapter, "loss_merged": merged,
            "difference": difference["mean"], "standard_error": difference["se"]}
