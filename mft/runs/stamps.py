"""Hashes of large files that a project reads, kept between commands with the size and the time that each file had.

Else every `mft run` of a 34B project would read 67 GB before it could say that nothing has changed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mft.files import read_json, write_json
from mft.hashes import sha256_of

STAMPS = "hashes.json"


def stamped_hashes(files: Sequence[Path], store: Path, *, keep: bool = True) -> dict[str, str]:
    """Name -> sha256 of files of one folder. A file with the size and time that `store` knows is not read.

    `keep`: write what was read into `store`.
    """
    known = _read(store)
    found, news = {}, {}
    for path in files:
        status, place = path.stat(), str(path.resolve())
        stamp = known.get(place) or {}
        if (stamp.get("bytes"), stamp.get("mtime_ns")) != (status.st_size, status.st_mtime_ns):
            stamp = {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": sha256_of(path)}
            news[place] = stamp
        found[path.name] = str(stamp["sha256"])
    if news and keep:
        write_json(store, known | news)
    return found


def _read(store: Path) -> dict[str, Any]:
    try:
        found = read_json(store)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
