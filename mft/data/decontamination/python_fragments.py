"""Python functions, and bodies without their signature, found in text: in fences, between prose, cut out of a class."""

import ast
import re
import textwrap
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

FENCED = re.compile(r"^[ \t]*(?:```|~~~)[^\n]*\n(.*?)(?:^[ \t]*(?:```|~~~)|\Z)", re.MULTILINE | re.DOTALL)
FUNCTION_LINE = re.compile(r"^[ \t]*(?:async[ \t]+)?def[ \t]+\w+[ \t]*\(", re.MULTILINE)
STATEMENT = re.compile(r"^[ \t]*(?:return\b|for\b.*:|while\b.*:|if\b.*:|\w[\w.\[\], ]*[-+*/%]?=[^=])", re.MULTILINE)
"""A line that makes a text worth parsing as the body of a function."""

DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)
"""Statements that are no body by themselves."""

MOST_LINES = 300
"""Lines of a function or of a run that are read; the longest solution of HumanEval has 42."""

SHORTENED = 3
"""Last lines that are left out one by one where a text does not parse: prose behind code may be indented too."""


@dataclass(frozen=True, slots=True)
class Fragment:
    """Statements found in text, and the function whose body they are, where its signature was found."""

    body: list[ast.stmt]
    function: ast.FunctionDef | ast.AsyncFunctionDef | None = None


def fragments(text: str, messages: list[str]) -> Iterator[Fragment]:
    """The functions anywhere in the joined text, those inside others too; then the statements of each message that stand in no function.

    The text is joined because a signature and its body may stand in two turns.
    """
    if "def" in text:
        for source in function_sources(text):
            tree = _parse_shortened(source)
            for node in ast.walk(tree) if tree else ():
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield Fragment(node.body, node)
    for message in messages:
        for source in dict.fromkeys(_loose_statements(message)):
            tree = _parse_shortened(source)
            if tree and not all(isinstance(statement, DEFINITIONS) for statement in tree.body):
                yield Fragment(tree.body)


def function_sources(text: str) -> Iterator[str]:
    """Each outermost function: its `def` line and all below it that is indented deeper, blank, a comment, or inside a string or bracket."""
    lines = [line.expandtabs(8) for line in text.split("\n")]
    end = 0
    for first in [number for number, line in enumerate(lines) if FUNCTION_LINE.match(line)]:
        if first < end:
            continue        # inside the function before
        end, in_string, depth = first, False, 0
        while end < min(len(lines), first + MOST_LINES):
            bare = lines[end].strip()
            inside = in_string or depth > 0 or not bare or bare.startswith("#")
            if end > first and not inside and _indent(lines[end]) <= _indent(lines[first]):
                break
            in_string ^= (bare.count('"""') + bare.count("'''")) % 2 == 1
            if end == first or depth > 0:
                depth += _opened(bare)      # of the signature alone, which may go over several lines
            end += 1
        yield textwrap.dedent("\n".join(lines[first:end]))


def _opened(line: str) -> int:
    """Brackets that a line of a signature leaves open."""
    return sum(map(line.count, "([{")) - sum(map(line.count, ")]}"))


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _loose_statements(message: str) -> Iterator[str]:
    """What may be the body of a function that is not there: the whole message, what stands in fences, and runs of indented lines."""
    if not STATEMENT.search(message):
        return
    texts = [message, *(match.group(1) for match in FENCED.finditer(message))]
    for text in [*texts, *_indented_runs(message)]:
        if STATEMENT.search(text) and text.count("\n") < MOST_LINES:
            yield textwrap.dedent("\n".join(line.expandtabs(8) for line in text.strip("\n").split("\n")))


def _indented_runs(message: str) -> Iterator[str]:
    """Runs of indented lines that do not stand right below a `def` line: that function is read already."""
    run: list[str] = []
    above = ""
    for line in [*message.split("\n"), "."]:
        if not line.strip() or line[0] in " \t" or (run and line[0] == "#"):
            run.append(line)
            continue
        if run and not FUNCTION_LINE.match(above):
            yield "\n".join(run)
        run, above = [], line


def parse(source: str) -> ast.Module | None:
    """The tree of a text, or None where it is no Python of this version."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")     # an invalid escape in somebody's string
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _parse_shortened(source: str) -> ast.Module | None:
    """The tree of a text, if need be without its last lines."""
    lines = source.rstrip().split("\n")
    for end in range(len(lines), max(0, len(lines) - SHORTENED - 1), -1):
        if tree := parse("\n".join(lines[:end])):
            return tree
    return None
