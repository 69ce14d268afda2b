"""The doc comment that stands above a function, and its text without the markers."""

import re
from collections.abc import Sequence
from textwrap import dedent
from typing import Final

from mft.data.code.languages import LanguageSpec

NOT_ABOUT_THE_FUNCTION: Final = re.compile(r"copyright|spdx-license|licensed under|all rights reserved|\A[\\@](?:file|mainpage)\b",
                                           re.IGNORECASE)
"""A licence, or the documentation of the file, that stands directly above its first function."""

REMARK: Final = re.compile(r"\W*(?:todo|fixme|xxx|hack)\b", re.IGNORECASE)

REMARK_LINE: Final = re.compile(r"[\s\\@\-*(\[]*(?:TODO|FIXME|XXX|HACK)\b.*")
"""Where a remark to the authors begins inside a documentation; it goes on to the end of its paragraph."""

DIRECTIVE: Final = re.compile(
    r"//(?:[a-z0-9]+:[a-z0-9].*|export \w.*|\s*(?:nolint|eslint|tslint|prettier|istanbul|clang-format|@ts-|NOLINT|#(?:end)?region).*)")
"""A line for a tool: `//go:noinline`, `// eslint-disable-line`, `// clang-format off`."""

RULER: Final = re.compile(r"[-=*#~/+_\s]{3,}|([-=*#~/+_])\1\1.*\1{3}")
"""A line of signs, or a title between them (`==== io.c ====`); at the start or the end of a comment it is its frame. Fences of three
backquotes belong to the text."""

DOXYGEN_LINE: Final = re.compile(r"\s*[\\@](?:(?:ingroup|addtogroup|defgroup|weakgroup|internal|endinternal|private|public)\b.*|[{}])\s*")
DOXYGEN_BRIEF: Final = re.compile(r"^(\s*)[\\@](?:brief|short)(?:[ \t]+|$)", re.MULTILINE)
"""Commands of Doxygen that say nothing to a reader: where a text is listed, and that its first sentence is one."""

CODE_END: Final = re.compile(r".*[;{}]\s*")
STAR: Final = re.compile(r"\s*\*(?:\*(?=\s|$))?")
FRAME_COLUMNS = 2
"""A frame of stars stands at most so many columns right of the `/*`; deeper stars are a list."""


def doc_text(comment: Sequence[str], spec: LanguageSpec) -> str | None:
    """The text of a comment's lines without markers and common indentation, or None for a comment that documents nothing.

    None: a licence, a remark such as TODO, code that is commented out, nothing but directives for tools or a title between rulers, the
    documentation of what stands before it (`///<`) or of the file (`\\file`). Remarks inside a documentation are left out.

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
    text = _text_of_block(comment) if first.startswith("/*") else _aligned(_unframed(_of_lines(comment)))
    text = text.strip()
    if not text or text.startswith("<") or NOT_ABOUT_THE_FUNCTION.search(text) or REMARK.match(text):
        return None
    said = [line for line in text.split("\n") if line.strip()]
    if not own and 2 * sum(bool(CODE_END.fullmatch(line)) for line in said) >= len(said):
        return None
    return _readable(text, spec) or None


def is_doc_start(text: str, spec: LanguageSpec) -> bool:
    """True for a comment that may document what follows; `/**/` and a bare ruler of slashes or stars may not."""
    text = text.lstrip()
    return text.startswith((*spec.doc_marks, *spec.plain_marks)) and not text.startswith(("/**/", "/***", "////"))


def _unframed(lines: list[str]) -> list[str]:
    """The lines without blank ones and rulers at both ends."""
    said = [index for index, line in enumerate(lines) if line.strip() and not RULER.fullmatch(line.strip())]
    return lines[said[0]:said[-1] + 1] if said else []


def _aligned(lines: list[str]) -> str:
    """The lines without their common margin; where some, like code behind a tab, have none, without the space behind each marker."""
    text = "\n".join(lines)
    plain = dedent(text)
    said = [line for line in lines if line.strip()]
    spaced = sum(line.startswith(" ") for line in said)
    if plain == text and (2 * spaced > len(said) or (spaced and all(line[0].isspace() for line in said))):
        return re.sub(r"^ ", "", text, flags=re.MULTILINE)
    return plain


def _readable(text: str, spec: LanguageSpec) -> str:
    """Without remarks to the authors and, in C and C++, without commands that only Doxygen reads."""
    kept: list[str] = []
    in_remark = False
    for line in text.split("\n"):
        if REMARK_LINE.fullmatch(line) and kept and kept[-1].strip() == "<p>":
            kept.pop()
        in_remark = bool(REMARK_LINE.fullmatch(line)) or (in_remark and bool(line.strip()) and not line.lstrip().startswith(("@", "\\")))
        if not in_remark and not (spec.doxygen and DOXYGEN_LINE.fullmatch(line)):
            kept.append(line)
    text = "\n".join(kept)
    return (DOXYGEN_BRIEF.sub(r"\1", text) if spec.doxygen else text).strip()


def _text_of_block(comment: Sequence[str]) -> str:
    """`/** ... */`: the first line's text stands for itself, the others lose the frame of stars where there is one, and their margin."""
    column = len(comment[0]) - len(comment[0].lstrip())
    text = "\n".join(comment).strip()
    text = re.sub(r"^/\*[*!]*", "", text)
    text = re.sub(r"\**\*/$", "", text)
    first, *rest = (line.rstrip() for line in text.split("\n"))
    lines = _unframed([first.strip(), *_unstarred(rest, column)])
    return "\n".join([first.strip(), _aligned(lines[1:])]) if first and lines[:1] == [first.strip()] else _aligned(lines)


def _unstarred(lines: list[str], column: int) -> list[str]:
    """The lines behind the first of a block that opens in `column`, each without the star of its frame."""
    said = [line for line in lines if line.strip()]
    if said and all(STAR.match(line) for line in said):
        return [STAR.sub("", line, count=1) for line in lines]
    near = re.compile(rf"\s{{0,{column + FRAME_COLUMNS}}}\*")
    if said and near.match(said[0]):
        return [STAR.sub("", line, count=1) if near.match(line) else line for line in lines]
    return lines


def _of_lines(comment: Sequence[str]) -> list[str]:
    """`// ...`, `/// ...`: without the lines that are for tools."""
    return [re.sub(r"^//[/!]?", "", line.strip()).rstrip() for line in comment if not DIRECTIVE.fullmatch(line.strip())]
