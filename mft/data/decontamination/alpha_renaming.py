"""The structure of Python code: what stays when every variable, argument and function has another name."""

import ast
import builtins
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

BUILTINS = frozenset(dir(builtins))

LEFT_OUT = (ast.Import, ast.ImportFrom, ast.Pass, ast.Global, ast.Nonlocal)
"""Statements that may come and go without a change to what a function does."""


@dataclass(frozen=True, slots=True)
class Structure:
    """`key` is equal for bodies that differ in names, comments, docstrings and annotations alone; `nodes` says how much there is of it."""

    key: str
    nodes: int


def structure_of(body: Sequence[ast.stmt], arguments: Iterable[str] = ()) -> Structure:
    """The structure of the body of a function.

    Names are numbered as they come; a builtin (`len`) keeps its name unless the code binds it, attributes and keyword arguments keep
    theirs, and so do constants. Docstrings, annotations and imports are left out.

    >>> one, two = (ast.parse(code).body for code in ("total: int = len(x)\\nreturn total", "n = len(values)\\nreturn n"))
    >>> structure_of(one) == structure_of(two), structure_of(one).nodes
    (True, 7)
    """
    writer = _Writer({*arguments, *_bound_names(body)})
    for statement in body:
        writer.write(statement)
    return Structure(" ".join(writer.words), writer.nodes)


def argument_names(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """The names of all arguments of a function."""
    arguments = function.args
    starred = [argument for argument in (arguments.vararg, arguments.kwarg) if argument]
    return [argument.arg for argument in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *starred]]


def _bound_names(body: Sequence[ast.stmt]) -> set[str]:
    names: set[str] = set()
    for node in (node for statement in body for node in ast.walk(statement)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
    return names


class _Writer:
    """Writes a tree in prefix form, with numbers for names."""

    def __init__(self, bound: set[str]) -> None:
        self.words: list[str] = []
        self.nodes = 0
        self._bound = bound
        self._numbers: dict[str, int] = {}

    def write(self, node: ast.AST) -> None:
        if isinstance(node, LEFT_OUT) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            return
        if isinstance(node, ast.AnnAssign):
            if node.value is None:
                return
            node = ast.Assign(targets=[node.target], value=node.value)
        self.nodes += 1
        self.words.append(f"({type(node).__name__}")
        for name, value in ast.iter_fields(node):
            if name not in ("ctx", "annotation", "returns", "type_comment", "kind", "type_params", "decorator_list"):
                self._write_field(node, name, value)
        self.words.append(")")

    def _write_field(self, node: ast.AST, field: str, value: object) -> None:
        if isinstance(value, ast.AST):
            self.write(value)
        elif isinstance(value, list):
            self.words.append("[")
            for item in value:
                self._write_field(node, field, item)
            self.words.append("]")
        elif isinstance(value, str) and self._is_name(node, field):
            self.words.append(self._renamed(value))
        else:
            self.words.append(repr(value))

    @staticmethod
    def _is_name(node: ast.AST, field: str) -> bool:
        return field in ("id", "arg", "name", "rest") and not isinstance(node, ast.keyword | ast.alias)

    def _renamed(self, name: str) -> str:
        if name in BUILTINS and name not in self._bound:
            return name
        return f"v{self._numbers.setdefault(name, len(self._numbers))}"
