"""Files that appear whole or not at all, and the hashes that prove it."""

import errno
import fcntl
import glob
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from mft.errors import CheckFailed, OutputError
from mft.hashes import hash_file, hash_listed

MANIFEST = "manifest.json"
SUMS = {"SHA256SUMS": "sha256", "MD5SUMS": "md5"}
"""What `sha256sum -c` and `md5sum -c` read: a line for every file of a folder and for its manifest."""
JOB = "job.json"



def fsync_path(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """fsync every file and folder below `folder`, and the folder itself. A link is an entry of its folder, whatever it leads to."""
    for parent, _, names in os.walk(folder):
        for name in names:
            if not os.path.islink(os.path.join(parent, name)):
                fsync_path(Path(parent, name))
        fsync_path(Path(parent))


def link_file(source: Path | str, target: Path | str) -> None:
    """Give a file a second name; a copy of it where the disk knows no links."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


CANNOT_WRITE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})
"""What a full or write-protected disk answers; no bug of ours."""


@contextmanager
def write_faults(path: Path) -> Iterator[None]:
    """Say of a disk that is full or write-protected which output it has no room for.

    Raises:
        OutputError: the block ended with such an error of the operating system.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in CANNOT_WRITE:
            raise
        raise OutputError(f"{path}: cannot be written: {os.strerror(error.errno)}") from error


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")


def _is_leftover(name: str) -> bool:
    """True for the hidden names under which outputs are made: what a killed process leaves, never a part of an output."""
    return name.startswith(".") and name.endswith(".partial")


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Write to the path that is yielded; when the block ends well it is fsynced and renamed to `path`, else removed.

    Raises:
        OutputError: the disk is full or write-protected.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _beside(path)
    try:
        with write_faults(path):
            yield partial
            fsync_path(partial)
            partial.replace(path)
            fsync_path(path.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Write into the folder that is yielded; when the block ends well it is fsynced and renamed to `path`, else removed.

    A process that is killed leaves no `path`, only a hidden `.NAME.*.partial` beside it, swept away by the next attempt.
    The folder is locked while it is made, and a lock ends with its process: what another one is making stays.

    Raises:
        OutputError: `path` exists and is not empty, unless `replace`; it cannot be made there; the disk is full.
    """
    if path.exists() and not replace and (path.is_file() or any(path.iterdir())):
        raise _taken(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        partial, lock = _locked_partial(path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be made: {error.strerror}") from error
    try:
        with write_faults(path):
            yield partial
            sync_folder(partial)
        _put_in_place(partial, path, replace)
        fsync_path(path.parent)
    finally:
        _remove(partial)
        os.close(lock)


@contextmanager
def resumable_folder(path: Path, job: str, *, replace: bool = False) -> Iterator[Path]:
    """As `atomic_folder`, for work that takes long: what a killed or interrupted process has written is kept, and yielded to the next
    attempt at the same `job`, a hash of all that determines the output. An attempt at another job sweeps it away.

    Raises:
        OutputError: as `atomic_folder`; or another process is at the same job.
    """
    if path.exists() and not replace and (path.is_file() or any(path.iterdir())):
        raise _taken(path)
    partial = path.with_name(f".{path.name}.{job[:16]}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path, keep=partial)
        partial.mkdir(exist_ok=True)
        lock = os.open(partial, os.O_RDONLY)
    except OSError as error:
        raise OutputError(f"{path}: cannot be made: {error.strerror}") from error
    kept = True
    try:
        take_lock(lock, f"{path}: another process is making it; wait for it, or give another --out")
        kept = False
        try:
            with write_faults(path):
                yield partial
                sync_folder(partial)
            _put_in_place(partial, path, replace)
            fsync_path(path.parent)
        except KeyboardInterrupt:
            kept = True
            raise
    finally:
        if not kept:
            _remove(partial)
        os.close(lock)


def take_lock(descriptor: int, taken: str) -> bool:
    """Lock an open file or folder until it is closed, without waiting. False: its file system has no locks, so nobody is kept out.

    Raises:
        OutputError: another process holds it; `taken` is the message.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OutputError(taken) from error
    except OSError:
        return False
    return True


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file, made if it is not there; whoever else asks for it waits. A lock ends with its process.

    It is flock's: also between machines, on a shared disk that knows locks (NFS from version 4, Lustre with `flock`).

    Raises:
        OutputError: its file system has no locks.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            raise OutputError(f"{path}: cannot be locked: {error.strerror}; several processes share it, so take a folder on a disk that "
                              "knows locks") from error
        yield
    finally:
        os.close(descriptor)


def _taken(path: Path) -> OutputError:
    return OutputError(f"{path}: exists and is not empty; give another --out, or --overwrite to start anew")


def _put_in_place(partial: Path, path: Path, replace: bool) -> None:
    """Rename `partial` to `path`, which another process may have made since it was looked for."""
    retired = _beside(path)
    try:
        if replace and path.exists():
            path.rename(retired)
        partial.rename(path)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise _taken(path) from error
        raise OutputError(f"{path}: cannot be put in place: {error.strerror}; a folder below it may do") from error
    _remove(retired)


def _locked_partial(path: Path) -> tuple[Path, int]:
    """A new hidden folder beside `path`, and the open descriptor that locks it."""
    while True:
        partial = _beside(path)
        partial.mkdir()
        descriptor = os.open(partial, os.O_RDONLY)
        with suppress(OSError):     # a file system without locks: its partial folders are never swept either
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if partial.exists():
            return partial, descriptor
        os.close(descriptor)        # swept between mkdir and the lock


def _sweep(path: Path, keep: Path | None = None) -> None:
    """Remove the partial folders of `path` that no living process holds, but `keep`."""
    for old in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        if old == keep:
            continue
        with suppress(OSError):
            descriptor = os.open(old, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(old)
            finally:
                os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Remove the files in `folder` that killed processes have not finished; for who knows that no other one writes there."""
    for path in folder.iterdir():
        if _is_leftover(path.name) and path.is_file():
            path.unlink(missing_ok=True)


def _remove(path: Path) -> None:
    """Remove a folder with all that is in it, a file or a link, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all."""
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file that mft or a library wrote."""
    return json.loads(path.read_text(encoding="utf-8"))


def append_json_line(path: Path, value: Any) -> None:
    """Append one line of JSON and flush it."""
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(value, ensure_ascii=False, default=str) + "\n")
        stream.flush()


def folder_hashes(folder: Path) -> dict[str, dict[str, Any]]:
    """Relative posix path -> `{"bytes", "md5", "sha256"}` of every file below `folder` but its own manifest, sums and leftovers."""
    return hash_listed(folder, listed_files(folder))


def listed_files(folder: Path) -> list[str]:
    """Relative posix paths of the files that a manifest of `folder` lists, sorted by their parts."""
    own = {folder / name for name in (MANIFEST, *SUMS)}
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and path not in own)
    return [path.as_posix() for path in files if not any(map(_is_leftover, path.parts))]


def write_manifest(folder: Path, facts: dict[str, Any], *, sums: bool = False,
                   known: Mapping[str, dict[str, Any]] | None = None) -> dict[str, Any]:
    """Write `manifest.json`: `facts` (what made the folder) and the hashes of every file in it. Returns it.

    `sums`: also SHA256SUMS and MD5SUMS, for who has no mft. `known`: hashes of files that need not be read once more.
    """
    known, names = known or {}, listed_files(folder)
    made = hash_listed(folder, [name for name in names if not known.get(name)])
    manifest = {**facts, "files": {name: known.get(name) or made[name] for name in names}}
    write_json(folder / MANIFEST, manifest)
    if sums:
        files = {**manifest["files"], MANIFEST: hash_file(folder / MANIFEST)}
        for name, kind in SUMS.items():
            write_text(folder / name, "".join(sum_line(facts[kind], path) for path, facts in files.items()))
    return manifest


def sum_line(digest: str, name: str) -> str:
    r"""A line of `sha256sum`, which marks a name with a backslash or a newline in it by a backslash in front.

    >>> sum_line("ab12", "a\\b")
    '\\ab12  a\\\\b\n'
    """
    escaped = name.replace("\\", "\\\\").replace("\n", "\\n")
    return ("\\" if escaped != name else "") + f"{digest}  {escaped}\n"


def check_manifest(folder: Path) -> dict[str, Any]:
    """Compare a folder with its manifest and return the manifest.

    Raises:
        CheckFailed: there is no manifest, or a file is missing, changed or not listed; the message names each.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise CheckFailed(f"{folder}: has no {MANIFEST}")
    try:
        manifest: dict[str, Any] = read_json(path)
        wanted = {name: facts["sha256"] for name, facts in manifest["files"].items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckFailed(f"{path}: is damaged, or not a manifest of mft") from error
    found = {name: facts["sha256"] for name, facts in folder_hashes(folder).items()}
    faults = [f"{folder / name}: missing" for name in sorted(wanted.keys() - found.keys())]
    faults += [f"{folder / name}: not in the manifest" for name in sorted(found.keys() - wanted.keys())]
    faults += [f"{folder / name}: changed since the manifest was written" for name in sorted(wanted.keys() & found.keys())
               if wanted[name] != found[name]]
    if faults:
        raise CheckFailed("\n".join(faults))
    return manifest


def claim_folder(folder: Path, job: str, *, overwrite: bool = False, replace_other: bool = False) -> Literal["new", "same"]:
    """Take an output folder for a job (a hash of all that determines it): `new` when it was empty, `same` to go on.

    With `overwrite` a folder that a job has taken is emptied first, with `replace_other` only if it is another job's; one that
    no job has taken is never emptied.

    Raises:
        OutputError: the folder holds files of no job, or another job and neither `overwrite` nor `replace_other` is given.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: is a file, not a folder")
    contents = [path for path in folder.iterdir() if not _is_leftover(path.name)] if folder.is_dir() else []
    marker = folder / JOB
    if contents and marker not in contents:
        raise OutputError(f"{folder}: holds files that are not of mft; give another output folder, or remove them")
    if contents and not overwrite:
        if job_of(folder) == job:
            return "same"
        if not replace_other:
            raise OutputError(f"{folder}: holds another job; give another output folder, or --overwrite to start anew")
    for path in contents:
        if path != marker:      # it goes last, so that a killed removal can be done again
            _remove(path)
            if path.exists():
                raise OutputError(f"{path}: cannot be removed")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(marker, {"job": job})
    return "new"


def job_of(folder: Path) -> Any:
    """The job that has taken a folder; None when there is none, or its marker is damaged."""
    try:
        return read_json(folder / JOB)["job"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
