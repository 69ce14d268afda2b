"""The kind `merge`: the adapter of a train stage, added into the weights that it was trained on."""

from functools import partial
from typing import Any

from mft.files import MANIFEST, read_json
from mft.hashes import sha256_json
from mft.merging.config import MergeOptions
from mft.merging.merge import DISTANCES, RESULT, merge
from mft.release.card import CARD, finish_folder
from mft.runs.config import MergeStage
from mft.runs.forecast import PRECISION_BYTES, Forecast, shape_behind, size
from mft.runs.kinds.context import Kind, StageContext
from mft.runs.planning import PlanOptions
from mft.runs.progress import progress_bar
from mft.training.run import ADAPTER


def run_merge(context: StageContext, stage: MergeStage) -> dict[str, Any]:
    """Merge the adapter of a train stage."""
    options = MergeOptions.model_validate(stage.model_dump(exclude={"kind", "name", "adapter"}))
    with progress_bar("merge") as report:
        return merge(context.base_behind(stage), context.out / stage.adapter / ADAPTER, context.folder, options,
                     overwrite=context.overwrite or context.replace, progress=report,
                     finish=partial(finish_folder, name=f"{context.config.name}-{stage.name}", run=context.records, stage=stage.name)
                     ).to_json()


def model_hash(context: StageContext, result: dict[str, Any]) -> str:
    """Hash of a merged model's files, without its records and its card: times, and what a check of the weights measured."""
    files = read_json(context.folder / MANIFEST)["files"]
    return sha256_json({name: facts["sha256"] for name, facts in files.items() if name not in (RESULT, DISTANCES, CARD)})


def _base_files(context: StageContext, stage: MergeStage) -> Any:
    return context.hashes_of(context.base_behind(stage))


def merged_bytes(context: StageContext, stage: MergeStage) -> int:
    """Bytes of the merged weights.

    Raises:
        ModelError: the shape of the base is not known.
    """
    return shape_behind(context.config.model.base, context.beside).parameters * PRECISION_BYTES[stage.dtype]


def forecast_merge(context: StageContext, stage: MergeStage, options: PlanOptions) -> Forecast:
    """Bytes on disk; a merge takes minutes, which are not counted."""
    needed = merged_bytes(context, stage)
    return Forecast(f"{size(needed)} in {stage.dtype}, checked by {stage.verify}", {"bytes": needed}, disk_bytes=needed)


MERGE = Kind(run_merge, model_hash, _base_files, handed_on=lambda context, stage: [context.folder], forecast=forecast_merge)
