"""The working folder of a build: what is finished stays there until the whole build is, so that a killed build goes on.

    .OUT.work/job.json               what the folder is for; another job empties it
             map0-00003.json         the result of a finished job; the files that it names by its own name are whole
"""

import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mft.errors import OutputError
from mft.files import JOB, fsync_path, job_of, read_json, write_json

LAYOUT = 1
"""Raised when the files of a working folder change their meaning."""


@contextmanager
def work_folder(out: Path, job: str) -> Iterator[Path]:
    """The hidden folder beside `out` for this job, held by a lock: another process that builds `out` waits.

    It is removed when the block ends well. What another job has left there is removed at the start.

    Raises:
        OutputError: it cannot be made there.
    """
    folder = out.with_name(f".{out.name}.work")
    try:
        lock = _locked(folder)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made: {error.strerror}") from error
    try:
        wanted = f"{LAYOUT}:{job}"
        if job_of(folder) != wanted:
            _empty(folder)
            write_json(folder / JOB, {"job": wanted})
        for left in folder.glob(".*.partial"):
            left.unlink(missing_ok=True)
        yield folder
        shutil.rmtree(folder)
    finally:
        os.close(lock)


def _locked(folder: Path) -> int:
    """The open descriptor that locks the folder; one that was removed while this process waited is made again."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if folder.is_dir() and os.path.samestat(os.fstat(descriptor), folder.stat()):
            return descriptor
        os.close(descriptor)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


@contextmanager
def part_of(folder: Path, name: str) -> Iterator[Path]:
    """A file of a job, whole or not there for whoever looks. It counts only once `finish` has named the job."""
    partial = folder / f".{name}.{uuid.uuid4().hex[:8]}.partial"
    try:
        yield partial
        partial.replace(folder / name)
    finally:
        partial.unlink(missing_ok=True)


def finish(folder: Path, name: str, result: dict[str, Any]) -> None:
    """Note that a job is done, after all of its files are on the disk; a folder of no job is never gone on with."""
    if (folder / JOB).is_file():
        for path in folder.glob(f"{name}.*"):
            fsync_path(path)
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
