"""The kind `release`: a model as others download it."""

from pathlib import Path
from typing import Any

from mft.files import MANIFEST, read_json
from mft.hashes import sha256_json
from mft.merging.merge import DISTANCES
from mft.merging.merge import RESULT as MERGE_RECORD
from mft.quantization.job import FACTS as QUANTIZE_RECORD
from mft.quantization.preview import predicted_bytes
from mft.release.card import CARD
from mft.release.make import release_folder
from mft.runs.config import MergeStage, QuantizeStage, ReleaseStage
from mft.runs.forecast import Forecast, shape_behind, size
from mft.runs.kinds.context import Kind, StageContext
from mft.runs.kinds.merge import merged_bytes
from mft.runs.planning import PlanOptions
from mft.training.run import ADAPTER

RECORDS = frozenset({MERGE_RECORD, DISTANCES, QUANTIZE_RECORD, CARD})
"""Files that hold times and measurements, and differ between two runs of the same."""


def released_folder(context: StageContext, stage: ReleaseStage) -> Path:
    """The folder of the model that is released."""
    folder = context.out / stage.model
    return folder / ADAPTER if context.config.stage(stage.model.split("/")[0]).kind == "train" else folder


def run_release(context: StageContext, stage: ReleaseStage) -> dict[str, Any]:
    """Write the release; what the folder held before goes, if this project made it."""
    name, _, job = stage.model.partition("/")
    title = stage.title or (f"{context.config.name}-{job}" if job else context.config.name)
    return release_folder(released_folder(context, stage), context.folder, run=context.records, stage=name, name=title,
                          licence=stage.licence, overwrite=context.overwrite or context.replace or _is_release(context.folder))


def _is_release(folder: Path) -> bool:
    """Whether a folder was written by a release: one that was killed before it was noted is made again."""
    try:
        return bool(read_json(folder / MANIFEST)["made_by"] == "mft release")
    except (OSError, ValueError, TypeError, KeyError):
        return False


def _files_hash(context: StageContext, result: dict[str, Any]) -> str:
    """Hash of the released files, without records that hold times."""
    return sha256_json({file["path"]: file["sha256"] for file in result["files"] if file["path"] not in RECORDS})


def forecast_release(context: StageContext, stage: ReleaseStage, options: PlanOptions) -> Forecast:
    """Bytes of the release, which takes none of the disk where its weights are hard links."""
    name, _, job = stage.model.partition("/")
    source = context.config.stage(name)
    needed: int | None = None
    if isinstance(source, QuantizeStage):
        needed = predicted_bytes(shape_behind(context.config.model.base, context.beside), source.jobs[source.names.index(job)])
    elif isinstance(source, MergeStage):
        needed = merged_bytes(context, source)
    told = "the adapter" if needed is None else size(needed)
    return Forecast(f"{told} of '{stage.model}', weights by hard links", {"bytes": needed})


RELEASE = Kind(run_release, _files_hash, handed_on=lambda context, stage: [context.folder], forecast=forecast_release)
