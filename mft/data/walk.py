"""Find the files that a recipe names, in a stable order, by glob patterns."""

import re
import sysconfig
from collections.abc import Iterator, Sequence
from functools import lru_cache
from glob import glob
from itertools import takewhile
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Literal

from mft.errors import DataError

STDLIB = "stdlib"
"""In a recipe: the standard library of the running Python."""

NEVER = ("**/site-packages/**", "**/dist-packages/**", "**/__pycache__/**", "**/.git/**", "**/.venv/**", "**/node_modules/**")
"""Folders that hold other people's code; never part of a tree that a user names."""


def standard_library() -> Path:
    """The folder of the running Python's standard library."""
    return Path(sysconfig.get_paths()["stdlib"])


@lru_cache(maxsize=256)
def glob_pattern(text: str) -> re.Pattern[str]:
    """A glob over relative posix paths: `**/` is any number of folders, `*` stays inside one name.

    >>> bool(glob_pattern("**/test*/**").fullmatch("ctypes/test/a.py"))
    True
    >>> bool(glob_pattern("**/test*/**").fullmatch("unittest/case.py"))
    False
    """
    out, index = [], 0
    while index < len(text):
        if text.startswith("**/", index):
            out.append("(?:.*/)?")
            index += 3
        elif text.startswith("**", index):
            out.append(".*")
            index += 2
        else:
            out.append({"*": "[^/]*", "?": "[^/]"}.get(text[index], re.escape(text[index])))
            index += 1
    return re.compile("".join(out), re.DOTALL)


def matches(path: str, globs: Sequence[str]) -> bool:
    """True when the relative posix path matches one of the globs."""
    return any(glob_pattern(text).fullmatch(path) for text in globs)


def source_files(root: Path, suffix: str, exclude: Sequence[str] = ()) -> Iterator[tuple[str, Path]]:
    """(relative posix path, path) of every file under `root` that ends in `suffix`, sorted by relative path."""
    found = {path.relative_to(root).as_posix(): path for path in root.rglob(f"*{suffix}") if path.is_file()}
    for relative in sorted(found):
        if not matches(relative, NEVER) and not matches(relative, exclude):
            yield relative, found[relative]


def tree_folder(folder: Path, path: str) -> Path:
    """The folder that `path` names: the standard library for `stdlib`, else a folder relative to `folder`.

    Raises:
        DataError: it is missing, a file, or cannot be looked at.
    """
    if path == STDLIB:
        return standard_library()
    root = folder / path
    kind = _kind(root)
    if kind is None:
        raise DataError(f"{root}: no such folder; give a folder relative to the recipe, or '{STDLIB}'")
    if kind != "folder":
        raise DataError(f"{root}: is a file; give the folder that holds the Python files, or '{STDLIB}'")
    return root


def named_files(folder: Path, pattern: str) -> list[tuple[str, Path]]:
    """(label, path) of the files that a path or glob relative to `folder` names, sorted by label.

    The label is the posix path from the last folder before the first wildcard, so it is the same on every machine:
    `chat/*.jsonl.gz` gives `a.jsonl.gz`, `chat/**/*.jsonl` gives `en/a.jsonl`, `chat/a.jsonl` gives `a.jsonl`.

    Raises:
        DataError: nothing is found, or the path is a folder, a pipe or a device, or cannot be looked at.
    """
    literal = folder / pattern
    kind = _kind(literal)
    if kind == "folder":
        raise DataError(f"{literal}: is a folder; name its files, for example '{pattern.rstrip('/')}/*.jsonl'")
    if kind == "other":
        raise DataError(f"{literal}: is a pipe or a device; a source is hashed and then read, so it must be a file")
    if kind == "file":
        return [(literal.name, literal)]
    if not _has_wildcard(pattern):
        raise DataError(f"{literal}: no such file")
    fixed = folder.joinpath(*takewhile(lambda part: not _has_wildcard(part), Path(pattern).parts))
    paths = (folder / name for name in glob(pattern, root_dir=folder, recursive=True))
    found = {path.relative_to(fixed).as_posix(): path for path in paths if path.is_file()}
    if not found:
        raise DataError(f"{literal}: no file matches")
    return sorted(found.items())


def _kind(path: Path) -> Literal["file", "folder", "other"] | None:
    """What a path leads to; None where nothing is.

    Raises:
        DataError: that cannot be known: a folder on the way is closed to us, or a name is too long or holds NUL.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{str(path)!r}: is no path: {error}") from error
    return "folder" if S_ISDIR(mode) else "file" if S_ISREG(mode) else "other"


def end_of_path(pattern: str) -> str:
    """The part of a path or glob that says which files: from the first wildcard on, else the last name. It is the same on every machine.

    >>> end_of_path("data/chat/**/*.jsonl"), end_of_path("data/a.csv")
    ('**/*.jsonl', 'a.csv')
    """
    parts = Path(pattern).parts
    fixed = sum(1 for _ in takewhile(lambda part: not _has_wildcard(part), parts))
    return Path(*parts[min(fixed, len(parts) - 1):]).as_posix() if parts else pattern


def _has_wildcard(text: str) -> bool:
    return any(sign in text for sign in "*?[")
