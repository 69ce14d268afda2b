"""What `.stages/NAME.json` in a project's output says of a stage: how it ended, and the hashes of what it hands on.

    {"key": "5c1e...", "parts": {...}, "fingerprint": "a04f...", "seconds": 812.4, "result": {...},
     "files": {"merged/model.safetensors": {"bytes": 67, "mtime_ns": 1793, "sha256": "9b7c..."}, ...}}

While a stage runs it says `{"begun": true, "replaces": ...}` instead: a stage that was killed is never taken for what it was before.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mft.errors import CheckFailed, OutputError
from mft.files import MANIFEST, read_json, write_json
from mft.hashes import hash_file, sha256_of
from mft.release.card import CARD

logger = logging.getLogger(__name__)

STAGES = ".stages"


@dataclass(frozen=True, slots=True)
class Finished:
    """A finished stage. `parts`: what its key is the hash of; `files`: path below the output -> `bytes`, `mtime_ns`, `sha256`."""

    name: str
    key: str
    parts: dict[str, Any]
    fingerprint: str
    seconds: float
    result: dict[str, Any]
    files: dict[str, dict[str, Any]]


def read_finished(out: Path, name: str) -> Finished | None:
    """The record of a finished stage; None where it was never finished, was begun again, or its record is of another layout."""
    try:
        found = read_json(_place(out, name))
        return Finished(name, *(found[key] for key in ("key", "parts", "fingerprint", "seconds", "result", "files")))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def replaces_other(out: Path, name: str) -> bool:
    """Whether the stage's folder holds what this project once finished, perhaps with other settings, which a new attempt may replace."""
    try:
        found = read_json(_place(out, name))
        return bool(found.get("replaces", "fingerprint" in found))
    except (OSError, ValueError, AttributeError):
        return False


def was_begun(out: Path, name: str) -> bool:
    """Whether an attempt at the stage has begun and not ended."""
    try:
        return bool(read_json(_place(out, name)).get("begun"))
    except (OSError, ValueError, AttributeError):
        return False


def note_begun(out: Path, name: str, *, replaces: bool) -> None:
    """Say that a stage runs: from here on its folder is no longer what an earlier record says of it."""
    write_json(_place(out, name), {"begun": True, "replaces": replaces})


def note_finished(out: Path, finished: Finished) -> None:
    """Write the record of a finished stage."""
    write_json(_place(out, finished.name), {
        "key": finished.key, "parts": finished.parts, "fingerprint": finished.fingerprint, "seconds": finished.seconds,
        "result": finished.result, "files": finished.files})


def _place(out: Path, name: str) -> Path:
    return out / STAGES / f"{name}.json"


def files_of(places: Sequence[Path], out: Path) -> dict[str, dict[str, Any]]:
    """Size, time and sha256 of files, and of all that the manifests of folders list; what a manifest has hashed is not read again.

    Raises:
        OutputError: a file is gone that the stage has just written.
    """
    found: dict[str, dict[str, Any]] = {}
    for place in places:
        listed = read_json(place / MANIFEST)["files"] if place.is_dir() else {}
        names = [*listed, MANIFEST] if place.is_dir() else [""]
        for name in names:
            path = place / name if name else place
            try:
                status = path.stat()
                known = listed.get(name) or hash_file(path)
            except OSError as error:
                raise OutputError(f"{path}: cannot be read, though its stage has just written it: {error.strerror}") from error
            found[path.relative_to(out).as_posix()] = {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": known["sha256"]}
    return found


def lost_files(finished: Finished, out: Path) -> list[str]:
    """Files of a finished stage that are no longer there."""
    return [name for name in finished.files if not (out / name).is_file()]


def check_files(finished: Finished, out: Path, *, read_all: bool = False) -> Finished:
    """Compare what a stage left with its record: by size and time, and by hash where these differ, or everywhere with `read_all`.

    Model cards are left out, as people write on them. Returns the record with the times that the files have now.

    Raises:
        CheckFailed: each file that is gone or holds something else, and the command that makes it again.
    """
    faults, files = [], {}
    for name, known in finished.files.items():
        path = out / name
        files[name] = known
        if not path.is_file():
            faults.append(f"{path}: is gone, which stage '{finished.name}' had left there")
            continue
        status = path.stat()
        as_it_was = (status.st_size, status.st_mtime_ns) == (known["bytes"], known["mtime_ns"])
        if path.name == CARD or (as_it_was and not read_all):
            continue
        digest = sha256_of(path)
        if digest != known["sha256"]:
            faults.append(f"{path}: is not as stage '{finished.name}' left it (sha256 {known['sha256'][:12]}..., now {digest[:12]}...)")
        files[name] = {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": known["sha256"]}
    if faults:
        raise CheckFailed("\n".join([*faults, f"--from {finished.name} makes it again, and all stages after it"]))
    return Finished(finished.name, finished.key, finished.parts, finished.fingerprint, finished.seconds, finished.result, files)


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """What has changed since a stage was finished, in words, from the parts of its key.

    >>> list(differences({"stage": 1, "inputs": {"data": "a"}}, {"stage": 2, "inputs": {"data": "b"}}))
    ['its settings', "what stage 'data' gave"]
    """
    words = {"stage": "its settings", "model": "the project's model", "mft": "mft's version", "sources": "files that it reads"}
    yield from (word for part, word in words.items() if before.get(part) != now.get(part))
    old, new = before.get("inputs") or {}, now.get("inputs") or {}
    yield from (f"what stage '{name}' gave" for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name))
