"""What git would not look at: `.gitignore` files of every folder and `.git/info/exclude`, with git's own rules.

The last matching pattern decides, files of deeper folders come first, and what lies in an ignored folder cannot be taken back.
A user's own list (`core.excludesFile`) has no part: the same tree must give the same rows on every machine. Files that git tracks
although a pattern matches them are ignored too: the index is not read.

Source: git's documentation of gitignore, "Pattern format". The package pathspec decides `foo/**` with `!foo/keep.c`, and `build`
with `!build/`, otherwise than git does, since it lets a folder's pattern match what lies inside.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CLASSES: Final = {"alpha": "a-zA-Z", "digit": "0-9", "alnum": "a-zA-Z0-9", "upper": "A-Z", "lower": "a-z", "space": r"\s",
                  "xdigit": "0-9a-fA-F"}
"""Named sets inside brackets."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """One line. `regex` matches the path below the folder of the file that holds it, or the name alone where `by_name`."""

    regex: re.Pattern[str]
    ignores: bool
    folders_only: bool
    by_name: bool


@dataclass(frozen=True, slots=True)
class IgnoreFile:
    """The patterns of one file, which hold below `base`, a posix path from the top of the repository (`''`: the top itself)."""

    base: str
    patterns: tuple[Pattern, ...]

    def decides(self, path: str, is_folder: bool) -> bool | None:
        """True: ignored, False: taken back, None: no pattern matches."""
        below = path[len(self.base) + 1:] if self.base else path
        name = path.rpartition("/")[2]
        for pattern in reversed(self.patterns):
            if (is_folder or not pattern.folders_only) and pattern.regex.fullmatch(name if pattern.by_name else below):
                return pattern.ignores
        return None


def is_ignored(files: Sequence[IgnoreFile], path: str, is_folder: bool) -> bool:
    """True when git ignores this entry of a folder that it does not ignore; `files` from the weakest to that of the deepest folder."""
    return next((answer for file in reversed(files) if (answer := file.decides(path, is_folder)) is not None), False)


def read_ignore_file(path: Path, base: str) -> list[IgnoreFile]:
    """The file's patterns, or nothing where it is missing; bytes that are no UTF-8 match nothing."""
    if not path.is_file():
        return []
    return [IgnoreFile(base, tuple(parse(path.read_text(encoding="utf-8-sig", errors="surrogateescape").split("\n"))))]


def repository_of(root: Path) -> Path | None:
    """The nearest folder at or above `root` that holds `.git`, or None."""
    absolute = root.resolve()
    return next((folder for folder in (absolute, *absolute.parents) if (folder / ".git").exists()), None)


def files_above(repository: Path, root: Path) -> list[IgnoreFile]:
    """The ignore files that already hold at `root`, from `.git/info/exclude` down to the folder above it."""
    found = read_ignore_file(repository / ".git" / "info" / "exclude", "")
    folder, base = repository, ""
    for part in root.resolve().relative_to(repository).parts:
        found += read_ignore_file(folder / ".gitignore", base)
        folder, base = folder / part, f"{base}/{part}" if base else part
    return found


def parse(lines: Iterable[str]) -> Iterator[Pattern]:
    """The patterns of an ignore file's lines, in order.

    >>> [pattern.regex.pattern for pattern in parse(["# no", "/build/", "*.o"])]
    ['build', '[^/]*\\\\.o']
    """
    for line in lines:
        text = re.sub(r"(?<!\\)((?:\\\\)*) +$", r"\1", line.removesuffix("\r"))
        if not text or text.startswith("#"):
            continue
        ignores = not text.startswith("!")
        text = text if ignores else text[1:]
        folders_only = text.endswith("/")
        text = text.removesuffix("/")
        if text and (regex := _regex(text.removeprefix("/"))):
            yield Pattern(regex, ignores, folders_only, by_name="/" not in text)


def _regex(text: str) -> re.Pattern[str] | None:
    """A pattern as a regular expression, or None for one that matches nothing (an open bracket, a backslash at the end)."""
    out, index = [], 0
    while index < len(text):
        stars = re.compile(r"\*{2,}(/|$)").match(text, index) if index == 0 or text[index - 1] == "/" else None
        if stars:
            out.append("(?:.*/)?" if stars[1] else ".+")
            index = stars.end()
        elif text[index] == "[":
            found = _bracket(text, index)
            if not found:
                return None
            out.append(found[0])
            index = found[1]
        elif text[index] == "\\":
            if index + 1 == len(text):
                return None
            out.append(re.escape(text[index + 1]))
            index += 2
        else:
            out.append({"*": "[^/]*", "?": "[^/]"}.get(text[index], re.escape(text[index])))
            index += 1
    return re.compile("".join(out), re.DOTALL)


def _bracket(text: str, start: int) -> tuple[str, int] | None:
    """The set that begins at `start` and the place behind it, or None when it has no end or its ranges run backwards."""
    found = re.compile(r"\[([!^]?)(\]?(?:\\.|\[:\w+:\]|[^\]\\])*)\]").match(text, start)
    if not found:
        return None
    signs = re.sub(r"\[:(\w+):\]|\\(.)|([\[\]&~|^])",
                   lambda part: CLASSES.get(part[1], "") if part[1] else re.escape(part[2] or part[3]), found[2])
    try:
        re.compile(f"[{signs}]")
    except re.error:
        return None
    return f"(?!/)[{'^' if found[1] else ''}{signs}]", found.end()
