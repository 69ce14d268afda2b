"""A config is a project: a model, how it is tracked, and a list of stages."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from mft.config.load import load_config
from mft.config.model import StrictModel
from mft.evaluation.config import LossOptions
from mft.merging.config import MergeOptions
from mft.modeling.config import AdapterConfig, ModelConfig, QuantizationConfig
from mft.training.config import DistributedConfig, TasksConfig, TrainingConfig

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


class Named(StrictModel):
    """What every stage has: a name, which is also its folder in the output."""

    name: str = Field(pattern=NAME)


class DataStage(Named):
    """Build a data set from a recipe."""

    kind: Literal["data"]
    recipe: str
    """A recipe file, relative to this config."""


class TrainStage(Named):
    """Fine-tune an adapter on a data stage."""

    kind: Literal["train"]
    data: str
    """Name of an earlier data stage."""

    init_from: str | None = None
    """Name of an earlier train stage, whose adapter goes on training; its kind, rank, alpha and targets must be the same. Or of an earlier
    merge stage, whose model is the base of this one: a new adapter is trained on it."""

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


class EvaluateStage(Named, LossOptions):
    """Held-out loss of several models on the same rows."""

    kind: Literal["evaluate"]


class ReportStage(Named):
    """One HTML page of the whole run."""

    kind: Literal["report"]


Stage = Annotated[DataStage | TrainStage | MergeStage | EvaluateStage | ReportStage, Field(discriminator="kind")]
NEEDS: dict[str, dict[str, set[str]]] = {"train": {"data": {"data"}, "init_from": {"train", "merge"}}, "merge": {"adapter": {"train"}}}
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
        seen: dict[str, str] = {}
        full: set[str] = set()
        problems = []
        for stage in self.stages:
            if stage.name in seen:
                problems.append(f"two stages are named '{stage.name}'")
            for key, kinds in NEEDS.get(stage.kind, {}).items():
                if getattr(stage, key) is not None:
                    problems += _reference(stage.name, key, getattr(stage, key), kinds, seen)
            if isinstance(stage, MergeStage) and stage.adapter in full:
                problems.append(f"stage '{stage.name}': adapter: '{stage.adapter}' trains every weight (adapter.type: full), so there is "
                                "nothing to merge; its folder holds the whole model")
            if isinstance(stage, TrainStage) and stage.adapter.type == "full":
                full.add(stage.name)
            if isinstance(stage, EvaluateStage):
                for model in stage.models:
                    if model != "base":
                        problems += _reference(stage.name, "models", model, {"train", "merge"}, seen)
            seen[stage.name] = stage.kind
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def stage(self, name: str) -> Stage:
        """The stage of this name; the name must exist."""
        return next(stage for stage in self.stages if stage.name == name)


def _reference(stage: str, key: str, name: str, kinds: set[str], seen: dict[str, str]) -> list[str]:
    """A problem if `name` is not an earlier stage of one of these kinds."""
    if seen.get(name) in kinds:
        return []
    allowed = [earlier for earlier, kind in seen.items() if kind in kinds]
    return [f"stage '{stage}': {key}: '{name}' is not an earlier {' or '.join(sorted(kinds))} stage; "
            f"allowed: {', '.join(allowed) or 'none stands before it'}"]


def load_project(path: Path, overrides: list[str] | None = None) -> ProjectConfig:
    """Read a project's YAML.

    Raises:
        ConfigError: every mistake, with its line.
    """
    return load_config(ProjectConfig, path, overrides or [], context={"folder": path.parent})
