"""Run the stages of a project in order; a stage whose key and output are unchanged is skipped."""

import logging
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from mft import __version__
from mft.errors import CheckFailed, ConfigError, OutputError
from mft.files import read_json, sha256_json, write_json, write_text
from mft.runs.config import NEEDS, BenchmarkStage, DataStage, EvaluateStage, ProjectConfig, Stage
from mft.runs.stages import RUNNERS, ReportWriter, StageContext, do_nothing

logger = logging.getLogger(__name__)

RUN, CONFIG, STAGES = "run.json", "config.yaml", ".stages"
VERSIONS = ("torch", "transformers", "peft", "bitsandbytes", "trl", "tokenizers", "datasets")


@dataclass(frozen=True, slots=True)
class Project:
    """A config, the file it came from, where its stages write, and what writes the page of a report stage."""

    config: ProjectConfig
    path: Path
    out: Path
    write_report: ReportWriter
    overwrite: bool = False
    resume: str = "auto"
    overrides: Sequence[str] = ()
    """What was set on the command line; `config` has it already, processes that are started get it again."""
    processes: int | None = None
    """Ranks of a train stage, where the command line gives them."""
    before_training: Callable[[], None] = do_nothing
    """Called once by a train stage that is not found finished, before it trains."""
    done: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Stage name -> its record in .stages, of the stages that have been run or found finished."""


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that numbers depend on."""
    found = {"python": platform.python_version(), "mft": __version__}
    for name in VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def run_project(project: Project, *, only: str | None = None, start: str | None = None, until: str | None = None) -> dict[str, Any]:
    """Run the stages, or with `only` one stage and the earlier ones that it needs; returns run.json.

    `start` runs this stage and all after it again; `until` stops after this stage.

    Raises:
        ConfigError: a stage name that the config does not have.
        OutputError: `project.out` holds something that is no run of this project.
        CheckFailed: a stage ran to its end and found a fault; raised after the stages behind it have run.
    """
    names = [stage.name for stage in project.config.stages]
    for name in filter(None, (only, start, until)):
        if name not in names:
            raise ConfigError([f"{project.path}: there is no stage '{name}'; stages: {', '.join(names)}"])
    chosen = _closure(project.config, only) if only else set(names[: names.index(until) + 1] if until else names)
    again = set(names[names.index(start):]) if start else set()
    _claim(project)
    entries: list[dict[str, Any]] = []
    record = {"name": project.config.name, "status": "running", "versions": versions(), "stages": entries}
    for stage in project.config.stages:
        if stage.name in chosen:
            entries.append(_run_stage(project, stage, again=stage.name in again, record=record))
            write_json(project.out / RUN, record)
    faults = [f"  {entry['name']}: {fault}" for entry in entries for fault in RUNNERS[entry["kind"]].faults(entry["result"])]
    record["status"] = "check failed" if faults else "done"
    write_json(project.out / RUN, record)
    if faults:
        failed = CheckFailed("a check found a fault:\n" + "\n".join(faults))
        failed.result = record
        raise failed
    return record


def _closure(config: ProjectConfig, name: str) -> set[str]:
    """A stage and the earlier stages that it reads."""
    chosen, queue = set(), [name]
    while queue:
        stage = config.stage(queue.pop())
        chosen.add(stage.name)
        queue += [earlier for earlier in _inputs(config, stage) if earlier not in chosen]
    return chosen


def _inputs(config: ProjectConfig, stage: Stage) -> list[str]:
    """Names of the earlier stages whose output a stage reads."""
    inputs = [getattr(stage, key) for key in NEEDS.get(stage.kind, {}) if getattr(stage, key) is not None]
    if isinstance(stage, DataStage):
        inputs += [value.stage for value in stage.parameters.values() if value.stage is not None]
    if isinstance(stage, EvaluateStage | BenchmarkStage):
        inputs += [name for name in stage.models if name != "base"]
        inputs += [train.data for train in config.stages if train.kind == "train" and train.name in _closure_of(config, stage.models)]
    if stage.kind == "quantize" and stage.model != "base":
        inputs.append(stage.model)
    if stage.kind == "report":
        inputs += [other.name for other in config.stages if other.name != stage.name]
    return list(dict.fromkeys(inputs))


def _closure_of(config: ProjectConfig, models: Sequence[str]) -> set[str]:
    """The train stages behind the models of an evaluate stage."""
    trains = {stage.name for stage in config.stages if stage.kind == "train"}
    merges = {stage.name: stage.adapter for stage in config.stages if stage.kind == "merge"}
    return {merges.get(name, name) for name in models if merges.get(name, name) in trains} or trains


def _claim(project: Project) -> None:
    out = project.out
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out}: is a file, not a folder")
    if out.is_dir() and any(out.iterdir()):
        earlier = read_json(out / RUN).get("name") if (out / RUN).is_file() else None
        started = (out / CONFIG).is_file()
        if not project.overwrite and not (started and earlier in (None, project.config.name)):
            raise OutputError(f"{out}: holds something that is no run of '{project.config.name}'; give another --out, "
                              "or --overwrite to write into it")
    out.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(project.config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    write_text(out / CONFIG, f"# resolved from {project.path.name} by mft {__version__}\n{text}")


def _run_stage(project: Project, stage: Stage, *, again: bool, record: dict[str, Any]) -> dict[str, Any]:
    """Run one stage or find it finished; returns its entry in run.json."""
    folder = project.out / stage.name
    context = StageContext(project.config, project.path.parent, project.out, folder, project.done,
                           overwrite=again or project.overwrite, replace=False, resume=project.resume, record=record,
                           write_report=project.write_report, before_training=project.before_training,
                           processes=project.processes, command=["train", str(project.path), *project.overrides])
    run = RUNNERS[stage.kind]
    key = sha256_json({"stage": stage.model_dump(), "model": project.config.model.model_dump(), "mft": __version__,
                       "inputs": {name: project.done[name]["fingerprint"] for name in _inputs(project.config, stage)
                                  if name in project.done},
                       "sources": run.sources(context, stage)})
    marker = project.out / STAGES / f"{stage.name}.json"
    finished = read_json(marker) if marker.is_file() and folder.is_dir() else None
    asked_anew = stage.kind == "report" or context.overwrite or (stage.kind == "train" and project.resume != "auto")
    if finished and finished["key"] == key and not asked_anew:
        logger.info("%s: unchanged, skipped", stage.name)
        project.done[stage.name] = finished
        return {"name": stage.name, "kind": stage.kind, "seconds": finished["seconds"], "skipped": True, "result": finished["result"]}
    if finished:
        context = replace(context, replace=True)
    logger.info("%s: %s", stage.name, stage.kind)
    started = time.perf_counter()
    result = run.run(context, stage)
    seconds = time.perf_counter() - started
    entry = {"key": key, "fingerprint": run.fingerprint(context, result), "seconds": seconds, "result": result}
    project.done[stage.name] = entry
    if stage.kind != "report":
        write_json(marker, entry)
    return {"name": stage.name, "kind": stage.kind, "seconds": seconds, "skipped": False, "result": result}
