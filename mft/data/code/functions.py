"""One function of a language other than Python, as exact lines of its file."""

from dataclasses import dataclass
from typing import Literal

from mft.data.code.languages import CodeLanguage

LeftOutReason = Literal["gitignored", "excluded", "vendored", "build_output", "generated", "minified", "too_large"]


@dataclass(frozen=True, slots=True)
class CodeFunction:
    """One function of a file. `fault` says why no row is made of it, or is None.

        5  /**                                  path 'A.java'   line 8   name 'A.twice'   language 'java'
        6   * Twice x.                          lines[doc_start:doc_end]     the doc comment's own lines (none: doc_start == doc_end)
        7   */
        8  int twice(int x) {                   lines[doc_end:body_start]    head, its last line opens the body
        9      return 2 * x;                    lines[body_start:]           body, its last line closes it
        10 }

    Attributes and decorators that stand above the doc comment are `lines[:doc_start]`.
    """

    path: str
    line: int
    """Where the function itself begins, behind its doc comment."""
    name: str
    """With the names of its classes, modules and namespaces, joined as the language joins them."""
    language: CodeLanguage
    lines: tuple[str, ...]
    doc_start: int
    doc_end: int
    body_start: int
    docstring: str | None
    """The doc comment's text without its markers."""
    fault: str | None

    @property
    def undocumented(self) -> tuple[str, ...]:
        """All lines but those of the doc comment."""
        return self.lines[:self.doc_start] + self.lines[self.doc_end:]


@dataclass(frozen=True, slots=True)
class LeftOutFile:
    """A file of the tree that is not read; `mft.data.code.files.walk_tree` says when."""

    path: str
    reason: LeftOutReason
