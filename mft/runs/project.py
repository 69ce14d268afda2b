"""Run the stages of a project in order; a stage whose inputs, settings and output are unchanged is skipped."""

import logging
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mft import __version__
from mft.errors import CheckFailed, Interrupted
from mft.files import write_json
from mft.hashes import sha256_json
from mft.runs.claim import RUN, claimed
from mft.runs.config import ProjectConfig, Stage, TrainStage
from mft.runs.finished import (
    Finished,
    check_files,
    differences,
    files_of,
    lost_files,
    note_begun,
    note_finished,
    read_finished,
    replaces_other,
)
from mft.runs.graph import Choice, choose, inputs_of
from mft.runs.kinds.context import ReportWriter, StageContext, do_nothing
from mft.runs.kinds.registry import KINDS
from mft.runs.signals import stop_as_interrupt
from mft.runs.view import StageView, stage_view

logger = logging.getLogger(__name__)

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
    done: dict[str, Finished] = field(default_factory=dict)
    """The stages that have been run or found finished."""

    def context(self, stage: Stage, *, overwrite: bool = False, replace: bool = False, lost: Sequence[str] = (),
                record: dict[str, Any] | None = None, **more: Any) -> StageContext:
        """Where a stage of this project stands."""
        settings: dict[str, Any] = {"resume": self.resume, "before_training": self.before_training, "processes": self.processes} | more
        return StageContext(self.config, self.path.parent, self.out, self.out / stage.name, overwrite=overwrite, replace=replace, lost=lost,
                            record=record or {}, write_report=self.write_report,
                            command=["train", str(self.path), *self.overrides], **settings)


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

    `start` runs this stage and all after it again; `until` stops after this stage. run.json says at every moment which stages have ended
    and how the run stands: `running`, `done`, `check failed`, `interrupted` or `failed`, the last two with the `stage` they ended in.

    Raises:
        ConfigError: a stage name that the config does not have; `start` stands after `until`.
        OutputError: `project.out` holds something that is no run of this project.
        CheckFailed: a stage ran to its end and found a fault; raised after the stages behind it have run. Or what a stage left has changed.
        Interrupted: a signal came; what is finished is kept.
    """
    choice = choose(project.config, project.path, only=only, start=start, until=until)
    record: dict[str, Any] = {"name": project.config.name, "status": "running", "versions": versions(), "stages": []}
    with stop_as_interrupt(), claimed(project.config, project.path, project.out, overwrite=project.overwrite):
        _run_stages(project, choice, record)
        return _judged(project, record)


def _judged(project: Project, record: dict[str, Any]) -> dict[str, Any]:
    """Write how the run ended.

    Raises:
        CheckFailed: a stage found a fault.
    """
    entries = record["stages"]
    faults = [f"  {entry['name']}: {fault}" for entry in entries for fault in KINDS[entry["kind"]].faults(entry["result"])]
    record["status"] = "check failed" if faults else "done"
    write_json(project.out / RUN, record)
    if faults:
        failed = CheckFailed("a check found a fault:\n" + "\n".join(faults))
        failed.result = record
        raise failed
    return record


def _run_stages(project: Project, choice: Choice, record: dict[str, Any]) -> None:
    stages = [stage for stage in project.config.stages if stage.name in choice.chosen]
    with stage_view([(stage.name, stage.kind) for stage in stages]) as view:
        for stage in stages:
            view.begin(stage.name)
            with _end_noted(project, stage, record, view):
                entry = run_stage(project, stage, again=stage.name in choice.again, record=record)
            view.end(stage.name, "skipped" if entry["skipped"] else "done", entry["seconds"])
            record["stages"].append(entry)
            write_json(project.out / RUN, record)


@contextmanager
def _end_noted(project: Project, stage: Stage, record: dict[str, Any], view: StageView) -> Iterator[None]:
    """Write into run.json how and in which stage a run ended that did not come to its end.

    Raises:
        Interrupted: Ctrl-C or SIGTERM came.
    """
    try:
        yield
    except BaseException as error:
        status = "interrupted" if isinstance(error, KeyboardInterrupt | Interrupted) else "failed"
        write_json(project.out / RUN, record | {"status": status, "stage": stage.name})
        view.end(stage.name, status)
        if isinstance(error, KeyboardInterrupt):
            raise Interrupted(f"interrupted in stage '{stage.name}'; what is finished is kept, and the same command goes on") from error
        raise


def key_parts(project: Project, stage: Stage, context: StageContext) -> dict[str, Any]:
    """All that decides what a stage gives: its key is the hash of this."""
    inputs = {name: project.done[name].fingerprint for name in inputs_of(project.config, stage) if name in project.done}
    model = project.config.model.model_dump(exclude={"quantized_cache"})     # what is kept on disk changes no result
    return {"stage": sha256_json(stage.model_dump()), "model": sha256_json(model), "mft": __version__,
            "inputs": inputs, "sources": sha256_json(KINDS[stage.kind].sources(context, stage))}


def asked_anew(project: Project, stage: Stage, *, again: bool) -> bool:
    """Whether a stage runs even where nothing has changed."""
    return stage.kind == "report" or again or project.overwrite or (isinstance(stage, TrainStage) and project.resume != "auto")


def run_stage(project: Project, stage: Stage, *, again: bool, record: dict[str, Any]) -> dict[str, Any]:
    """Run one stage or find it finished; returns its entry in run.json."""
    kind = KINDS[stage.kind]
    finished = read_finished(project.out, stage.name)
    lost = lost_files(finished, project.out) if finished else []
    context = project.context(stage, overwrite=again or project.overwrite, replace=replaces_other(project.out, stage.name), lost=lost,
                              record=record)
    parts = key_parts(project, stage, context)
    anew = asked_anew(project, stage, again=again)
    if finished and not lost and not anew and finished.key == sha256_json(parts):
        return _skip(project, stage, finished)
    if finished and not anew:
        _say_why(project, finished, parts, lost)
    _check_inputs(project, stage)
    logger.info("%s: %s", stage.name, stage.kind)
    if stage.kind != "report":
        note_begun(project.out, stage.name, replaces=context.replace)
    started = time.perf_counter()
    result = kind.run(context, stage)
    seconds = time.perf_counter() - started
    project.done[stage.name] = ended = Finished(stage.name, sha256_json(parts), parts, kind.fingerprint(context, result), seconds, result,
                                                files_of(kind.handed_on(context, stage), project.out))
    if stage.kind != "report":
        note_finished(project.out, ended)
    return {"name": stage.name, "kind": stage.kind, "seconds": seconds, "skipped": False, "result": result}


def _skip(project: Project, stage: Stage, finished: Finished) -> dict[str, Any]:
    checked = check_files(finished, project.out)
    if checked != finished:
        note_finished(project.out, checked)
    project.done[stage.name] = checked
    logger.info("%s: unchanged, skipped", stage.name)
    return {"name": stage.name, "kind": stage.kind, "seconds": finished.seconds, "skipped": True, "result": finished.result}


def _say_why(project: Project, finished: Finished, parts: dict[str, Any], lost: Sequence[str]) -> None:
    if lost:
        shown = ", ".join(map(str, [project.out / name for name in lost[:3]])) + (f" and {len(lost) - 3} more" if len(lost) > 3 else "")
        logger.warning("%s: was finished, but %s %s gone; it runs again", finished.name, shown, "is" if len(lost) == 1 else "are")
    elif changed := list(differences(finished.parts, parts)):
        logger.info("%s: runs again, as %s changed", finished.name, " and ".join(changed))


def _check_inputs(project: Project, stage: Stage) -> None:
    """Hold what a stage is about to read against what earlier stages left; what a train stage starts from is read whole."""
    start = stage.init_from if isinstance(stage, TrainStage) else None
    for name in inputs_of(project.config, stage):
        if name in project.done and stage.kind != "report":
            project.done[name] = check_files(project.done[name], project.out, read_all=name == start)
