"""The working folder of a build: what is finished stays there until the whole build is, so that a killed build goes on.

    .OUT.work/job.json               what the folder is for; another job empties it
             map0-00003.json         the result of a finished job; the files that it names by its own name are whole
"""

import fcntl
import io
import json
import logging
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mft.errors import OutputError
from mft.files import JOB, fsync_path, job_of, read_json, write_faults, write_json

logger = logging.getLogger(__name__)

LAYOUT = 1
"""Raised when the files of a working folder change their meaning."""


@contextmanager
def work_folder(out: Path, job: str) -> Iterator[Path]:
    """The hidden folder beside `out` for this job, held by a lock: another process that builds `out` waits.

    It is removed when the block ends well. What another job has left there is removed at the start.

    Raises:
        OutputError: it cannot be made there.
    """
    folder = _beside(out)
    try:
        lock = _locked(folder, out)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made: {error.strerror}") from error
    try:
        wanted = f"{LAYOUT}:{job}"
        try:
            if job_of(folder) != wanted:
                _empty(folder)
                write_json(folder / JOB, {"job": wanted})
            for left in folder.glob(".*.partial"):
                left.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"{folder}: cannot be written: {error.strerror}") from error
        yield folder
        _remove(folder)
    finally:
        os.close(lock)


def sweep_work(out: Path) -> None:
    """Remove what a process that was killed behind its last step has left beside the finished `out`; a living one keeps its folder."""
    folder = _beside(out)
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(folder)
        finally:
            os.close(descriptor)


def _beside(out: Path) -> Path:
    return out.with_name(f".{out.name}.work")


def _locked(folder: Path, out: Path) -> int:
    """The open descriptor that locks the folder; one that was removed while this process waited is made again."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("%s: another process builds it; waiting for that to end", out)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if folder.is_dir() and os.path.samestat(os.fstat(descriptor), folder.stat()):
            return descriptor
        os.close(descriptor)


def _remove(folder: Path) -> None:
    """Remove the folder. Its job goes first: whoever is killed here leaves a folder of no job, which nobody goes on with."""
    (folder / JOB).unlink(missing_ok=True)
    shutil.rmtree(folder)


def _empty(folder: Path) -> None:
    (folder / JOB).unlink(missing_ok=True)
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


@contextmanager
def part_of(folder: Path, name: str) -> Iterator[Path]:
    """A file of a job, whole or not there for whoever looks. It counts only once `finish` has named the job.

    Raises:
        OutputError: the disk is full or write-protected.
    """
    partial = folder / f".{name}.{uuid.uuid4().hex[:8]}.partial"
    try:
        with write_faults(folder):
            yield partial
            if (folder / JOB).is_file():
                fsync_path(partial)
            partial.replace(folder / name)
    finally:
        partial.unlink(missing_ok=True)


def save_array(folder: Path, name: str, array: NDArray[Any]) -> None:
    """Write an array as `numpy.load` reads it. Through memory: written to a file at once, numpy says of a full disk only that it failed."""
    stream = io.BytesIO()
    np.save(stream, array)
    with part_of(folder, name) as path:
        path.write_bytes(stream.getbuffer())


def finish(folder: Path, name: str, result: dict[str, Any]) -> None:
    """Note that a job is done: `part_of` has put all of its files on the disk. A folder of no job is never gone on with."""
    if (folder / JOB).is_file():
        write_json(folder / f"{name}.json", result)
    else:
        (folder / f"{name}.json").write_text(json.dumps(result), encoding="utf-8")


def finished(folder: Path, name: str) -> dict[str, Any] | None:
    """The result of a job that is done, or None."""
    path = folder / f"{name}.json"
    if not path.is_file():
        return None
    result: dict[str, Any] = read_json(path)
    return result
