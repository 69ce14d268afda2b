"""A whole function with its documentation as one text: a fenced block of its language, `make: function` of a code source.

It has no instruction yet. A synthesis reads it as code that waits for one.
"""

import re
from typing import Final

from mft.data.code.functions import CodeFunction
from mft.data.python_functions import Function

BACKQUOTES: Final = re.compile("`+")


def whole_function(function: Function | CodeFunction) -> str:
    """Its lines between fences longer than any backquotes in them; a method stands at the left edge, unless that could change a string.

    >>> print(whole_function(Function("a.py", 2, "A.twice", ("    def twice(self):", "        return 2 * self.x"), 1, 1, None, None)))
    ```python
    def twice(self):
        return 2 * self.x
    ```
    """
    language = function.language if isinstance(function, CodeFunction) else "python"
    code = function.undocumented if isinstance(function, CodeFunction) else function.lines[:function.docstring_start] + function.body
    lines = function.lines if _string_spans_lines(code) else _at_the_left_edge(function.lines)
    marks = "`" * max(3, *(len(run) + 1 for run in BACKQUOTES.findall("\n".join(lines))), 0)
    return "\n".join((f"{marks}{language}", *lines, marks))


def _at_the_left_edge(lines: tuple[str, ...]) -> tuple[str, ...]:
    """The lines without the indentation of the first; as they are where one of them has less."""
    indentation = lines[0][:len(lines[0]) - len(lines[0].lstrip())]
    if any(line.strip() and not line.startswith(indentation) for line in lines):
        return lines
    return tuple(line[len(indentation):] if line.strip() else "" for line in lines)


def _string_spans_lines(code: tuple[str, ...]) -> bool:
    """True where a string may go over several lines, so that their indentation is part of the program: an odd number of its marks in a
    line. A lone mark in a comment counts too; the lines then stay as they are."""
    return any(line.count(mark) % 2 for line in code for mark in ('"', "`", "'''"))
