"""The kind `quantize`: a matrix of jobs over one model."""

import shutil
from functools import partial
from pathlib import Path
from typing import Any

from mft.files import MANIFEST, read_json
from mft.hashes import sha256_json
from mft.quantization.config import QuantizeOptions, absolute_texts
from mft.quantization.job import FACTS
from mft.quantization.matrix import Request, quantize
from mft.quantization.preview import check_jobs, predicted_bytes
from mft.release.card import CARD, finish_folder
from mft.runs.config import QuantizeStage
from mft.runs.forecast import Forecast, shape_behind, size
from mft.runs.kinds.context import Kind, StageContext
from mft.runs.planning import PlanOptions
from mft.training.run import ADAPTER


def quantize_request(context: StageContext, stage: QuantizeStage) -> Request:
    """The stage as `mft quantize` does it."""
    options = QuantizeOptions.model_validate(stage.model_dump(exclude={"kind", "name", "model", "data"}))
    if options.quality:
        options = options.model_copy(update={"quality": absolute_texts(options.quality, context.beside)})
    folder = context.base if stage.model == "base" else context.out / stage.model
    if stage.model != "base" and context.config.stage(stage.model).kind == "train":
        folder = folder / ADAPTER
    name = context.config.model.base if stage.model == "base" else stage.model
    return Request(folder, name, context.folder, options, context.out / stage.data if stage.data else None, context.config.model.format,
                   overwrite=context.overwrite, replace_other=context.replace, beside=context.beside,
                   finish=partial(finish_folder, run=context.records, stage=stage.name))


def run_quantize(context: StageContext, stage: QuantizeStage) -> dict[str, Any]:
    """Make every job of the matrix that is not finished."""
    for name in stage.names:
        if any((context.out / lost).is_relative_to(context.folder / name) for lost in context.lost):
            shutil.rmtree(context.folder / name, ignore_errors=True)
    return quantize(quantize_request(context, stage))


def _quantize_sources(context: StageContext, stage: QuantizeStage) -> Any:
    return context.hashes_of(context.base) if stage.model == "base" else None


def _matrix_hash(context: StageContext, result: dict[str, Any]) -> str:
    """Hash of the jobs' files, without records and cards, which hold times."""
    return sha256_json({job["name"]: {name: facts["sha256"] for name, facts in read_json(Path(job["path"]) / MANIFEST)["files"].items()
                                      if name not in (FACTS, CARD)} for job in result["jobs"]})


def forecast_quantize(context: StageContext, stage: QuantizeStage, options: PlanOptions) -> Forecast:
    """Bytes of every job; how long one takes is not known beforehand."""
    shape = shape_behind(context.config.model.base, context.beside)
    check_jobs(shape, stage.jobs)
    jobs = {name: predicted_bytes(shape, job) for name, job in zip(stage.names, stage.jobs, strict=True)}
    needed = sum(jobs.values()) * (2 if stage.git else 1)
    return Forecast(f"{len(jobs)} job{'s' * (len(jobs) > 1)}: " + ", ".join(f"{name} {size(value)}" for name, value in jobs.items()),
                    {"jobs": jobs}, hours=None, cost=None, disk_bytes=needed)


QUANTIZE = Kind(run_quantize, _matrix_hash, _quantize_sources,
                handed_on=lambda context, stage: [context.folder / name for name in stage.names], forecast=forecast_quantize)
