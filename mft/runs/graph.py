"""Which stages read which, and which of them a command runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mft.errors import ConfigError
from mft.runs.config import (
    NEEDS,
    BenchmarkStage,
    DataStage,
    EvaluateStage,
    MergeStage,
    ProjectConfig,
    QuantizeStage,
    ReleaseStage,
    Stage,
    TrainStage,
)


def inputs_of(config: ProjectConfig, stage: Stage) -> list[str]:
    """Names of the earlier stages whose output a stage reads."""
    inputs = [getattr(stage, key) for key in NEEDS.get(stage.kind, {}) if getattr(stage, key) is not None]
    if isinstance(stage, DataStage):
        inputs += [value.stage for value in stage.parameters.values() if value.stage is not None]
    if isinstance(stage, EvaluateStage | BenchmarkStage):
        inputs += [name for name in stage.models if name != "base"]
    for name in (stage.name, *inputs):
        inputs += _base_stage(config, name)
    if isinstance(stage, EvaluateStage):
        behind = trains_behind(config, stage.models)
        inputs += [train.data for train in config.stages if isinstance(train, TrainStage) and train.name in behind]
    if isinstance(stage, QuantizeStage) and stage.model != "base":
        inputs.append(stage.model)
    if isinstance(stage, ReleaseStage):
        inputs += [stage.model.split("/")[0], *_told_in_card(config, stage)]
    if stage.kind == "report":
        inputs += [other.name for other in config.stages if other.name != stage.name]
    return list(dict.fromkeys(inputs))


def _told_in_card(config: ProjectConfig, stage: ReleaseStage) -> list[str]:
    """The evaluate stages before a release: its card has their tables."""
    before = config.stages[: config.stages.index(stage)]
    return [other.name for other in before if isinstance(other, EvaluateStage | BenchmarkStage)]


def _base_stage(config: ProjectConfig, name: str) -> list[str]:
    """The merge stage whose model is the base of a train stage's adapter; none where that is the project's base."""
    stage = config.stage(name)
    if isinstance(stage, MergeStage):
        stage = config.stage(stage.adapter)
    while isinstance(stage, TrainStage) and stage.init_from is not None:
        stage = config.stage(stage.init_from)
    return [stage.name] if isinstance(stage, MergeStage) and stage.name != name else []


def trains_behind(config: ProjectConfig, models: Sequence[str]) -> set[str]:
    """The train stages behind the models of an evaluate stage; with none behind them, all."""
    trains = {stage.name for stage in config.stages if isinstance(stage, TrainStage)}
    merges = {stage.name: stage.adapter for stage in config.stages if isinstance(stage, MergeStage)}
    return {merges.get(name, name) for name in models if merges.get(name, name) in trains} or trains


@dataclass(frozen=True, slots=True)
class Choice:
    """What a command runs. `again`: also where nothing has changed."""

    chosen: frozenset[str]
    again: frozenset[str]


def choose(config: ProjectConfig, path: Path, *, only: str | None = None, start: str | None = None, until: str | None = None) -> Choice:
    """The stages that a command runs: all, those up to `until`, or with `only` one and the earlier ones that it needs.

    `start` and all chosen stages after it run again. Those before it run where they have not been finished or have changed since.

    Raises:
        ConfigError: a name that the config does not have; `start` stands after `until`.
    """
    names = [stage.name for stage in config.stages]
    for name in filter(None, (only, start, until)):
        if name not in names:
            raise ConfigError([f"{path}: there is no stage '{name}'; stages: {', '.join(names)}"])
    if start and until and names.index(start) > names.index(until):
        raise ConfigError([f"{path}: --from {start} stands after --until {until}, so nothing would run; stages in order: "
                           f"{', '.join(names)}"])
    chosen = _closure(config, only) if only else set(names[: names.index(until) + 1] if until else names)
    return Choice(frozenset(chosen), frozenset(names[names.index(start):] if start else ()) & chosen)


def _closure(config: ProjectConfig, name: str) -> set[str]:
    """A stage and the earlier stages that it reads, all the way back."""
    chosen: set[str] = set()
    queue = [name]
    while queue:
        stage = config.stage(queue.pop())
        chosen.add(stage.name)
        queue += [earlier for earlier in inputs_of(config, stage) if earlier not in chosen]
    return chosen
