"""Hashes of files, texts and values: the one way in which mft says that two of them are the same."""

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

CHUNK = 1 << 22
"""Bytes that are read at a time."""
MOST_READERS = 8
"""Files that are hashed at a time: more would not be read faster."""


def sha256_text(text: str) -> str:
    """Hex sha256 of the UTF-8 bytes of `text`."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def sha256_json(value: Any) -> str:
    """Hex sha256 of `value` written as JSON with sorted keys."""
    return sha256_text(json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str))


def hash_file(path: Path) -> dict[str, Any]:
    """`{"bytes", "md5", "sha256"}` of one file, read once; the two hashes of a piece are computed side by side."""
    md5, sha256, size = hashlib.md5(usedforsecurity=False), hashlib.sha256(), 0
    with path.open("rb") as stream, ThreadPoolExecutor(1) as beside:
        waiting: Future[None] | None = None
        while chunk := stream.read(CHUNK):
            if waiting:
                waiting.result()
            waiting = beside.submit(md5.update, chunk)   # Starts its thread at the first piece: none for an empty file.
            sha256.update(chunk)
            size += len(chunk)
    return {"bytes": size, "md5": md5.hexdigest(), "sha256": sha256.hexdigest()}


def hash_listed(folder: Path, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Name -> what `hash_file` says of that file of `folder`, in the order given; several files at a time, as many as there are cores."""
    if not names:
        return {}
    with ThreadPoolExecutor(min(len(names), len(os.sched_getaffinity(0)), MOST_READERS)) as pool:
        return dict(zip(names, pool.map(lambda name: hash_file(folder / name), names), strict=True))


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file; one that is as it was, by size, time and inode, is read once in a process."""
    status = path.stat()
    return _sha256_of(path.absolute(), status.st_size, status.st_mtime_ns, status.st_ino)


@cache
def _sha256_of(path: Path, size: int, modified_ns: int, inode: int) -> str:
    return str(hash_file(path)["sha256"])
