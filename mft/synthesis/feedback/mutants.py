"""Broken versions of a Python solution: empty bodies, bodies that return a constant, and mutants with one small mistake each."""

import ast
import copy
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from mft.synthesis.feedback.suites import parsed

CONSTANTS: Final = ("None", "0", "1", "True", "False", "''", "[]", "{}")
"""What a body that does nothing may return."""

OPERATORS: Final[dict[type[ast.operator], type[ast.operator]]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitOr, ast.LShift: ast.RShift, ast.RShift: ast.LShift}
COMPARISONS: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.GtE, ast.LtE: ast.Gt, ast.Gt: ast.LtE, ast.GtE: ast.Lt, ast.In: ast.NotIn,
    ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is}
BOUNDS: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Mutant:
    """A solution with one mistake. `what`: its kind and place, such as `comparison:7`."""

    what: str
    source: str


def empty_bodies(solution: str) -> str:
    """The solution with `pass` for the body of every function and method.

    >>> empty_bodies("def f(x):\\n    return x + 1")
    'def f(x):\\n    pass'
    """
    return _with_bodies(solution, lambda function: ast.Pass())


def constant_bodies(solution: str) -> list[str]:
    """The solution with each of CONSTANTS as the result of every function and method; then with its first argument, unchanged."""
    def returning(value: str) -> Callable[[Function], ast.stmt]:
        return lambda function: ast.Pass() if function.name == "__init__" else ast.parse(f"return {value}").body[0]

    def first_argument(function: Function) -> ast.stmt:
        names = [argument.arg for argument in function.args.args if argument.arg not in ("self", "cls")]
        return ast.parse(f"return {names[0]}" if names and function.name != "__init__" else "pass").body[0]

    return [_with_bodies(solution, returning(value)) for value in CONSTANTS] + [_with_bodies(solution, first_argument)]


def _with_bodies(solution: str, body: Callable[[Function], ast.stmt]) -> str:
    tree = ast.parse(solution)
    for node in ast.walk(tree):
        if isinstance(node, Function):
            node.body = [body(node)]
            node.decorator_list = [each for each in node.decorator_list if isinstance(each, ast.Name | ast.Attribute)]
    return ast.unparse(ast.fix_missing_locations(tree))


def mutants_of(solution: str, most: int) -> list[Mutant]:
    """Up to `most` mutants that differ from the solution and from each other, chosen by hash; the same ones for the same solution.

    Those that change a loop's end come last: many of them never end, and that shows little of a suite.
    """
    tree = parsed(solution)
    if tree is None or not most:
        return []
    found: dict[str, tuple[bool, Mutant]] = {}
    same = ast.unparse(tree)
    for what, looping, change in _changes(tree):
        source = _changed(tree, change)
        if source != same:
            found.setdefault(source, (looping, Mutant(what, source)))
    ordered = sorted(found.values(), key=lambda each: (each[0], hashlib.sha256(each[1].source.encode("utf-8", "surrogatepass")).digest()))
    return [mutant for _, mutant in ordered[:most]]


Change = tuple[int, Callable[[ast.AST], ast.AST]]
"""The place of a node in a walk over the tree, and what becomes of it."""


def _changed(tree: ast.Module, change: Change) -> str:
    place, make = change
    mutated = copy.deepcopy(tree)
    target = next(node for number, node in enumerate(ast.walk(mutated)) if number == place)
    _Replace(target, make(target)).visit(mutated)
    return ast.unparse(ast.fix_missing_locations(mutated))


class _Replace(ast.NodeTransformer):
    def __init__(self, target: ast.AST, by: ast.AST) -> None:
        self.target, self.by = target, by

    def visit(self, node: ast.AST) -> ast.AST:
        return self.by if node is self.target else self.generic_visit(node)


def _changes(tree: ast.Module) -> Iterator[tuple[str, bool, Change]]:
    """(what, does it stand in a `while`, change) of every place inside a function."""
    inside = {child for function in ast.walk(tree) if isinstance(function, Function) for part in function.body for child in ast.walk(part)}
    loops = {child for loop in ast.walk(tree) if isinstance(loop, ast.While) for child in ast.walk(loop)}
    docstrings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)}
    for place, node in enumerate(ast.walk(tree)):
        if node in inside and node not in docstrings:
            for kind, make in _mistakes(node):
                yield f"{kind}:{getattr(node, 'lineno', 0)}", node in loops, (place, make)


def _mistakes(node: ast.AST) -> Iterator[tuple[str, Callable[[ast.AST], ast.AST]]]:
    """What can go wrong at one node: each mistake takes a copy of it."""
    if isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in OPERATORS:
        yield "operator", lambda it: _set(it, op=OPERATORS[type(it.op)]())  # type: ignore[attr-defined]
    elif isinstance(node, ast.Compare):
        if type(node.ops[0]) in BOUNDS:
            yield "bound", lambda it: _set(it, ops=[BOUNDS[type(it.ops[0])](), *it.ops[1:]])  # type: ignore[attr-defined]
        yield "comparison", lambda it: _set(it, ops=[COMPARISONS[type(it.ops[0])](), *it.ops[1:]])  # type: ignore[attr-defined]
    elif isinstance(node, ast.BoolOp):
        yield "logic", lambda it: _set(it, op=ast.Or() if isinstance(it.op, ast.And) else ast.And())  # type: ignore[attr-defined]
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float | str):
        yield "constant", lambda it: ast.Constant(_other(it.value))  # type: ignore[attr-defined]
    elif isinstance(node, ast.If | ast.IfExp):
        yield "condition", lambda it: _set(it, test=ast.UnaryOp(ast.Not(), it.test))  # type: ignore[attr-defined]
    elif isinstance(node, ast.Assign | ast.AugAssign) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
        yield "removed", lambda _: ast.Pass()
    if isinstance(node, ast.AugAssign):
        yield "removed", lambda _: ast.Pass()
    if isinstance(node, ast.Return) and node.value is not None:
        yield "result", lambda it: _set(it, value=ast.Constant(None))


def _set(node: ast.AST, **fields: object) -> ast.AST:
    for name, value in fields.items():
        setattr(node, name, value)
    return node


def _other(value: bool | float | str) -> bool | float | str:
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int | float) else value + "x"
