"""Whether outputs can be written where they would go, and whether there is room for them."""

import errno
import os
import shutil
import tempfile
from pathlib import Path

from mft.doctor.child import ProbeFailed
from mft.doctor.context import Context
from mft.doctor.finding import Finding, fault, together, warning
from mft.doctor.locate import hub_cache
from mft.doctor.subject import Subject
from mft.doctor.units import size

TRIED_BYTES = 1 << 20
LITTLE = 1 << 30
"""Free bytes below which even a small run may not end."""

ADAPTER_STATE = 12
"""Bytes of a checkpoint for each trained number: itself and two Adam moments, float32."""


def check_storage(context: Context) -> Finding:
    """The output folder, the temporary folder and the hub's cache: each is written to, and its free space is told."""
    subject = context.subject
    out, temporary = subject.out if subject else Path.cwd(), Path(tempfile.gettempdir())
    named = ("the output folder", "--out") if subject else ("the current folder", "starting from there")
    findings = [*_unwritable(out, *named), *_unwritable(temporary, "the temporary folder", "TMPDIR"), *_cache(context)]
    needed = _needed(context, subject) if subject and not findings else 0
    free = shutil.disk_usage(_existing(out)).free
    if not findings:
        findings = [*_room(out, named[0], needed), *_room(temporary, "the temporary folder", 0)]
    said = f"{size(free)} free at {out}" + (f", and about {size(needed)} will be written besides the data" if needed else "")
    return together(findings, said, free_bytes=free, needed_bytes=needed)


def _unwritable(path: Path, what: str, other: str) -> list[Finding]:
    """A folder that cannot be written to. `other`: how another one is given."""
    why = _cannot_write(_existing(path))
    if why is None:
        return []
    full = why[0] in (errno.ENOSPC, errno.EDQUOT)
    remedy = "make room there" if full else f"mount it writable, or change its owner (it is written to as uid {os.getuid()})"
    return [fault(f"{path}: {what} cannot be written to: {why[1]}", f"{remedy}, or give another one by {other}")]


def _room(path: Path, what: str, needed: int) -> list[Finding]:
    free = shutil.disk_usage(_existing(path)).free
    if free < needed:
        return [fault(f"{path}: about {size(needed)} will be written besides the data, and {size(free)} are free",
                      "make room there, give another folder by --out, or lower training.keep_last")]
    if free < max(LITTLE, needed + needed // 4):
        return [warning(f"{path}: only {size(free)} are free in {what}", "make room there")]
    return []


def _cache(context: Context) -> list[Finding]:
    """The hub's cache matters to a base that is not here yet."""
    base = context.base()
    if base is None or base.kind != "hub" or base.folder is not None:
        return []
    if why := _cannot_write(_existing(hub_cache())):
        return [fault(f"{hub_cache()}: the hub's cache cannot be written to: {why[1]}", "set HF_HOME to a folder with room")]
    return []


def _needed(context: Context, subject: Subject) -> int:
    """About how many bytes the run writes besides its data: checkpoints, adapters, merged models. 0 where the base is not known."""
    base = context.base()
    if base is None or base.folder is None:
        return 0
    try:
        weights = context.weights(base.folder)
    except ProbeFailed:
        return 0
    numbers = weights["linear"] + weights["other"]
    total = subject.merges * 2 * numbers
    for train in subject.trains:
        trained = numbers if train.adapter.type == "full" else weights["edges"] * train.adapter.rank
        total += (train.training.keep_last + 1) * ADAPTER_STATE * trained
    return int(total)


def _existing(path: Path) -> Path:
    """The folder itself, or the nearest one above it that is there."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.is_dir())


def _cannot_write(folder: Path) -> tuple[int, str] | None:
    """(errno, reason) where a megabyte cannot be written and synced; nothing is left behind."""
    try:
        with tempfile.TemporaryFile(dir=folder) as stream:
            stream.write(b"\1" * TRIED_BYTES)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        return error.errno or 0, (error.strerror or str(error)).lower()
    return None
