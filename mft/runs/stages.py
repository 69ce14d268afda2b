"""What each kind of stage does: its inputs outside the project, the work, and the fingerprint of what it left."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch.cuda import device_count

from mft.data.config import RecipeConfig, load_recipe
from mft.data.pipeline import build, job_hash, read_built, recipe_inputs
from mft.evaluation.loss import evaluate_loss
from mft.evaluation.models import ModelUnderTest
from mft.evaluation.samples import SampleGeneration, generate_samples, pick_exercises
from mft.files import MANIFEST, atomic_folder, hash_file, read_json, sha256_json, write_json
from mft.merging.config import MergeOptions
from mft.merging.merge import DISTANCES, merge
from mft.merging.merge import RESULT as MERGE_RECORD
from mft.modeling.added_tokens import STORE, extend_base
from mft.modeling.base import check_context, read_model_config, resolve_base
from mft.modeling.config import QuantizationConfig
from mft.quantization.config import QuantizeOptions, absolute_texts
from mft.quantization.job import FACTS as QUANTIZE_RECORD
from mft.quantization.matrix import Request, quantize
from mft.release.card import CARD, finish_folder
from mft.release.records import RunRecords
from mft.runs.benchmark_stage import run_benchmark
from mft.runs.build import rows_bar
from mft.runs.config import BenchmarkStage, DataStage, EvaluateStage, MergeStage, ProjectConfig, QuantizeStage, ReportStage, TrainStage
from mft.runs.launch import start_ranks
from mft.runs.progress import progress_bar
from mft.runs.tracking import tracking_options
from mft.training.job import TrainJob, base_file_hashes, check_job
from mft.training.ranks import started_by_torchrun
from mft.training.run import ADAPTER, RUN, train
from mft.training.tokens import RunTokens, encode_run

ReportWriter = Callable[[Path, Path], Path]
"""(run folder, page) -> page. The report is written by a neighbour on this floor, so the command line hands it in."""


NF4 = QuantizationConfig()
"""How a model of `nf4` in an evaluate stage is held."""


def do_nothing() -> None:
    """For stages that nobody waits for."""


@dataclass(frozen=True, slots=True)
class StageContext:
    """Where a stage stands. `beside`: the config's folder; `folder`: the stage's own output; `done`: records of earlier stages.

    `overwrite`: the user wants the stage anew. `replace`: the folder holds what this project made of it with other settings.
    """

    config: ProjectConfig
    beside: Path
    out: Path
    folder: Path
    done: dict[str, dict[str, Any]]
    overwrite: bool
    replace: bool
    resume: str
    record: dict[str, Any]
    write_report: ReportWriter
    before_training: Callable[[], None] = do_nothing
    """Called by a train stage before it trains."""
    processes: int | None = None
    """Ranks of a train stage, where the command line gives them."""
    command: Sequence[str] = ()
    """`mft` arguments that train this project's stages; ranks are started with them."""

    @property
    def base(self) -> Path:
        """The folder of the project's base model; with `model.add_tokens`, of the extended one in the output."""
        model = self.config.model
        folder = resolve_base(model.base, beside=self.beside)
        return extend_base(folder, model.add_tokens, self.out / STORE) if model.add_tokens else folder

    def base_of(self, stage: TrainStage) -> Path:
        """The folder of the model whose weights a train stage leaves as they are: the project's base, or what `init_from` merged."""
        if stage.init_from is None:
            return self.base
        start = self.config.stage(stage.init_from)
        return self.base_of(start) if isinstance(start, TrainStage) else self.out / start.name


@dataclass(frozen=True, slots=True)
class Runner:
    """`run(context, stage)` gives the stage's result; `sources` hashes what it reads from outside; `fingerprint` its output.

    `faults(result)` lists what a finished stage found wrong: the stages after it still run, then the project fails.
    """

    run: Callable[[StageContext, Any], dict[str, Any]]
    sources: Callable[[StageContext, Any], Any]
    fingerprint: Callable[[StageContext, dict[str, Any]], str]
    faults: Callable[[dict[str, Any]], Sequence[str]] = lambda result: ()


def _recipe(context: StageContext, stage: DataStage) -> RecipeConfig:
    return load_recipe(context.beside / stage.recipe, parameters=stage.values(context.beside, context.out), must_exist=True)


def _data_sources(context: StageContext, stage: DataStage) -> str:
    recipe = _recipe(context, stage)
    return job_hash(recipe, recipe_inputs(recipe))


def run_data(context: StageContext, stage: DataStage) -> dict[str, Any]:
    """Build the recipe into the stage's folder."""
    with rows_bar() as report:
        return build(_recipe(context, stage), context.folder, overwrite=context.overwrite or context.replace, report=report).facts


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
                    beside=context.beside)


def run_train(context: StageContext, stage: TrainStage) -> dict[str, Any]:
    """Encode the data, fine-tune the adapter; on several ranks, start them unless this is one of them."""
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
    start_ranks([*command, *(["--overwrite"] if context.overwrite else [])], ranks, stage.distributed.timeout_minutes)


def run_merge(context: StageContext, stage: MergeStage) -> dict[str, Any]:
    """Merge the adapter of a train stage."""
    options = MergeOptions.model_validate(stage.model_dump(exclude={"kind", "name", "adapter"}))
    with progress_bar("merge") as report:
        return merge(_base_behind(context, stage), context.out / stage.adapter / ADAPTER, context.folder, options,
                     overwrite=context.overwrite or context.replace, progress=report,
                     finish=partial(finish_folder, name=f"{context.config.name}-{stage.name}", run=_records(context), stage=stage.name)
                     ).to_json()


def _records(context: StageContext) -> RunRecords:
    """What the card of a stage's model may say: the config, and the stages before it."""
    return RunRecords(context.config.model_dump(mode="json"), tuple(context.record["stages"]), dict(context.record.get("versions") or {}),
                      context.config.name)


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
                   finish=partial(finish_folder, run=_records(context), stage=stage.name))


def run_quantize(context: StageContext, stage: QuantizeStage) -> dict[str, Any]:
    """Make every job of the matrix that is not finished."""
    return quantize(quantize_request(context, stage))


def run_evaluate(context: StageContext, stage: EvaluateStage | BenchmarkStage) -> dict[str, Any]:
    """Score every model on the held-out rows, write out some answers, and keep all of it in `result.json`; or judge a code benchmark."""
    train_stage = _train_stage_of(context.config, stage)
    models = [*(_model_under_test(context, train_stage, name) for name in stage.models),
              *(ModelUnderTest(f"{name}-nf4", context.out / name, NF4, attention=context.config.model.attention) for name in stage.nf4)]
    if isinstance(stage, BenchmarkStage):
        return run_benchmark(stage, models, context.folder, context.beside, overwrite=context.overwrite, replace_other=context.replace)
    tokens = encode_stage(context, train_stage)
    longest = read_model_config(context.base).get("max_position_embeddings", context.config.model.context)
    exercises = pick_exercises(read_built(context.out / train_stage.data)["validation"], tokens.prompt_format, tokens.tokenizer,
                               number=stage.generations,
                               max_prompt_tokens=min(context.config.model.context // 2, longest - stage.max_new_tokens))
    generations: list[SampleGeneration] = []

    def write_answers(name: str, model: Any) -> None:
        generations.extend(generate_samples(model, name, exercises, tokens.prompt_format, tokens.tokenizer,
                                            max_new_tokens=stage.max_new_tokens))

    with progress_bar("score") as report:
        result = evaluate_loss(tokens.validation, tokens.task_names, models, context=context.config.model.context,
                               prompt_format=tokens.prompt_format, tokenizer=tokens.tokenizer, visit=write_answers,
                               divergence_from=stage.divergence_from, progress=lambda _, done, rows: report(done, rows))
    generations.sort(key=lambda generation: stage.variants.index(generation.model))
    facts = {**result.to_json(), "generations": [generation.to_json() for generation in generations]}
    with atomic_folder(context.folder, replace=True) as partial:
        write_json(partial / "result.json", facts)
    return facts


def _verdict_faults(result: dict[str, Any]) -> Sequence[str]:
    return list(result["verdict"]["faults"]) if "verdict" in result else []


def _train_stage_of(config: ProjectConfig, stage: EvaluateStage | BenchmarkStage) -> TrainStage:
    """The train stage behind the first model that has one, else the last train stage."""
    merges = {other.name: other.adapter for other in config.stages if isinstance(other, MergeStage)}
    trains = {other.name: other for other in config.stages if isinstance(other, TrainStage)}
    named = [merges.get(name, name) for name in stage.models if merges.get(name, name) in trains]
    return trains[named[0]] if named else list(trains.values())[-1]


def _model_under_test(context: StageContext, train_stage: TrainStage, name: str) -> ModelUnderTest:
    attention = context.config.model.attention
    if name == "base":
        return ModelUnderTest(name, context.base, train_stage.quantization, attention=attention)
    is_train = context.config.stage(name).kind == "train"
    return ModelUnderTest(name, context.out / name / ADAPTER if is_train else context.out / name, attention=attention)


def run_report(context: StageContext, stage: ReportStage) -> dict[str, Any]:
    """Write the page; run.json must already hold the stages before it."""
    write_json(context.out / "run.json", context.record)
    return {"path": str(context.write_report(context.out, context.out / f"{stage.name}.html"))}


def _base_behind(context: StageContext, stage: Any) -> Path:
    """The base of a train stage, or of that whose adapter a merge stage takes; of any other stage the project's."""
    train_stage = context.config.stage(stage.adapter) if isinstance(stage, MergeStage) else stage
    return context.base_of(train_stage) if isinstance(train_stage, TrainStage) else context.base


def _base_files(context: StageContext, stage: Any) -> Any:
    return base_file_hashes(_base_behind(context, stage))


def _trained_hash(context: StageContext, result: dict[str, Any]) -> str:
    """Hash of the trained weights: an adapter's file, or a whole model's."""
    return sha256_json([hash_file(path)["sha256"] for path in sorted((context.folder / ADAPTER).glob("*.safetensors"))])


def _model_hash(context: StageContext, result: dict[str, Any]) -> str:
    """Hash of a merged model's files, without its records and its card: times, and what a check of the weights measured."""
    files = read_json(context.folder / MANIFEST)["files"]
    return sha256_json({name: facts["sha256"] for name, facts in files.items() if name not in (MERGE_RECORD, DISTANCES, CARD)})


def _quantize_sources(context: StageContext, stage: QuantizeStage) -> Any:
    return base_file_hashes(context.base) if stage.model == "base" else None


def _matrix_hash(context: StageContext, result: dict[str, Any]) -> str:
    """Hash of the jobs' files, without records and cards, which hold times."""
    return sha256_json({job["name"]: {name: facts["sha256"] for name, facts in read_json(Path(job["path"]) / MANIFEST)["files"].items()
                                      if name not in (QUANTIZE_RECORD, CARD)} for job in result["jobs"]})


def _nothing(context: StageContext, stage: Any) -> None:
    return None


def _rows_hash(context: StageContext, result: dict[str, Any]) -> str:
    return str(read_json(context.folder / MANIFEST)["sha256"])


def _result_hash(context: StageContext, result: dict[str, Any]) -> str:
    return sha256_json(result)


RUNNERS: dict[str, Runner] = {
    "data": Runner(run_data, _data_sources, _rows_hash),
    "train": Runner(run_train, _base_files, _trained_hash),
    "merge": Runner(run_merge, _base_files, _model_hash),
    "quantize": Runner(run_quantize, _quantize_sources, _matrix_hash),
    "evaluate": Runner(run_evaluate, _base_files, _result_hash, _verdict_faults),
    "report": Runner(run_report, _nothing, _result_hash),
}
