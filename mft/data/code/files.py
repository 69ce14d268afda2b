"""The source files of a tree in several languages, and those that are left out, each with its reason."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mft.data.code.functions import LeftOutFile, LeftOutReason
from mft.data.code.generated import generated_reason
from mft.data.code.gitignore import IgnoreFile, files_above, is_ignored, read_ignore_file, repository_of
from mft.data.code.languages import SUFFIXES, HarvestLanguage
from mft.data.code.license import is_license_file, license_name
from mft.data.walk import matches
from mft.errors import DataError

VENDORED: Final = frozenset({
    "vendor", "vendored", "_vendor", "third_party", "third-party", "thirdparty", "3rdparty", "3rd_party", "node_modules",
    "bower_components", "jspm_packages", "site-packages", "dist-packages", ".venv", "venv", "Pods", "Carthage", "Godeps", ".cargo",
    "deps", "_deps"})
"""Names of folders that hold other people's code."""

BUILD_OUTPUT: Final = frozenset({
    "dist", "build", "target", "__pycache__", ".gradle", ".next", ".nuxt", ".tox", ".nox", ".eggs", "bazel-out", "cmake-build-debug",
    "cmake-build-release"})
"""Names of folders that a build writes; a folder of sources with such a name is taken back by `keep`."""

NOT_SOURCE: Final = frozenset({".git", ".hg", ".svn"})
"""Never entered, so what is in them is not counted either."""

CPP_LINE: Final = re.compile(
    rb"^[ \t]*(?:(?:inline )?namespace\b|template\s*<|(?:enum )?class\s+\w|using\s+\w|(?:public|private|protected)\s*:|"
    rb"#[ \t]*include\s*<[a-z_]+>|constexpr\b)", re.MULTILINE)
"""A line that only C++ has: `#include <vector>` has no `.h`, and C has no classes."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of a chosen language. `path` is relative to the tree, `file` where it lies."""

    path: str
    file: Path
    language: HarvestLanguage


@dataclass(frozen=True, slots=True)
class SourceTree:
    """What a walk found, by path; `licenses`: path of a licence file -> SPDX name or `unknown`."""

    files: tuple[SourceFile, ...]
    left_out: tuple[LeftOutFile, ...]
    licenses: dict[str, str]


def walk_tree(root: Path, languages: Sequence[HarvestLanguage], exclude: Sequence[str] = (), keep: Sequence[str] = ()) -> SourceTree:
    """Look at every file below `root` whose name ends as those of `languages` do.

    Reasons for leaving a file out, the first that fits: `gitignored`, `excluded` (by a glob of `exclude`), `vendored` and
    `build_output` (by the name of a folder below `root`), `generated`, `minified`, `too_large`. Files that match a glob of `keep` are read
    in spite of the last five. Links to folders are not followed.
    """
    repository = repository_of(root)
    rules = files_above(repository, root) if repository else []
    base = root.resolve().relative_to(repository).as_posix() if repository else "."
    wanted = {suffix for suffix, language in SUFFIXES.items() if language in languages}
    wanted |= {".h"} if {"c", "cpp"} & set(languages) else set()
    licenses = _licenses(root, repository)
    files: list[SourceFile] = []
    left_out: list[LeftOutFile] = []
    for relative, file, reason in _entries(root, "" if base == "." else base, "", rules, None):
        name = file.name
        if is_license_file(name) and not reason:
            licenses[relative] = license_name(file)
        if os.path.splitext(name)[1] not in wanted:
            continue
        kept = matches(relative, keep)
        reason = reason if reason == "gitignored" or not kept else None
        if reason != "gitignored" and matches(relative, exclude):
            reason = "excluded"
        found = LeftOutFile(relative, reason) if reason else _judged(relative, file, languages, kept)
        if isinstance(found, LeftOutFile):
            left_out.append(found)
        elif found:
            files.append(found)
    return SourceTree(tuple(sorted(files, key=lambda found: found.path)), tuple(sorted(left_out, key=lambda found: found.path)),
                      dict(sorted(licenses.items())))


def header_language(content: bytes) -> HarvestLanguage:
    """`c` or `cpp`: which of the two a `.h` file is written in. What stands between `#ifdef __cplusplus` and `#endif` says nothing.

    >>> header_language(b"class A;"), header_language(b"struct a { int x; };")
    ('cpp', 'c')
    """
    plain = re.sub(rb"(?ms)^[ \t]*#[ \t]*if(?:def[ \t]+|[ \t]+defined[ (]*)__cplusplus.*?^[ \t]*#[ \t]*(?:endif|else)", b"", content)
    return "cpp" if CPP_LINE.search(re.sub(rb"(?s)/\*.*?\*/|//[^\n]*", b"", plain)) else "c"


def _judged(relative: str, file: Path, languages: Sequence[HarvestLanguage], kept: bool) -> SourceFile | LeftOutFile | None:
    """None: a header of a language that is not asked for."""
    content = file.read_bytes()
    suffix = os.path.splitext(file.name)[1]
    language = header_language(content) if suffix == ".h" else SUFFIXES[suffix]
    if language not in languages:
        return None
    reason = None if kept else generated_reason(file.name, content)
    return LeftOutFile(relative, reason) if reason else SourceFile(relative, file, language)


def _entries(folder: Path, in_repository: str, prefix: str, rules: list[IgnoreFile],
             reason: LeftOutReason | None) -> Iterator[tuple[str, Path, LeftOutReason | None]]:
    """(path from the tree's top, file, why it or its folder is left out or None) of every file, folders by name."""
    rules = rules if reason == "gitignored" else rules + read_ignore_file(folder / ".gitignore", in_repository)
    for entry in _listed(folder):
        path = f"{in_repository}/{entry.name}" if in_repository else entry.name
        is_folder = entry.is_dir()
        if entry.name in NOT_SOURCE or (is_folder and entry.is_symlink()):
            continue
        own: LeftOutReason | None = "gitignored" if reason == "gitignored" or is_ignored(rules, path, is_folder) else reason
        if is_folder:
            own = own or ("vendored" if entry.name in VENDORED else "build_output" if entry.name in BUILD_OUTPUT else None)
            yield from _entries(Path(entry.path), path, f"{prefix}{entry.name}/", rules, own)
        elif entry.is_file():
            yield prefix + entry.name, Path(entry.path), own


def _listed(folder: Path) -> list[os.DirEntry[str]]:
    try:
        return sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror}); leave it out of the tree or make it readable") from error


def _licenses(root: Path, repository: Path | None) -> dict[str, str]:
    """Licence files above the tree, up to the top of its repository, under paths that begin with `../`."""
    found: dict[str, str] = {}
    folder, up = root.resolve(), ""
    while repository and folder != repository:
        folder, up = folder.parent, f"../{up}"
        found |= {f"{up}{entry.name}": license_name(Path(entry.path)) for entry in _listed(folder)
                  if entry.is_file() and is_license_file(entry.name)}
    return found
