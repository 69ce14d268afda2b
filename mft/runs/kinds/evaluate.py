"""The kind `evaluate`: held-out loss of several models, or a code benchmark."""

from collections.abc import Sequence
from typing import Any

from mft.data.pipeline import read_built
from mft.evaluation.loss import evaluate_loss
from mft.evaluation.models import ModelUnderTest
from mft.evaluation.samples import SampleGeneration, generate_samples, pick_exercises
from mft.files import MANIFEST, atomic_folder, read_json, write_json
from mft.hashes import sha256_json
from mft.modeling.base import read_model_config
from mft.modeling.config import QuantizationConfig
from mft.runs.benchmark_stage import RESULT, exam_of, run_benchmark
from mft.runs.config import BenchmarkStage, EvaluateStage, MergeStage, ProjectConfig, TrainStage
from mft.runs.forecast import Forecast
from mft.runs.kinds.context import Kind, StageContext
from mft.runs.kinds.train import encode_stage
from mft.runs.planning import PlanOptions
from mft.runs.progress import progress_bar
from mft.training.run import ADAPTER

NF4 = QuantizationConfig()
"""How a model of `nf4` in an evaluate stage is held."""


def run_evaluate(context: StageContext, stage: EvaluateStage | BenchmarkStage) -> dict[str, Any]:
    """Score every model on the held-out rows, write out some answers, and keep all of it in `result.json`; or judge a code benchmark."""
    train_stage = _train_stage_of(context.config, stage)
    models = [*(_model_under_test(context, train_stage, name) for name in stage.models),
              *(ModelUnderTest(f"{name}-nf4", context.out / name, NF4, attention=context.config.model.attention) for name in stage.nf4)]
    if isinstance(stage, BenchmarkStage):
        return run_benchmark(stage, models, context.folder, context.beside, overwrite=context.overwrite, replace_other=context.replace)
    assert train_stage is not None   # the config is refused otherwise
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
        write_json(partial / RESULT, facts)
    return facts


def _verdict_faults(result: dict[str, Any]) -> Sequence[str]:
    return list(result["verdict"]["faults"]) if "verdict" in result else []


def _train_stage_of(config: ProjectConfig, stage: EvaluateStage | BenchmarkStage) -> TrainStage | None:
    """The train stage behind the first model that has one, else the last train stage; None in a project that trains nothing."""
    merges = {other.name: other.adapter for other in config.stages if isinstance(other, MergeStage)}
    trains = {other.name: other for other in config.stages if isinstance(other, TrainStage)}
    named = [merges.get(name, name) for name in stage.models if merges.get(name, name) in trains]
    return trains[named[0]] if named else next(reversed(trains.values()), None)


def _model_under_test(context: StageContext, train_stage: TrainStage | None, name: str) -> ModelUnderTest:
    attention, cache = context.config.model.attention, context.quantized_cache
    if name == "base":
        return ModelUnderTest(name, context.base, train_stage.quantization if train_stage else None, attention=attention, cache=cache,
                              stamps=context.stamps)
    is_train = context.config.stage(name).kind == "train"
    return ModelUnderTest(name, context.out / name / ADAPTER if is_train else context.out / name, attention=attention, cache=cache)


def _sources(context: StageContext, stage: EvaluateStage | BenchmarkStage) -> Any:
    """The base, and for a benchmark its problems and its protocol."""
    base = context.hashes_of(context.base)
    if isinstance(stage, EvaluateStage):
        return base
    opened = exam_of(stage, context.beside).load()
    return [base, opened.problem_facts["sha256"], opened.protocol.sha256]


def _result_hash(context: StageContext, result: dict[str, Any]) -> str:
    return sha256_json(_lasting(result))


def _lasting(value: Any) -> Any:
    """A result without times and places, which two runs of the same do not share."""
    if isinstance(value, dict):
        return {key: _lasting(each) for key, each in value.items() if key not in ("seconds", "path")}
    return [_lasting(each) for each in value] if isinstance(value, list) else value


def forecast_evaluate(context: StageContext, stage: EvaluateStage | BenchmarkStage, options: PlanOptions) -> Forecast:
    """How many rows or problems, by how many models; how long that takes is not known beforehand."""
    models = len(stage.variants)
    by = f"by {models} model{'s' * (models > 1)}"
    if isinstance(stage, BenchmarkStage):
        problems = len(exam_of(stage, context.beside).load().problems)
        facts = {"problems": problems, "samples": stage.samples, "models": models}
        each = f", {stage.samples} answers each" if stage.samples > 1 else ""
        return Forecast(f"{problems} problems of {stage.benchmark}{each}, {by}; protocol {stage.protocol}", facts, hours=None, cost=None)
    train_stage = _train_stage_of(context.config, stage)
    manifest = context.out / train_stage.data / MANIFEST if train_stage else context.out
    rows = sum(counts["validation"] for counts in read_json(manifest)["per_task"].values()) if manifest.is_file() else None
    told = "the held-out rows (the data is not built yet)" if rows is None else f"{rows:,} held-out rows"
    return Forecast(f"{told}, {by}", {"rows": rows, "models": models}, hours=None, cost=None)


EVALUATE = Kind(run_evaluate, _result_hash, _sources, handed_on=lambda context, stage: [context.folder / RESULT], faults=_verdict_faults,
                forecast=forecast_evaluate)
