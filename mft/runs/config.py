"""A config is a project: a model, how it is tracked, and a list of stages."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from mft.config.load import load_config
from mft.config.model import StrictModel
from mft.errors import ConfigError
from mft.evaluation.config import CodeOptions, LossOptions
from mft.merging.config import MergeOptions
from mft.modeling.config import AdapterConfig, ModelConfig, QuantizationConfig
from mft.quantization.config import CALIBRATED, QuantizeOptions
from mft.runs.shipped import likely_config
from mft.synthesis.config import SynthesizeOptions
from mft.training.config import DistributedConfig, TasksConfig, TrainingConfig

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


class Named(StrictModel):
    """What every stage has: a name, which is also its folder in the output."""

    name: str = Field(pattern=NAME)


class RecipeParameter(StrictModel):
    """The value of a recipe's parameter: a path, or what an earlier stage has written."""

    path: str | None = Field(None, min_length=1)
    """A file, folder or glob, relative to this config; with `stage`, relative to the folder of that stage."""

    stage: str | None = None
    """Name of an earlier data or synthesize stage: its output folder, or with `path` something in it."""

    @model_validator(mode="after")
    def _says_something(self) -> "RecipeParameter":
        if self.path is None and self.stage is None:
            raise ValueError("give a path, a stage or both: {path: ../src}, {stage: NAME} or {stage: NAME, path: rows.jsonl}")
        return self


class DataStage(Named):
    """Build a data set from a recipe."""

    kind: Literal["data"]
    recipe: str
    """A recipe file, relative to this config."""

    parameters: dict[str, RecipeParameter] = Field(default_factory=dict)
    """Values for the recipe's `parameters`: `{tree: {path: ../src}}` or `{rows: {stage: NAME, path: rows.jsonl}}`; those that are not
    named keep the recipe's own."""

    def values(self, beside: Path, out: Path) -> dict[str, str]:
        """Parameter -> absolute path. `beside`: the config's folder; `out`: that of the stages' outputs."""
        return {name: ((beside if value.stage is None else out / value.stage) / (value.path or "")).absolute().as_posix()
                for name, value in self.parameters.items()}


class SynthesizeStage(Named, SynthesizeOptions):
    """Rows that a model makes and that compilers and tests judge."""

    kind: Literal["synthesize"]

    seeds: str | None = Field(None, min_length=1)
    """A file of rows, or a folder of `mft data build` or `mft synthesize`, relative to this config. One of `seeds` and `data`."""

    data: str | None = None
    """Name of an earlier data or synthesize stage, whose rows are the seeds."""

    @model_validator(mode="after")
    def _one_source(self) -> "SynthesizeStage":
        if (self.seeds is None) == (self.data is None):
            raise ValueError("give one of seeds (a path) and data (an earlier stage)")
        if self.makers and self.client is None:
            raise ValueError(f"{', '.join(dict.fromkeys(self.makers))}: a language model must answer; say which one: client")
        return self


class TrainStage(Named):
    """Fine-tune an adapter on a data stage."""

    kind: Literal["train"]
    data: str
    """Name of an earlier data stage."""

    init_from: str | None = None
    """Name of an earlier train stage, whose adapter goes on training; its kind, rank, alpha and targets must be the same. Or of an earlier
    merge stage, whose model is the base of this one: a new adapter is trained on it."""

    allow_higher_learning_rate: bool = False
    """A stage that goes on from an earlier one is refused unless its `training.learning_rate` is below that one's: a rate as high undoes
    what was learnt there. true: as high or higher is meant. Changes nothing that is trained."""

    quantization: QuantizationConfig = Field(default_factory=QuantizationConfig)
    adapter: AdapterConfig = Field(default_factory=AdapterConfig)
    tasks: TasksConfig = Field(default_factory=TasksConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    distributed: DistributedConfig = Field(default_factory=DistributedConfig)


class MergeStage(Named, MergeOptions):
    """Merge a train stage's adapter into its base."""

    kind: Literal["merge"]
    adapter: str
    """Name of an earlier train stage."""


class QuantizeStage(Named, QuantizeOptions):
    """Quantise a model as a matrix of jobs, and compare them."""

    kind: Literal["quantize"]
    model: str
    """`base`, an earlier merge stage, or an earlier train stage that trains every weight."""

    data: str | None = None
    """Name of an earlier data stage, whose training rows calibrate and whose validation rows measure. Needed by gptq and awq."""


class EvaluateStage(Named, LossOptions):
    """Held-out loss of several models on the same rows."""

    kind: Literal["evaluate"]


class BenchmarkStage(Named, CodeOptions):
    """pass@k of several models on a code benchmark."""

    kind: Literal["evaluate"]


class ReleaseStage(Named):
    """A model as others download it: weights, tokenizer, chat template, model card, hashes."""

    kind: Literal["release"]
    model: str
    """An earlier merge or train stage, or a job of an earlier quantize stage as `STAGE/JOB`, such as `int4/main`."""

    title: str | None = Field(None, min_length=1)
    """How the card calls the model. null: the project's name, and for a quantised model the job's."""

    licence: str | None = Field(None, min_length=1)
    """Licence id for the card, such as llama2. null: what the base's own card states, else unknown."""


class ReportStage(Named):
    """One HTML page of the whole run."""

    kind: Literal["report"]


AnyEvaluateStage = Annotated[EvaluateStage | BenchmarkStage, Field(discriminator="benchmark")]
Stage = Annotated[DataStage | SynthesizeStage | TrainStage | MergeStage | QuantizeStage | AnyEvaluateStage | ReleaseStage | ReportStage,
                  Field(discriminator="kind")]
PARAMETER_KINDS = {"data", "synthesize"}
"""Kinds of stages whose folder a recipe may read through a parameter."""

NEEDS: dict[str, dict[str, set[str]]] = {"train": {"data": {"data"}, "init_from": {"train", "merge"}}, "merge": {"adapter": {"train"}},
                                         "quantize": {"data": {"data"}}, "synthesize": {"data": {"data", "synthesize"}}}
"""kind -> key -> kinds that the earlier stage may have which the key names (null: none)."""


class TrackingConfig(StrictModel):
    """Where metrics go besides metrics.jsonl."""

    wandb: bool = False
    """Weights & Biases, one run over all resumptions; set WANDB_MODE=offline to keep it on this machine."""

    tensorboard: bool = False
    """Event files under `tensorboard/` in the run's folder."""

    generations: int = Field(0, ge=0)
    """Held-out prompts that are answered at each evaluation of a train stage, one of each task in turn: in `generations.jsonl` and as
    a table in wandb and TensorBoard. Not where no rank holds the whole model (fsdp, ZeRO-3). 0: none."""


class ProjectConfig(StrictModel):
    """A whole YAML file under configs/."""

    name: str = Field(pattern=NAME)
    model: ModelConfig
    tracking: TrackingConfig = Field(default_factory=TrackingConfig)
    stages: list[Stage] = Field(min_length=1)

    @model_validator(mode="after")
    def _stages_fit(self) -> "ProjectConfig":
        earlier: dict[str, Stage] = {}
        misfits = []
        for number, stage in enumerate(self.stages):
            misfits += [misfit.at(number) for misfit in _misfits(stage, earlier)]
            if isinstance(stage, EvaluateStage) and not any(isinstance(other, TrainStage) for other in self.stages[:number]):
                misfits.append(Misfit(("benchmark",), "loss is measured on the held-out rows of a train stage, and none stands before this "
                                                      "one").at(number))
            earlier[stage.name] = stage
        if misfits:
            raise ValidationError.from_exception_data(type(self).__name__, misfits)
        return self

    def stage(self, name: str) -> Stage:
        """The stage of this name; the name must exist."""
        return next(stage for stage in self.stages if stage.name == name)


class Misfit(NamedTuple):
    """What of a stage does not fit the stages before it: the key inside the stage, and a sentence about its value."""

    key: tuple[str, ...]
    sentence: str

    def at(self, number: int) -> InitErrorDetails:
        """The same as pydantic reports it, for the stage of this number."""
        return {"type": PydanticCustomError("value_error", "{error}", {"error": self.sentence}), "loc": ("stages", number, *self.key),
                "input": None}


def _misfits(stage: Stage, earlier: dict[str, Stage]) -> Iterator[Misfit]:
    if stage.name in earlier:
        yield Misfit(("name",), f"two stages are named '{stage.name}'")
    for key, kinds in NEEDS.get(stage.kind, {}).items():
        if getattr(stage, key) is not None:
            yield from _reference(key, getattr(stage, key), kinds, earlier)
    if isinstance(stage, DataStage):
        for name, value in stage.parameters.items():
            if value.stage is not None:
                yield from _reference(("parameters", name, "stage"), value.stage, PARAMETER_KINDS, earlier)
    if isinstance(stage, MergeStage) and _trains_every_weight(earlier.get(stage.adapter)):
        yield Misfit(("adapter",), f"'{stage.adapter}' trains every weight (adapter.type: full), so there is nothing to merge; its folder "
                                   "holds the whole model")
    if isinstance(stage, EvaluateStage | BenchmarkStage):
        for model in stage.models:
            if model != "base":
                yield from _reference("models", model, {"train", "merge"}, earlier)
        for model in stage.nf4:
            if model in earlier:
                yield from _reference("nf4", model, {"merge"}, earlier)
    if isinstance(stage, QuantizeStage):
        yield from _quantize_misfits(stage, earlier)
    if isinstance(stage, TrainStage):
        yield from _rate_misfits(stage, earlier)
    if isinstance(stage, ReleaseStage):
        yield from _release_misfits(stage, earlier)


def _quantize_misfits(stage: QuantizeStage, earlier: dict[str, Stage]) -> Iterator[Misfit]:
    """The model is the base, or a folder with all weights; jobs that calibrate have rows."""
    if stage.model != "base":
        yield from _reference("model", stage.model, {"merge", "train"}, earlier)
        if isinstance(earlier.get(stage.model), TrainStage) and not _trains_every_weight(earlier[stage.model]):
            yield Misfit(("model",), f"'{stage.model}' trains an adapter; merge it first and name the merge stage")
    if stage.data is None and (needy := sorted({job.method for job in stage.jobs} & set(CALIBRATED))):
        yield Misfit(("data",), f"{' and '.join(needy)} measure activations on real rows; name a data stage")


def _release_misfits(stage: ReleaseStage, earlier: dict[str, Stage]) -> Iterator[Misfit]:
    """The model is a folder that an earlier stage leaves; of a matrix, one of its jobs."""
    name, _, job = stage.model.partition("/")
    named = earlier.get(name)
    if isinstance(named, QuantizeStage):
        if job not in named.names:
            yield Misfit(("model",), f"'{stage.model}' names no job of the quantize stage '{name}'; allowed: "
                                     f"{', '.join(f'{name}/{each}' for each in named.names)}")
    elif job or not isinstance(named, MergeStage | TrainStage):
        allowed = [other.name for other in earlier.values() if isinstance(other, MergeStage | TrainStage)]
        allowed += [f"{other.name}/{each}" for other in earlier.values() if isinstance(other, QuantizeStage) for each in other.names]
        yield Misfit(("model",), f"'{stage.model}' is not a model of an earlier stage; allowed: "
                                 f"{', '.join(allowed) or 'none stands before it'}")


def _reference(key: str | tuple[str, ...], name: str, kinds: set[str], earlier: dict[str, Stage]) -> Iterator[Misfit]:
    """A misfit if `name` is not an earlier stage of one of these kinds."""
    if name not in earlier or earlier[name].kind not in kinds:
        allowed = [other.name for other in earlier.values() if other.kind in kinds]
        yield Misfit((key,) if isinstance(key, str) else key,
                     f"'{name}' is not an earlier {' or '.join(sorted(kinds))} stage; "
                     f"allowed: {', '.join(allowed) or 'none stands before it'}")


def _trains_every_weight(stage: Stage | None) -> bool:
    return isinstance(stage, TrainStage) and stage.adapter.type == "full"


def _rate_misfits(stage: TrainStage, earlier: dict[str, Stage]) -> Iterator[Misfit]:
    """A stage that goes on from another one takes a lower learning rate, unless it says that a higher one is meant."""
    if stage.init_from is None:
        if stage.allow_higher_learning_rate:
            yield Misfit(("allow_higher_learning_rate",), "acts with init_from only; this stage starts from the base")
        return
    start, way = earlier.get(stage.init_from), ""
    if isinstance(start, MergeStage):
        way = f", merged by '{start.name}'"
        start = earlier.get(start.adapter)
    if not isinstance(start, TrainStage) or stage.allow_higher_learning_rate:
        return
    rate, before = stage.training.learning_rate, start.training.learning_rate
    if rate >= before:
        yield Misfit(("training", "learning_rate"),
                     f"stage '{stage.name}' goes on from stage '{start.name}'{way}, whose learning_rate is {before:g}, with {rate:g}, "
                     f"which is not lower and would undo what was learnt there; lower it, or give stage '{stage.name}' "
                     "allow_higher_learning_rate: true")


def load_project(path: Path, overrides: list[str] | None = None) -> ProjectConfig:
    """Read a project's YAML.

    Raises:
        ConfigError: every mistake, with its line; or there is no such file.
    """
    if not path.exists() and (shipped := likely_config(path.name)):
        raise ConfigError([f"{path}: no such file; mft comes with {shipped}"])
    return load_config(ProjectConfig, path, overrides or [], context={"folder": path.parent})
