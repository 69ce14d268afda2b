"""The kind `report`: one HTML page of the whole run."""

from typing import Any

from mft.files import write_json
from mft.hashes import sha256_json
from mft.runs.config import ReportStage
from mft.runs.kinds.context import Kind, StageContext


def run_report(context: StageContext, stage: ReportStage) -> dict[str, Any]:
    """Write the page; run.json must already hold the stages before it."""
    write_json(context.out / "run.json", context.record)
    return {"path": str(context.write_report(context.out, context.out / f"{stage.name}.html"))}


def _page(context: StageContext, result: dict[str, Any]) -> str:
    return sha256_json(result)


REPORT = Kind(run_report, _page)
