"""The kind `train`: fine-tune an adapter, on as many ranks as the config asks for."""

import logging
from typing import Any

from torch.cuda import device_count

from mft.files import read_json
from mft.hashes import hash_file, sha256_json
from mft.modeling.base import check_context, read_model_config
from mft.runs.config import TrainStage
from mft.runs.forecast import Forecast
from mft.runs.kinds.context import Kind, StageContext
from mft.runs.launch import start_ranks
from mft.runs.plan_text import headline
from mft.runs.planning import PlanOptions, plan_project
from mft.runs.tracking import tracking_options
from mft.runs.view import without_view
from mft.training.job import TrainJob, check_job
from mft.training.ranks import started_by_torchrun
from mft.training.run import ADAPTER, RUN, train
from mft.training.tokens import RunTokens, encode_run


def encode_stage(context: StageContext, stage: TrainStage) -> RunTokens:
    """The stage's data as token ids, kept beside the run."""
    check_context(context.base, context.config.model.context)
    return encode_run(context.out / stage.data, context.base, context.config.model, context.out / ".tokens" / stage.name)


def train_job(context: StageContext, stage: TrainStage) -> TrainJob:
    """The stage as a job."""
    base, model, start = context.base_of(stage), context.config.model, None
    if base != context.base:
        model = model.model_copy(update={"base": str(base)})
    if stage.init_from and context.config.stage(stage.init_from).kind == "train":
        start = context.out / stage.init_from / ADAPTER
    return TrainJob(base, model, stage.quantization, stage.adapter, stage.tasks, stage.training, stage.distributed, start=start,
                    beside=context.beside, stamps=context.stamps, cache=context.quantized_cache)


def run_train(context: StageContext, stage: TrainStage) -> dict[str, Any]:
    """Encode the data, fine-tune the adapter; on several ranks, start them unless this is one of them."""
    if context.lost:     # without its record the run goes on from its last checkpoint
        (context.folder / RUN).unlink(missing_ok=True)
    tokens = encode_stage(context, stage)
    if not started_by_torchrun() and (ranks := _ranks_to_start(context, stage)) is not None:
        check_job(train_job(context, stage), tokens, ranks, context.config.tracking.generations)
        _start(context, stage, ranks)
        return dict(read_json(context.folder / RUN))
    longest = read_model_config(context.base).get("max_position_embeddings", context.config.model.context)
    tracking = tracking_options(context.config, stage, context.out / stage.data, tokens, longest)
    context.before_training()
    return train(train_job(context, stage), tokens, context.folder, resume=context.resume,
                 overwrite=context.overwrite, replace_other=context.replace, tracking=tracking)


def ranks_here(context: StageContext, stage: TrainStage) -> int:
    """How many ranks of a train stage this machine is to run."""
    distributed = stage.distributed
    return context.processes or distributed.processes or (max(1, device_count()) if distributed.engine != "none" else 1)


def _ranks_to_start(context: StageContext, stage: TrainStage) -> int | None:
    """How many processes to start on this machine; None: train in this one."""
    ranks = ranks_here(context, stage)
    return None if ranks == 1 and stage.distributed.engine in ("none", "ddp") else ranks


def _start(context: StageContext, stage: TrainStage, ranks: int) -> None:
    quiet = [] if logging.getLogger("mft").isEnabledFor(logging.INFO) else ["-q"]
    command = [*quiet, *context.command, "--stage", stage.name, "--out", str(context.out), "--resume", context.resume]
    with without_view():
        start_ranks([*command, *(["--overwrite"] if context.overwrite else [])], ranks, stage.distributed.timeout_minutes)


def trained_hash(context: StageContext, result: dict[str, Any]) -> str:
    """Hash of the trained weights: an adapter's file, or a whole model's."""
    return sha256_json([hash_file(path)["sha256"] for path in sorted((context.folder / ADAPTER).glob("*.safetensors"))])


def _base_files(context: StageContext, stage: TrainStage) -> Any:
    return context.hashes_of(context.base_of(stage))


def forecast_train(context: StageContext, stage: TrainStage, options: PlanOptions) -> Forecast:
    """Memory, steps, hours and cost, as `mft plan` gives them. Disk: the trained weights, as many checkpoints as are kept, and
    the base in NF4 where it is kept."""
    [plan] = plan_project(context.config, context.beside, context.out, options, stage.name)
    steps = "steps not known before the data is encoded" if plan.time.steps is None else f"{plan.time.steps:,} steps"
    return Forecast(
        f"{headline(plan)}; {steps}", plan.to_json(), hours=plan.time.hours, cost=plan.time.cost,
        disk_bytes=plan.trained_parameters * (4 + 12 * stage.training.keep_last) + plan.cache_bytes,
        fault=None if plan.fits else f"stage '{stage.name}' does not fit: {plan.lack()}")


TRAIN = Kind(run_train, trained_hash, _base_files, handed_on=lambda context, stage: [context.folder / ADAPTER], forecast=forecast_train)
