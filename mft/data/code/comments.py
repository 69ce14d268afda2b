"""The doc comment that stands above a function, and its text without the markers."""

import re
from collections.abc import Sequence
from textwrap import dedent
from typing import Final

from mft.data.code.languages import LanguageSpec

NOT_ABOUT_THE_FUNCTION: Final = re.compile(r"copyright|spdx-license|licensed under|all rights reserved", re.IGNORECASE)
"""A licence that stands directly above the first function of a file."""

REMARK: Final = re.compile(r"\W*(?:todo|fixme|xxx|hack)\b", re.IGNORECASE)

DIRECTIVE: Final = re.compile(
    r"//(?:[a-z0-9]+:[a-z0-9].*|export \w.*|\s*(?:nolint|eslint|tslint|prettier|istanbul|clang-format|@ts-|NOLINT|#(?:end)?region).*)")
"""A line for a tool: `//go:noinline`, `// eslint-disable-line`, `// clang-format off`."""

RULER: Final = re.compile(r"[-=*#~/+_\s]{3,}")
"""A line of signs; at the start or the end of a comment it is its frame. Fences of three backquotes belong to the text."""

CODE_END: Final = re.compile(r".*[;{}]\s*")


def doc_text(comment: Sequence[str], spec: LanguageSpec) -> str | None:
    """The text of a comment's lines without markers and common indentation, or None for a comment that documents nothing.

    None: a licence, a remark such as TODO, code that is commented out, nothing but directives for tools, the documentation of what
    stands before it (`///<`).

    >>> from mft.data.code.languages import LANGUAGES
    >>> doc_text(["  /**", "   * Twice x.", "   * @param x a number", "   */"], LANGUAGES["java"])
    'Twice x.\\n@param x a number'
    >>> doc_text(["// Twice doubles x.", "//go:noinline"], LANGUAGES["go"])
    'Twice doubles x.'
    """
    first = comment[0].lstrip()
    own = first.startswith(spec.doc_marks)
    if not own and not first.startswith(spec.plain_marks or ("\0",)):
        return None
    lines = _of_block(comment) if first.startswith("/*") else _of_lines(comment)
    text = dedent("\n".join(line.rstrip() for line in _unframed(lines))).strip()
    if not text or text.startswith("<") or NOT_ABOUT_THE_FUNCTION.search(text) or REMARK.match(text):
        return None
    said = [line for line in text.split("\n") if line.strip()]
    if not own and 2 * sum(bool(CODE_END.fullmatch(line)) for line in said) >= len(said):
        return None
    return text


def is_doc_start(text: str, spec: LanguageSpec) -> bool:
    """True for a comment that may document what follows; `/**/` and a bare ruler of slashes or stars may not."""
    text = text.lstrip()
    return text.startswith((*spec.doc_marks, *spec.plain_marks)) and not text.startswith(("/**/", "/***", "////"))


def _unframed(lines: list[str]) -> list[str]:
    """The lines without blank ones and rulers at both ends."""
    said = [index for index, line in enumerate(lines) if line.strip() and not RULER.fullmatch(line.strip())]
    return lines[said[0]:said[-1] + 1] if said else []


def _of_block(comment: Sequence[str]) -> list[str]:
    """`/** ... */`: the first line's text stands for itself, the others lose one star each where all of them have it."""
    text = "\n".join(comment).strip()
    text = re.sub(r"^/\*[*!]*", "", text)
    text = re.sub(r"\**\*/$", "", text)
    first, *rest = text.split("\n")
    if all(line.lstrip().startswith("*") for line in rest if line.strip()):
        rest = [re.sub(r"^\s*\*", "", line) for line in rest]
    return [first.strip(), *dedent("\n".join(rest)).split("\n")] if rest else [first.strip()]


def _of_lines(comment: Sequence[str]) -> list[str]:
    """`// ...`, `/// ...`: without the lines that are for tools."""
    return [re.sub(r"^//[/!]?", "", line.strip()) for line in comment if not DIRECTIVE.fullmatch(line.strip())]
