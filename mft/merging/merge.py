"""Base + adapter -> merged model folder: streamed, checked, whole or not at all.

This module imports no torch, so that the package does not; what computes is imported when a merge begins.
"""

import logging
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mft import __version__
from mft.errors import OutputError
from mft.files import MANIFEST, read_json, resumable_folder, write_json, write_manifest
from mft.merging.config import MergeOptions
from mft.merging.memory import MemoryWatch
from mft.merging.result import MergeResult
from mft.process import peak_rss_bytes

logger = logging.getLogger(__name__)

RESULT = "merge.json"
DISTANCES = "distance.json"
"""How far each tensor is from the 4-bit model that was trained."""
Progress = Callable[[int, int], None]
Finish = Callable[[Path, dict[str, Any]], Mapping[str, dict[str, Any]]]
"""(folder, what its manifest will say) -> hashes that it has made of files, as `folder_hashes` gives them."""


def merge(base: Path, adapter: Path | Sequence[Path], out: Path, options: MergeOptions, *,
          prompt_format: str | dict[str, Any] | None = None, overwrite: bool = False, progress: Progress | None = None,
          finish: Finish | None = None, weights: Sequence[float] | None = None) -> MergeResult:
    """Write `out`: the base with W + scale * B @ A in place of every W that the adapter touches, its trained token rows, and the tensors
    that it holds whole. Of several adapters, each with its weight, the sum of their updates.

    Weights stream through blocks of a few MB; whatever the model's size, the merge holds less than 1 GB. `prompt_format`
    names the format of the written chat template; by default the one that the adapter's `mft.json` names. With neither,
    the base's tokenizer files are copied as they are. `progress(done, total)` counts bytes written, then bytes verified. `finish` writes
    what else belongs into the folder (its card) before the manifest is made.

    A merge that was killed goes on after the weight files that it had finished, if base, adapters and options are the same; one that
    had ended gives its result again.

    Raises:
        ModelError: base or adapter cannot be merged as asked; the message names the file or tensor.
        OutputError: `out` exists and holds something else, unless `overwrite`; or the disk is full.
        CheckFailed: verification found a fault; nothing is left at `out`.
    """
    from mft.merging.job import open_job
    from mft.merging.steps import verify, write_folder, write_weights

    started = time.perf_counter()
    adapters = [adapter] if isinstance(adapter, Path) else list(adapter)
    _check_places(base, adapters, out)
    seconds: dict[str, float] = {}
    with ExitStack() as stack:
        memory = stack.enter_context(MemoryWatch())
        job = open_job(base, adapters, weights, options, prompt_format, stack)
        with _timed(seconds, "hash"):
            base_files, adapter_files = job.check_files()
        key = job.key(base_files, adapter_files)
        if not overwrite and (done := _finished(out, key, options)):
            logger.info("%s: holds this merge already", out)
            return done
        folder = stack.enter_context(resumable_folder(out, key, replace=overwrite))
        with _timed(seconds, "merge"):
            blocks, resumed = write_weights(job, folder, progress)
        write_folder(job, folder)
        with _timed(seconds, "verify"):
            verdict, trained = verify(job, folder, blocks, progress)
        result = MergeResult(
            tensors=len(job.plan.tensors), merged=len(job.changes.targets), verify=options.verify, max_abs_diff=verdict.max_abs_diff,
            tolerance=verdict.tolerance, reference=verdict.reference, kl=verdict.kl, top1_agreement=verdict.top1_agreement,
            onto=options.onto, adapters=job.named_adapters, from_trained=asdict(trained) if trained else None, resumed_bytes=resumed,
            peak_rss_bytes=peak_rss_bytes(), anonymous_bytes=memory.grown_bytes, seconds=time.perf_counter() - started,
            stage_seconds=seconds)
        write_json(folder / RESULT, result.to_json())
        facts = {
            "made_by": "mft merge", "job": key, "options": options.model_dump(), "format": job.format_reference,
            "base": job.base_name, "base_files": base_files, "adapter_files": adapter_files[0],
            "adapters": [named | {"files": files} for named, files in zip(job.named_adapters, adapter_files, strict=True)],
            "versions": {"mft": __version__, "torch": version("torch"), "python": platform.python_version()}}
        write_manifest(folder, facts, sums=True, known=finish(folder, facts) if finish else None)
    logger.info("merged %d of %d tensors in %.1f s", result.merged, result.tensors, result.seconds)
    return result


def _check_places(base: Path, adapters: Sequence[Path], out: Path) -> None:
    """The output may be none of the inputs, nor hold one: with `overwrite` it would be lost."""
    for what, folder in [("base", base), *(("adapter", adapter) for adapter in adapters)]:
        if folder.resolve().is_relative_to(out.resolve()):
            raise OutputError(f"{out}: is or holds the {what} folder; give another --out")


def _finished(out: Path, key: str, options: MergeOptions) -> MergeResult | None:
    """The result of this very merge, if `out` holds it with all files of their sizes; None if it holds nothing or something else."""
    try:
        manifest = read_json(out / MANIFEST)
        same = manifest["job"] == key and manifest["options"]["verify"] == options.verify
        whole = same and all((out / name).stat().st_size == facts["bytes"] for name, facts in manifest["files"].items())
        return MergeResult(**read_json(out / RESULT)) if whole else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - started
