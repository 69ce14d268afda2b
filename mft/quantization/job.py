"""One job of a matrix: the model's weights in fewer bits, measured, as one folder that appears whole or not at all.

    .NAME.work/made/weights/     the quantiser's result, whole: a job that is stopped while it is measured is not quantised again
    .NAME.work/quality.json      what was measured
    NAME/                        weights, configs, tokenizer, calibration.json, quantization.json, manifest.json
"""

import logging
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from mft import __version__
from mft.data.engine.work import sweep_work, work_folder
from mft.errors import CheckFailed, OutputError
from mft.files import MANIFEST, atomic_folder, check_manifest, read_json, write_json, write_manifest
from mft.formats.base import PromptFormat
from mft.hashes import sha256_json
from mft.quantization.calibration import CalibrationSet
from mft.quantization.config import CALIBRATED, AwqJob, GgufJob, GptqJob, Int8Job, Job, NearestJob, Nf4Job, settings_of
from mft.quantization.folder import write_companions, write_configs

if TYPE_CHECKING:
    from mft.tokenization.load import TextTokenizer

logger = logging.getLogger(__name__)

FACTS, QUALITY = "quantization.json", "quality.json"
LAYOUT = 1
"""Raised when the same job gives other files."""

UNMEASURED = {"awq": "transformers needs gptqmodel's kernels for it", "gguf": "llama.cpp alone runs it"}
"""Methods whose folders are not measured here, and why."""


Finish = Callable[[Path, dict[str, Any]], Mapping[str, dict[str, Any]]]
"""(folder, what its manifest will say) -> hashes that it has made of files: writes what else belongs into a model's folder (its card)."""


@dataclass(frozen=True, slots=True)
class Source:
    """What all jobs of a matrix quantise. `name`: what a reader finds the model by; `files`: sha256 of its weights and config."""

    folder: Path
    name: str
    files: dict[str, str]
    prompt_format: PromptFormat | None
    tokenizer: "TextTokenizer | None"
    chosen: CalibrationSet | None


def job_hash(source: Source, job: Job) -> str:
    """Hash of all that decides a job's folder: the model, the settings, the rows, what it is measured on."""
    chosen = source.chosen
    sets = {"held_out": chosen.held_out, **chosen.texts} if chosen else {}
    measured = {name: [list(row.input_ids) for row in rows] for name, rows in sets.items()}
    return sha256_json({"layout": LAYOUT, "files": source.files, "job": job.model_dump(),
                        "calibration": chosen.sha256 if chosen and job.method in CALIBRATED else None, "measured": measured,
                        "format": source.prompt_format and source.prompt_format.reference})


def finished(folder: Path, job: str, *, overwrite: bool, replace_other: bool = False) -> dict[str, Any] | None:
    """The facts of the finished job that `folder` holds; None where it is to be made; with `replace_other` in the place of another job.

    Raises:
        OutputError: the folder holds something else, or this job with changed files, and `overwrite` is False.
    """
    if overwrite or not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    if folder.is_file():
        raise OutputError(f"{folder}: is a file, not a folder")
    try:
        known = read_json(folder / MANIFEST).get("job")
    except (OSError, ValueError, AttributeError):
        known = None
    if known != job and known and replace_other:
        return None
    if known != job:
        raise OutputError(f"{folder}: holds {'another job' if known else 'files that are of no job'}; give another --out, or --overwrite")
    try:
        check_manifest(folder)
    except CheckFailed as error:
        raise OutputError(f"{error}\n{folder}: holds this job, but not as it was written; --overwrite makes it anew") from error
    sweep_work(folder)
    facts: dict[str, Any] = read_json(folder / FACTS)
    return facts


def run_job(source: Source, job: Job, name: str, folder: Path, measure: Callable[[Path], dict[str, Any]] | None, *,
            overwrite: bool = False, finish: Finish | None = None) -> dict[str, Any]:
    """Make a job's folder, or go on where it was stopped; returns what quantization.json says.

    `measure(folder of weights)` gives the quality; None: nothing is measured. `finish` is called with folders that have a config.json.

    Raises:
        CheckFailed: the quantiser failed. DependencyError: it is not there. OutputError: the disk is full.
    """
    key = job_hash(source, job)
    with work_folder(folder, key) as work:
        weights = work / "made" / "weights"
        if not (weights / FACTS).is_file():
            logger.info("%s: quantising", job.label)
            with atomic_folder(weights, replace=True) as partial, _library_faults(folder):
                _quantise(source, job, partial, work)
        if measure and job.method not in UNMEASURED and not (work / QUALITY).is_file():
            logger.info("%s: measuring", job.label)
            started = time.perf_counter()
            write_json(work / QUALITY, {"quality": measure(weights), "measuring_seconds": time.perf_counter() - started})
        measured = read_json(work / QUALITY) if (work / QUALITY).is_file() else {"quality": None}
        facts = {"name": name, **read_json(weights / FACTS), **measured}
        with atomic_folder(folder, replace=overwrite) as partial:
            for path in weights.iterdir():
                if path.name != FACTS:
                    _link(path, partial / path.name)
            write_json(partial / FACTS, facts)
            told = {
                "kind": "quantize", "made_by": "mft quantize", "job": key, "options": job.model_dump(), "base": source.name,
                "model_files": source.files, "format": source.prompt_format and source.prompt_format.reference,
                "calibration_sha256": facts["calibration_sha256"], "versions": facts["versions"]}
            known = finish(partial, told) if finish and (partial / "config.json").is_file() else None
            write_manifest(partial, told, sums=True, known=known)
    return facts


@contextmanager
def _library_faults(folder: Path) -> Iterator[None]:
    """safetensors tells of a disk that is full with an error of its own.

    Raises:
        OutputError: it did.
    """
    try:
        yield
    except SafetensorError as error:
        raise OutputError(f"{folder}: cannot be written: {error}") from error


def _quantise(source: Source, job: Job, folder: Path, work: Path) -> None:
    """Write weights, configs and facts of a job into an existing folder."""
    started = time.perf_counter()
    rows = source.chosen.write(folder) if source.chosen and job.method in CALIBRATED else None
    told = _weights(source, job, folder, work, rows)
    for left in ("quant_log.csv", "calibration.jsonl"):
        (folder / left).unlink(missing_ok=True)
    write_configs(source.folder, folder, job, told, source.name)
    write_companions(source.folder, folder, source.prompt_format, source.tokenizer)
    own = {"mft": __version__, "python": platform.python_version()}
    write_json(folder / FACTS, {
        **settings_of(job), **({"damp": told["damp"]} if "damp" in told else {}), "seconds": time.perf_counter() - started,
        "calibration_sha256": source.chosen.sha256 if rows and source.chosen else None, "device": told.get("device", "cpu"),
        "modules": told.get("modules"), "loss": told.get("loss"), "versions": own | told.get("versions", {})})


def _weights(source: Source, job: Job, folder: Path, work: Path, rows: Path | None) -> dict[str, Any]:
    match job:
        case GptqJob() | AwqJob():
            from mft.quantization.run_worker import run_worker

            assert rows is not None
            log = work.with_name(f"{work.name[1:].removesuffix('.work')}.log")
            told = run_worker(source.folder, rows, folder, job, work / "scratch", log)
            log.unlink(missing_ok=True)
            return {**told, "quantizer": f"gptqmodel:{told['versions']['gptqmodel']}"}
        case NearestJob():
            from mft.quantization.nearest import round_model

            modules = round_model(source.folder, folder, job.bits, job.group_size)
            return {"modules": modules, "quantizer": f"mft:{__version__}", "versions": {"torch": version("torch")}}
        case Nf4Job() | Int8Job():
            from mft.quantization.bnb import save_quantised

            return save_quantised(source.folder, folder, job)
        case GgufJob():
            from mft.quantization.gguf import convert

            return convert(_with_companions(source, work / Path(source.name).name), folder, job)


def _with_companions(source: Source, folder: Path) -> Path:
    """The model as it would be released, by links: a converter takes tokenizer and chat template from where the weights are."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for path in (*source.folder.glob("*.safetensors*"), source.folder / "config.json"):
        _link(path, folder / path.name)
    write_companions(source.folder, folder, source.prompt_format, source.tokenizer)
    return folder


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
