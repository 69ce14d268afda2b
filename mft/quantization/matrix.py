"""`mft quantize`: a matrix of jobs over one model, each in a folder of its own; a failed one hurts no other."""

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from mft.errors import CheckFailed, ConfigError, MftError, ModelError, OutputError
from mft.files import claim_folder, read_json, write_json, write_text
from mft.hashes import sha256_json
from mft.modeling.base import read_model_config
from mft.modeling.shape import Shape, shape_of
from mft.quantization.calibration import choose, text_windows
from mft.quantization.config import CALIBRATED, Job, QuantizeOptions, settings_of
from mft.quantization.folder import FORMAT, weights_bytes
from mft.quantization.job import UNMEASURED, Source, finished, job_hash, run_job
from mft.quantization.preview import check_jobs, predicted_bytes, uneven_groups
from mft.quantization.size import full_bytes
from mft.quantization.table import markdown, order_warnings, write_plot
from mft.quantization.weights import check_weights, source_hashes

logger = logging.getLogger(__name__)

COMPARISON = "comparison"


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for. `single`: `out` is the model folder itself. `rows`: a built data folder or a file of rows."""

    model: Path
    name: str
    out: Path
    options: QuantizeOptions
    rows: Path | None
    format: str | dict[str, Any] | None
    single: bool = False
    overwrite: bool = False
    replace_other: bool = False
    beside: Path = Path()
    converter: str = "auto"
    finish: Callable[..., Mapping[str, dict[str, Any]]] | None = None
    """As `run_job`'s, with the keyword `name`: what the model of a folder is called."""

    def folder_of(self, name: str) -> Path:
        """Where a job's folder is made."""
        return self.out if self.single else self.out / name


def quantize(request: Request) -> dict[str, Any]:
    """Run every job that is not finished; returns `jobs` and, for a matrix, the comparison.

    Raises:
        MftError: something that would fail every job; nothing has been begun. CheckFailed: some jobs failed, named with their reasons;
            the others are finished. A rerun makes the failed ones alone.
    """
    shape = shape_of(read_model_config(request.model))
    check_jobs(shape, request.options.jobs)
    _check_model(request)
    _check_tools(request.options.jobs)
    _check_room(request, shape)
    source = _source_of(request)
    if not request.single:
        key = sha256_json({"quantize": source.files, "rows": source.chosen.to_json() if source.chosen else None})
        try:
            claim_folder(request.out, key, overwrite=request.overwrite, replace_other=request.replace_other)
        except OSError as error:
            raise OutputError(f"{request.out}: cannot be made: {error.strerror}") from error
        request = replace(request, overwrite=False)
        if source.chosen:
            source.chosen.write(request.out)
    jobs, faults, base = _run_all(request, source, shape)
    result: dict[str, Any] = {"model": source.name, "jobs": jobs, "unquantised_bytes": full_bytes(shape), "unquantised_perplexity": base,
              "calibration_sha256": source.chosen.sha256 if source.chosen else None,
              "warnings": [*uneven_groups(shape, request.options.jobs), *order_warnings(jobs)]}
    for warning in result["warnings"]:
        logger.warning("%s", warning)
    if not request.single:
        _write_comparison(request, result)
    if faults:
        failed = CheckFailed("\n".join(faults) + "\nThe other jobs are finished; the same command makes the failed ones.")
        failed.result = result
        raise failed
    return result


def _check_model(request: Request) -> None:
    config = read_model_config(request.model)
    if "quantization_config" in config:
        raise ModelError(f"{request.model}: is quantised already ({config['quantization_config'].get('quant_method', 'unknown')}); "
                         "give the unquantised model")
    check_weights(request.model)
    if request.out.resolve() == request.model.resolve() or request.model.resolve().is_relative_to(request.out.resolve()):
        raise OutputError(f"{request.out}: is or holds the model that is quantised; give another --out")


def _check_tools(jobs: Sequence[Job]) -> None:
    """Ask for every tool that a job needs before the first one begins.

    Raises:
        DependencyError: one is missing; ConfigError: awq without a CUDA device.
    """
    methods = {job.method for job in jobs}
    if methods & set(CALIBRATED):
        from mft.quantization.environment import find_interpreter

        find_interpreter(" and ".join(sorted(methods & set(CALIBRATED))))
    if "gguf" in methods:
        from mft.quantization.gguf import find_converter

        find_converter()
    if "awq" in methods:
        import torch

        if not torch.cuda.is_available():
            raise ConfigError(["awq: gptqmodel's AWQ needs a CUDA device and this machine has none; run the same command on one that "
                               "has, or take method: gptq"])


def _source_of(request: Request) -> Source:
    prompt_format = tokenizer = chosen = None
    name = request.format
    if name is None and (request.model / FORMAT).is_file():
        name = read_json(request.model / FORMAT)["format"]
    if name is not None:
        from mft.tokenization.compatibility import format_for
        from mft.tokenization.load import load_tokenizer

        tokenizer = load_tokenizer(request.model)
        prompt_format = format_for(name, tokenizer)
    options = request.options
    if request.rows is not None:
        if prompt_format is None or tokenizer is None:
            raise ModelError(f"{request.model}: does not say which prompt format it was trained with ({FORMAT}); give --format")
        longest = int(read_model_config(request.model).get("max_position_embeddings") or options.calibration.max_tokens)
        bounded = options.calibration.model_copy(update={"max_tokens": min(options.calibration.max_tokens, longest)})
        chosen = choose(request.rows, prompt_format, tokenizer, bounded, beside=request.beside, converter=request.converter)
        if options.quality:
            chosen = replace(chosen, texts=text_windows(options.quality, tokenizer, longest))
    elif any(job.method in CALIBRATED for job in options.jobs):
        raise ConfigError(["gptq and awq measure activations on real rows; give --calibration: a folder of `mft data build`, or a file of "
                           "rows"])
    return Source(request.model, request.name, source_hashes(request.model), prompt_format, tokenizer, chosen)


def _check_room(request: Request, shape: Shape) -> None:
    needed = sum(predicted_bytes(shape, job) for name, job in zip(request.options.names, request.options.jobs, strict=True)
                 if not request.folder_of(name).is_dir())
    place = next(path for path in (request.out, *request.out.absolute().parents) if path.exists())
    if (free := shutil.disk_usage(place).free) < needed:
        raise OutputError(f"{request.out}: the jobs need {needed / 1e9:.2f} GB and the disk has {free / 1e9:.2f} GB free")


def _run_all(request: Request, source: Source, shape: Shape) -> tuple[list[dict[str, Any]], list[str], dict[str, float] | None]:
    """Every job's entry, the messages of those that failed, and the unquantised model's perplexities where anything was measured."""
    entries: list[dict[str, Any]] = []
    faults: list[str] = []
    with ExitStack() as stack:
        measure = _measure_with(stack, request, source)
        for name, job in zip(request.options.names, request.options.jobs, strict=True):
            folder = request.folder_of(name)
            entry = {"name": name, **settings_of(job), "predicted_bytes": predicted_bytes(shape, job), "bytes": None, "perplexity": None,
                     "path": str(folder)}
            try:
                facts = finished(folder, job_hash(source, job), overwrite=request.overwrite, replace_other=request.replace_other)
                skipped = facts is not None
                called = folder.name if request.single else f"{Path(request.name).name}-{name}"
                facts = facts or run_job(source, job, name, folder, measure, overwrite=request.overwrite or request.replace_other,
                                         finish=request.finish and partial(request.finish, name=called))
                entries.append(entry | _told(facts, folder) | {"skipped": skipped})
            except OutputError:
                raise
            except MftError as error:
                logger.warning("%s failed", job.label)
                faults.append(f"{name} ({job.label}): {error}")
                entries.append(entry | {"error": str(error)})
    return entries, faults, _base_perplexity(entries)


def _measure_with(stack: ExitStack, request: Request, source: Source) -> Callable[[Path], dict[str, Any]] | None:
    """A function that measures a folder; the unquantised model is recorded when the first one is."""
    chosen = source.chosen
    if request.options.quality is None or chosen is None:
        return None
    from mft.quantization.quality import Reference, measure, reference_of

    known: list[Reference] = []

    def run(folder: Path) -> dict[str, Any]:
        if not known:
            logger.info("recording the unquantised model")
            known.append(stack.enter_context(reference_of(source.folder, chosen, request.out.absolute().parent)))
        return measure(folder, known[0])
    return run


def _told(facts: dict[str, Any], folder: Path) -> dict[str, Any]:
    quality = facts.get("quality")
    held_out = (quality or {}).get("held_out", {})
    return {"damp": facts["damp"], "bytes": weights_bytes(folder), "perplexity": held_out.get("perplexity"), "kl": held_out.get("kl"),
            "top1_agreement": held_out.get("top1_agreement"), "seconds": facts["seconds"], "quality": quality,
            "not_measured": None if quality else UNMEASURED.get(facts["method"], "not asked for"),
            "calibration_sha256": facts["calibration_sha256"]}


def _base_perplexity(entries: Sequence[dict[str, Any]]) -> dict[str, float] | None:
    first = next((entry["quality"] for entry in entries if entry.get("quality")), None)
    return first and {name: values["reference_perplexity"] for name, values in first.items()}


def _write_comparison(request: Request, result: dict[str, Any]) -> None:
    write_json(request.out / f"{COMPARISON}.json", result)
    write_text(request.out / f"{COMPARISON}.md", markdown(result))
    write_plot(result, request.out / f"{COMPARISON}.png")
    if request.options.git:
        from mft.quantization.git_branches import write_branches

        folders = {entry["name"]: Path(entry["path"]) for entry in result["jobs"] if "error" not in entry}
        result["git"] = write_branches(request.out / "matrix.git", folders)


