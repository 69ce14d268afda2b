"""Hashes of large files, kept between commands with the size, the time and the inode that each file had.

Else every start of a 34B project would read 67 GB before it could say that nothing has changed.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mft.files import read_json, write_json
from mft.hashes import sha256_of

STAMPS = "hashes.json"


def stamped_hashes(files: Sequence[Path], store: Path, *, keep: bool = True) -> dict[str, str]:
    """Name -> sha256 of files of one folder. A file with the size, time and inode that `store` knows is not read.

    `keep`: write what was read into `store`.
    """
    known = _read(store)
    found, news = {}, {}
    for path in files:
        place, stamp = str(path.resolve()), _stamp(path)
        told = known.get(place)
        if not isinstance(told, dict) or {key: told.get(key) for key in stamp} != stamp or "sha256" not in told:
            told = news[place] = {**stamp, "sha256": sha256_of(path)}
        found[path.name] = str(told["sha256"])
    if news and keep:
        write_json(store, known | news)
    return found


def keep_hashes(folder: Path, hashes: Mapping[str, str], store: Path) -> None:
    """Write into `store` the sha256 of files of `folder` that were just written, so that they are not read again."""
    news = {str((folder / name).resolve()): {**_stamp(folder / name), "sha256": digest} for name, digest in hashes.items()}
    write_json(store, _read(store) | news)


def _stamp(path: Path) -> dict[str, int]:
    status = path.stat()
    return {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns, "inode": status.st_ino}


def _read(store: Path) -> dict[str, Any]:
    try:
        found = read_json(store)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
