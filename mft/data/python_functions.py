"""The functions of a tree of Python files, as exact slices of their source lines.

    1  class A:                              path  'a.py'    line  2    name  'A.double'
    2      @cache                            lines[0]        first decorator, or `def`
    3      def double(self, x):              lines[docstring_start:body_start]   the docstring's own lines ('' if none)
    4          \"""Twice x.\"""              lines[body_start:]                   the body, to its last line
    5          return 2 * x
"""

import ast
import logging
import tokenize
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from inspect import cleandoc
from pathlib import Path

from mft.data.function_limits import MAX_LINES, MIN_BODY_LINES
from mft.data.walk import source_files

logger = logging.getLogger(__name__)

BLOCKS = ("body", "handlers", "cases", "orelse", "finalbody")
"""Where the statements inside a statement are, in the order of the source."""

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Function:
    """One function of a file. `fault` says why no row is made of it, or is None."""

    path: str
    line: int
    name: str
    lines: tuple[str, ...]
    docstring_start: int
    body_start: int
    docstring: str | None
    fault: str | None

    @property
    def body(self) -> tuple[str, ...]:
        """Lines of the body, without the docstring."""
        return self.lines[self.body_start:]


@dataclass(frozen=True, slots=True)
class UnreadableFile:
    """A file that gives no function: `not_text` (it is not in UTF-8, for Python in its declared coding) or `does_not_parse`."""

    path: str
    reason: str
    detail: str


def read_tree(root: Path, exclude: Sequence[str] = ()) -> Iterator[Function | UnreadableFile]:
    """Every function of every `.py` file under `root`, in the order of path and line. Newlines are read as `\\n`."""
    for relative, path in source_files(root, ".py", exclude):
        yield from read_file(relative, path)


def read_file(relative: str, path: Path) -> Iterator[Function | UnreadableFile]:
    """The functions of one file, or the one thing that is wrong with it; `relative` is its path within the tree."""
    try:
        with tokenize.open(path) as stream:
            text = stream.read()
    except (SyntaxError, UnicodeDecodeError, OSError) as error:
        yield UnreadableFile(relative, "not_text", str(error))
        return
    try:
        yield from parse_functions(text, relative)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        yield UnreadableFile(relative, "does_not_parse", str(error))


def parse_functions(text: str, path: str) -> list[Function]:
    """The functions of one source text, methods and nested ones included.

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: as `ast.parse`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")   # invalid escapes in other people's strings
        tree = ast.parse(text)
    lines = text.split("\n")
    return [_function(node, name, nested, lines, path) for node, name, nested in _nodes(tree, "", False)]


def _nodes(parent: ast.AST, prefix: str, nested: bool) -> Iterator[tuple[FunctionNode, str, bool]]:
    """(node, qualified name, inside another function?) of each function below a node; expressions are not entered."""
    for block in BLOCKS:
        for child in getattr(parent, block, ()):
            if isinstance(child, FunctionNode):
                yield child, prefix + child.name, nested
                yield from _nodes(child, f"{prefix}{child.name}.<locals>.", True)
            elif isinstance(child, ast.ClassDef):
                yield from _nodes(child, f"{prefix}{child.name}.", nested)
            else:
                yield from _nodes(child, prefix, nested)


def _function(node: FunctionNode, name: str, nested: bool, lines: list[str], path: str) -> Function:
    start, end = _first_line(node), node.end_lineno or node.lineno
    own = tuple(lines[start - 1:end])
    first = node.body[0]
    docstring = _docstring(first)
    docstring_start = _first_line(first) - start
    body_start = docstring_start if docstring is None else (first.end_lineno or first.lineno) - start + 1
    statements = node.body[docstring is not None:]
    own_lines = _stands_alone(first, lines) if docstring is not None else _begins_line(first, lines)
    fault = _fault(node, statements, own, body_start, nested, own_lines)
    return Function(path, node.lineno, name, own, docstring_start, body_start, None if docstring is None else cleandoc(docstring), fault)


def _fault(node: FunctionNode, statements: list[ast.stmt], lines: tuple[str, ...], body_start: int, nested: bool,
           own_lines: bool) -> str | None:
    """The first reason why a function is not used, or None."""
    if nested:
        return "nested_function"
    if any(_decorator_name(decorator) == "overload" for decorator in node.decorator_list):
        return "overload_stub"
    if all(_is_placeholder(statement) for statement in statements):
        return "body_is_a_stub"
    if sum(bool(line.strip()) for line in lines[body_start:]) < MIN_BODY_LINES:
        return "body_too_short"
    if len(lines) > MAX_LINES:
        return "too_many_lines"
    return None if own_lines else "unusual_layout"


def _docstring(first: ast.stmt) -> str | None:
    """The text of a body's first statement when that is a string."""
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        return first.value.value
    return None


def _is_placeholder(statement: ast.stmt) -> bool:
    """`pass`, `...` or `raise NotImplementedError`."""
    if isinstance(statement, ast.Raise):
        raised = statement.exc.func if isinstance(statement.exc, ast.Call) else statement.exc
        return isinstance(raised, ast.Name) and raised.id == "NotImplementedError"
    ellipsis = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant) and statement.value.value is ...
    return ellipsis or isinstance(statement, ast.Pass)


def _decorator_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _first_line(node: ast.stmt) -> int:
    """The line where a statement begins, its decorators included."""
    return min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])


def _begins_line(node: ast.stmt, lines: list[str]) -> bool:
    """True when only space stands before a statement in its line. Columns of `ast` count UTF-8 bytes."""
    first = _first_line(node)
    return first < node.lineno or not lines[first - 1].encode()[:node.col_offset].strip()


def _stands_alone(node: ast.stmt, lines: list[str]) -> bool:
    """True when no other code shares the lines of a docstring."""
    after = lines[(node.end_lineno or node.lineno) - 1].encode()[node.end_col_offset:].strip()
    return _begins_line(node, lines) and (not after or after.startswith(b"#"))
