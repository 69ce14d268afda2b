"""Code between Markdown fences."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

OPENING: Final = re.compile(r"([ \t>]*)(`{3,}(?=[^`\r\n]*[\r\n]|[^`\r\n]*\Z)|~{3,})[ \t]*([^\r\n]*)")
"""Indentation (any, since fences stand in lists and quotes too), the marks, the info string. "```x```" in one line is no fence."""


@dataclass(frozen=True, slots=True)
class Fence:
    """One fenced block. `text[start:end]` is it with both marks; `code` is what stands between, without the fence's indentation."""

    tag: str
    """The first word of the info string, in lower case; empty without one."""
    code: str
    start: int
    end: int
    closed: bool


def find_fences(text: str) -> list[Fence]:
    """The fenced blocks of a text, by the rules of CommonMark 0.31, section 4.5, with any indentation.

    A block ends at a line of the same mark, at least as long, and nothing else; one that does not is open to the end of the text.

    >>> [(fence.tag, fence.code, fence.closed) for fence in find_fences("so:\\n```Python 3\\nx = 1\\n```\\nand\\n~~~\\ny")]
    [('python', 'x = 1\\n', True), ('', 'y', False)]
    """
    if "```" not in text and "~~~" not in text:
        return []
    fences: list[Fence] = []
    opening: re.Match[str] | None = None
    code: list[str] = []
    start = position = 0
    for line in re.split(r"(?<=\n)|(?<=\r)(?!\n)", text):
        if opening is None:
            opening, start, code = OPENING.match(line), position, []
        elif _closes(line, opening[2]):
            fences.append(_fence(opening, code, start, position + len(line), closed=True))
            opening = None
        else:
            code.append(_outdented(line, opening[1]))
        position += len(line)
    if opening is not None:
        fences.append(_fence(opening, code, start, position, closed=False))
    return fences


def outside_fences(text: str, rewrite: Callable[[str], str]) -> str:
    """The text with `rewrite` applied to each part that stands outside its fenced blocks.

    >>> outside_fences("a\\n```\\na\\n```\\na", str.upper)
    'A\\n```\\na\\n```\\nA'
    """
    parts, position = [], 0
    for fence in find_fences(text):
        parts += [rewrite(text[position:fence.start]), text[fence.start:fence.end]]
        position = fence.end
    return "".join([*parts, rewrite(text[position:])])


def prose_of(text: str) -> str:
    """The text without its fenced blocks.

    >>> prose_of("so:\\n```\\nx = 1\\n```\\ndone")
    'so:\\ndone'
    """
    prose, position = [], 0
    for fence in find_fences(text):
        prose.append(text[position:fence.start])
        position = fence.end
    return "".join([*prose, text[position:]])


def _closes(line: str, marks: str) -> bool:
    bare = line.strip(" \t>\r\n")
    return len(bare) >= len(marks) and set(bare) == {marks[0]}


def _outdented(line: str, indentation: str) -> str:
    """The line without as much of the fence's own indentation as it has."""
    shared = 0
    while shared < min(len(line), len(indentation)) and line[shared] == indentation[shared]:
        shared += 1
    return line[shared:]


def _fence(opening: re.Match[str], code: list[str], start: int, end: int, *, closed: bool) -> Fence:
    words = re.split(r"[\s,{}:]+", opening[3].lstrip("{. "), maxsplit=1)
    return Fence(words[0].lower(), "".join(code), start, end, closed)
