"""Checkpoints that are whole or absent, and finding the one to go on from."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from mft.errors import CheckpointError
from mft.files import check_manifest, fsync_path, sync_folder, write_manifest, write_text

NEEDED = ("optimizer.pt", "scheduler.pt", "trainer_state.json")
"""Files without which a checkpoint cannot be resumed; besides these the weights, and random numbers of each rank."""

WEIGHTS = ("adapter_model.safetensors", "model.safetensors", "model.safetensors.index.json")


class Waits(Protocol):
    """What `accelerate.Accelerator` has of this."""

    is_main_process: bool

    def wait_for_everyone(self) -> None:
        """Return when all ranks are here."""


def checkpoints(run: Path) -> list[tuple[int, Path]]:
    """(step, folder) of every whole checkpoint of a run, oldest first."""
    found = []
    for folder in run.glob("checkpoint-*"):
        step = folder.name.removeprefix("checkpoint-")
        if step.isdigit() and folder.is_dir():
            found.append((int(step), folder))
    return sorted(found)


@contextmanager
def whole_checkpoint(run: Path, step: int, keep: int | None, ranks: Waits) -> Iterator[Path]:
    """Yield a hidden folder in which all ranks write `checkpoint-STEP`; then it is fsynced, renamed into `run` and old ones are dropped.

    Rank 0 makes, renames and drops; the folder must be one that all ranks see.
    """
    partial = run / f".checkpoint-{step}.partial"
    if ranks.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    ranks.wait_for_everyone()
    try:
        yield partial
        ranks.wait_for_everyone()
        if ranks.is_main_process:
            _publish(run, partial / f"checkpoint-{step}", run / f"checkpoint-{step}")
    finally:
        if ranks.is_main_process:
            shutil.rmtree(partial, ignore_errors=True)
    if ranks.is_main_process:
        for _, folder in checkpoints(run)[:-keep] if keep else []:
            shutil.rmtree(folder)
    ranks.wait_for_everyone()


def _publish(run: Path, made: Path, target: Path) -> None:
    write_manifest(made, {"made_by": "mft train"})
    sync_folder(made)
    if target.exists():
        shutil.rmtree(target)
    made.rename(target)
    fsync_path(run)


def check_checkpoint(folder: Path) -> int:
    """The step of a checkpoint.

    Raises:
        CheckpointError: it is not a folder, or a file that an exact resumption needs is missing; each is named.
        CheckFailed: a file is not as it was written.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such checkpoint folder")
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    missing += [] if any((folder / name).is_file() for name in WEIGHTS) else [WEIGHTS[0]]
    missing += [] if any(folder.glob("rng_state*.pth")) else ["rng_state.pth"]
    if missing:
        raise CheckpointError(f"{folder}: cannot be resumed, it lacks {', '.join(missing)}")
    check_manifest(folder)
    step: int = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))["global_step"]
    return step


def sweep_partial(run: Path) -> None:
    """Remove what a killed run left half-written."""
    for folder in run.glob(".checkpoint-*.partial"):
        shutil.rmtree(folder, ignore_errors=True)


def cut_metrics(path: Path, step: int) -> None:
    """Drop the lines of metrics.jsonl after `step` (and a torn last line): they will be written again."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except ValueError:
            break
    write_text(path, "".join(f"{line}\n" for line in kept))
