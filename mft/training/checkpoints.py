"""Checkpoints that are whole or absent, and finding the one to go on from."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mft.errors import CheckpointError
from mft.files import fsync_path, sync_folder, write_text

NEEDED = ("adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json")
"""Files without which a checkpoint cannot be resumed to the bit (one process)."""


def checkpoints(run: Path) -> list[tuple[int, Path]]:
    """(step, folder) of every whole checkpoint of a run, oldest first."""
    found = []
    for folder in run.glob("checkpoint-*"):
        step = folder.name.removeprefix("checkpoint-")
        if step.isdigit() and folder.is_dir():
            found.append((int(step), folder))
    return sorted(found)


@contextmanager
def whole_checkpoint(run: Path, step: int, keep: int | None) -> Iterator[Path]:
    """Yield a hidden folder in which `checkpoint-STEP` is written; then fsync it, rename it into `run` and drop old ones."""
    partial = run / f".checkpoint-{step}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        made, target = partial / f"checkpoint-{step}", run / f"checkpoint-{step}"
        sync_folder(made)
        if target.exists():
            shutil.rmtree(target)
        made.rename(target)
        fsync_path(run)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    for _, folder in checkpoints(run)[:-keep] if keep else []:
        shutil.rmtree(folder)


def check_checkpoint(folder: Path) -> int:
    """The step of a checkpoint.

    Raises:
        CheckpointError: it is not a folder, or a file that an exact resumption needs is missing; each is named.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such checkpoint folder")
    if missing := [name for name in NEEDED if not (folder / name).is_file()]:
        raise CheckpointError(f"{folder}: cannot be resumed, it lacks {', '.join(missing)}")
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
