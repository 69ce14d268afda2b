"""What a run folder holds, read into values and checked. Files that are absent are named, never guessed at."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from mft.errors import DataError
from mft.files import MANIFEST
from mft.reading import read_object
from mft.report.benchmarks import EVALUATION, BenchmarkEvaluation, is_benchmark, single_evaluation, stage_evaluation
from mft.report.curve import read_curve
from mft.report.records import DataBuild, Evaluation, MergeCheck, Run, Stage, Synthesis, Training

RUN = "run.json"
CONFIG = "config.yaml"
METRICS = "metrics.jsonl"
RESULT_FILES = {"data": "manifest.json", "train": RUN, "merge": "merge.json", "evaluate": "result.json", "synthesize": "manifest.json"}
SUBJECTS = {"data": "data ledger", "train": "training", "merge": "merge check", "evaluate": "before and after"}
OPTIONAL_SUBJECTS = {"synthesize": "funnel"}
"""What a run without such a stage is not said to lack."""


def read_run(folder: Path) -> Run:
    """Read the output folder of a project, of a single train run, of an evaluation, or of a synthesis.

    Raises:
        DataError: there is no `run.json`, or a file in the folder is broken; the message names the file and the key.
    """
    if not (folder / RUN).is_file() and (folder / EVALUATION).is_file():
        return _read_evaluation(folder)
    if not (folder / RUN).is_file() and read_object(folder / MANIFEST, missing_ok=True).get("kind") == "synthesis":
        return _read_synthesis(folder)
    if not (folder / RUN).is_file():
        raise DataError(f"{folder}: has no {RUN}, so there is no run to report on; "
                        "give the output folder of `mft run` or `mft train`")
    head = read_object(folder / RUN)
    single = "stages" not in head and head.get("kind") == "train"
    if not single and "stages" not in head:
        raise DataError(f"{folder / RUN}: has neither 'stages' (a project) nor kind 'train' (one train run)")
    listed = [{"name": folder.name, "kind": "train", "seconds": head.get("seconds")}] if single else head["stages"]
    stages = _check(tuple[Stage, ...], listed, folder / RUN, "stages")
    found, absent = _read_stages(folder, stages, single)
    config = folder / CONFIG
    if not config.is_file():
        absent.append(f"config ({CONFIG} is not there)")
    versions = dict(head.get("versions") or {})
    return Run(
        name=str(head.get("name") or folder.resolve().name), status=head.get("status"),
        mft=head.get("mft") or versions.get("mft"), versions=versions, stages=stages,
        config=config.read_text(encoding="utf-8", errors="replace") if config.is_file() else None,
        data=_of(found, DataBuild), trainings=_of(found, Training), merges=_of(found, MergeCheck),
        evaluations=_of(found, Evaluation), benchmarks=_of(found, BenchmarkEvaluation), absent=tuple(absent),
        syntheses=_of(found, Synthesis))


def _read_evaluation(folder: Path) -> Run:
    """The folder of one `mft evaluate`."""
    found = single_evaluation(folder)
    head = read_object(folder / EVALUATION)
    versions = dict(head.get("versions") or {})
    return Run(name=folder.resolve().name, status="done", mft=versions.get("mft"), versions=versions,
               stages=(Stage(folder.name, "evaluate", head.get("seconds")),), config=None, data=(), trainings=(), merges=(), evaluations=(),
               benchmarks=(found,), absent=())


def _read_synthesis(folder: Path) -> Run:
    """The folder of one `mft synthesize`."""
    manifest = read_object(folder / MANIFEST)
    found = _check(Synthesis, {**manifest, "stage": folder.resolve().name}, folder / MANIFEST)
    return Run(name=folder.resolve().name, status="done", mft=manifest.get("mft"), versions={}, config=None,
               stages=(Stage(folder.resolve().name, "synthesize"),), data=(), trainings=(), merges=(), evaluations=(), benchmarks=(),
               absent=(), syntheses=(found,))


T = TypeVar("T")
_RECORDS: Mapping[str, type[Any]] = {"data": DataBuild, "train": Training, "merge": MergeCheck, "evaluate": Evaluation,
                                       "synthesize": Synthesis}


def _of(found: list[Any], kind: type[T]) -> tuple[T, ...]:
    return tuple(each for each in found if isinstance(each, kind))


def _read_stages(folder: Path, stages: tuple[Stage, ...], single: bool) -> tuple[list[Any], list[str]]:
    found, absent = [], []
    for kind, subject in (SUBJECTS | OPTIONAL_SUBJECTS).items():
        of_kind = [stage for stage in stages if stage.kind == kind]
        if not of_kind and kind in SUBJECTS:
            absent.append(f"{subject} (no {kind} stage)")
        for stage in of_kind:
            home = folder if single else folder / stage.name
            path = home / RESULT_FILES[kind]
            if not path.is_file():
                absent.append(f"{subject} ({path.relative_to(folder).as_posix()} is not there)")
                continue
            record = {**read_object(path), "stage": stage.name}
            if kind == "evaluate" and is_benchmark(record):
                found.append(stage_evaluation(home, record, stage.name))
                continue
            if kind == "train":
                metrics = home / METRICS
                record["curve"] = read_curve(metrics) if metrics.is_file() else None
            value = _check(_RECORDS[kind], record, path)
            found.append(value)
            absent += _absent_parts(value)
    return found, absent


def _absent_parts(value: Any) -> Iterator[str]:
    if isinstance(value, Training):
        if value.curve is None:
            yield f"loss over steps ({value.stage}: {METRICS} is not there)"
        if not value.tokens:
            yield f"lengths and fill ({value.stage}: no 'tokens' in {RUN})"
        if not value.samples:
            yield f"trained samples ({value.stage}: no 'samples' in {RUN})"
    if isinstance(value, Evaluation) and not value.generations:
        yield f"generations ({value.stage}: none in {RESULT_FILES['evaluate']})"


def _check(kind: Any, value: Any, path: Path, under: str = "") -> Any:
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        lines = []
        for fault in error.errors():
            key = ".".join(str(part) for part in ((under,) if under else ()) + fault["loc"])
            lines.append(f"{path}: {key}: {fault['msg'].removeprefix('Value error, ')}")
        raise DataError("\n".join(lines)) from error
