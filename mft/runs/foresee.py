"""`mft run --dry-run`: what each stage would do and take. Nothing is loaded, written or fetched."""

from dataclasses import dataclass, replace
from typing import Any, Literal

from mft.errors import ConfigError, DataError, MftError, ModelError
from mft.hashes import sha256_json
from mft.runs.config import Stage
from mft.runs.finished import check_files, differences, lost_files, read_finished, was_begun
from mft.runs.forecast import Forecast, total, unknown
from mft.runs.graph import choose, inputs_of
from mft.runs.kinds.registry import KINDS
from mft.runs.planning import PlanOptions
from mft.runs.project import Project, asked_anew, key_parts

State = Literal["runs", "depends", "unchanged", "left out"]


@dataclass(frozen=True, slots=True)
class Foreseen:
    """A stage of a dry run. `depends`: it runs if an earlier stage that runs gives something else than before."""

    name: str
    kind: str
    state: State
    why: str
    forecast: Forecast | None

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {"name": self.name, "kind": self.kind, "state": self.state, "why": self.why,
                **(self.forecast.to_json() if self.forecast else {})}


def foresee(project: Project, options: PlanOptions, *, start: str | None = None, until: str | None = None) -> list[Foreseen]:
    """What `run_project` would do with each stage, in order.

    Raises:
        ConfigError: what does not go together, in any stage. CheckFailed: what a finished stage left has changed.
    """
    choice = choose(project.config, project.path, start=start, until=until)
    options = replace(options, fetch=False)
    states: dict[str, State] = {}
    found, faults = [], []
    for stage in project.config.stages:
        state: State = "left out"
        why, forecast = f"after --until {until}", None
        if stage.name in choice.chosen:
            state, why = _state(project, stage, states, again=stage.name in choice.again)
            try:
                forecast = _forecast(project, stage, options) if state != "unchanged" else None
            except ConfigError as error:
                faults += error.problems
                continue
        states[stage.name] = state
        found.append(Foreseen(stage.name, stage.kind, state, why, forecast))
    if faults:
        raise ConfigError(faults)
    return found


def _state(project: Project, stage: Stage, states: dict[str, State], *, again: bool) -> tuple[State, str]:
    finished = read_finished(project.out, stage.name)
    if stage.kind == "report":
        return "runs", "always written"
    if finished is None:
        return "runs", "begun and not finished" if was_begun(project.out, stage.name) else "not run yet"
    if asked_anew(project, stage, again=again):
        return "runs", "asked for"
    if lost := lost_files(finished, project.out):
        return "runs", f"{project.out / lost[0]} is gone" + (f", and {len(lost) - 1} more" if len(lost) > 1 else "")
    if waits := [name for name in inputs_of(project.config, stage) if states.get(name) in ("runs", "depends")]:
        return "depends", f"on what {', '.join(waits)} will give"
    try:
        parts = key_parts(project, stage, project.context(stage, read_only=True))
    except (ModelError, DataError) as error:
        return "runs", f"cannot be compared: {str(error).splitlines()[0]}"
    if sha256_json(parts) != finished.key:
        return "runs", " and ".join(differences(finished.parts, parts)) + " changed"
    project.done[stage.name] = check_files(finished, project.out)
    return "unchanged", "skipped"


def _forecast(project: Project, stage: Stage, options: PlanOptions) -> Forecast | None:
    forecast = KINDS[stage.kind].forecast
    if forecast is None:
        return None
    try:
        return forecast(project.context(stage, read_only=True), stage, options)
    except ConfigError:
        raise
    except MftError as error:
        return unknown(error)


def summary(project: Project, foreseen: list[Foreseen]) -> dict[str, Any]:
    """The dry run as `--json` prints it: sums over what would run, and all `stages`. A sum is null where a part of it is not known.

    Hours and cost are those of training; `not_counted` names the other stages that take a device's time.
    """
    forecasts = [each.forecast for each in foreseen if each.forecast and each.state in ("runs", "depends")]
    trains = [each.forecast for each in foreseen if each.forecast and each.kind == "train" and each.state in ("runs", "depends")]
    sizes = [forecast.disk_bytes for forecast in forecasts]
    return {"name": project.config.name, "out": str(project.out), "dry_run": True, "stages": [each.to_json() for each in foreseen],
            "hours": total([forecast.hours for forecast in trains]), "cost": total([forecast.cost for forecast in trains]),
            "disk_bytes": sum(each for each in sizes if each is not None), "disk_not_known": sum(each is None for each in sizes),
            "not_counted": [each.name for each in foreseen if each.kind != "train" and each.forecast and each.forecast.hours is None],
            "fits": not any(forecast.fault for forecast in forecasts)}


def faults_of(foreseen: list[Foreseen]) -> list[str]:
    """Why stages could not run on the device that was asked about."""
    return [each.forecast.fault for each in foreseen if each.forecast and each.forecast.fault]
