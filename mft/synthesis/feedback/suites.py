"""Python tests as a model writes them -> what the sandbox runs: which names of the solution they use, which tests are called."""

import ast
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from mft.sandbox.judge import Mode
from mft.sandbox.program import PACKAGES, Program

CASE_RUNNER: Final = '''
def _mft_run_case(case):
    import unittest
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    assert result.testsRun and result.wasSuccessful(), f"{len(result.failures)} failed, {len(result.errors)} ended by an exception"
'''
"""For suites of `unittest`."""

OF_A_PROCESS: Final = frozenset({"redirect_stdout", "redirect_stderr", "stdout", "stderr", "stdin", "patch", "Mock", "MagicMock"})
"""Names by which tests reach for what is a solution's process's own."""


class SuiteFault(Exception):
    """Tests that cannot be used, or a solution that cannot be tested; `reason` is one word in snake case."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Defined:
    """A solution's names at the top level. `functions` and `classes` can be called, `others` are variables and imports."""

    functions: frozenset[str]
    classes: frozenset[str]
    others: frozenset[str]

    @property
    def callables(self) -> frozenset[str]:
        """Functions and classes."""
        return self.functions | self.classes


@dataclass(frozen=True, slots=True)
class Suite:
    """Tests ready to run: `text` without the solution's import, `call` starts them, `uses` are the solution's callables in it."""

    text: str
    call: str
    uses: tuple[str, ...]
    tree: ast.Module
    mode: Mode
    """`separate`: the tests call functions and see plain values, so they run in a process of their own. `inside`: they use classes or
    variables of the solution, or what it prints, which is there only in its own process: hardened, and easier to cheat."""

    def program(self, solution: str, name: str = "") -> Program:
        """The program that the sandbox judges."""
        return Program(id=name, solution=solution, tests=self.text, entry_point=self.uses[0], call=self.call)


def parsed(source: str) -> ast.Module | None:
    """The syntax tree, or None for what does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")     # invalid escapes in other people's strings
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def defined_in(solution: str) -> Defined:
    """What a solution defines.

    Raises:
        SuiteFault: `solution_does_not_parse`, `nothing_to_test` (it defines no function and no class).
    """
    tree = parsed(solution)
    if tree is None:
        raise SuiteFault("solution_does_not_parse")
    functions = frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    classes = frozenset(node.name for node in tree.body if isinstance(node, ast.ClassDef))
    if not functions | classes:
        raise SuiteFault("nothing_to_test")
    others = {child.id for node in tree.body for child in ast.walk(node) if isinstance(node, ast.Assign | ast.AnnAssign)
              and isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store)}
    return Defined(functions, classes, frozenset(others))


def read_suite(tests: str, solution: str) -> Suite:
    """Make tests runnable.

    Raises:
        SuiteFault: besides those of `defined_in`: `tests_do_not_parse`, `tests_need_packages` (others than the standard library and numpy),
            `tests_need_fixtures` (test functions with arguments), `tests_redefine_solution`, `tests_ignore_solution`.
    """
    defined = defined_in(solution)
    tree = parsed(tests)
    if tree is None:
        raise SuiteFault("tests_do_not_parse")
    aliases = _Aliases(defined)
    tree = ast.fix_missing_locations(aliases.visit(tree))
    if aliases.packages:
        raise SuiteFault("tests_need_packages")
    if defined.callables & set(_bound(tree)):
        raise SuiteFault("tests_redefine_solution")
    used = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id in defined.callables]
    if not used:
        raise SuiteFault("tests_ignore_solution")
    calls, has_case = _calls(tree)
    needs_inside = any((isinstance(node, ast.Name) and node.id in defined.classes | defined.others | OF_A_PROCESS)
                       or (isinstance(node, ast.Attribute) and node.attr in OF_A_PROCESS) for node in ast.walk(tree))
    text = ast.unparse(tree) + ("\n" + CASE_RUNNER if has_case else "")
    called = [node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
              and node.func.id in defined.callables]
    return Suite(text, "\n".join(calls), tuple(dict.fromkeys([*called, *used])), tree,
                 "inside" if needs_inside else "separate")


class _Aliases(ast.NodeTransformer):
    """Takes the import of the solution out: the sandbox gives the tests its names. `packages`: others that the sandbox has not."""

    def __init__(self, defined: Defined) -> None:
        self.defined = defined
        self.modules: set[str] = set()
        self.names: dict[str, str] = {}
        self.packages: set[str] = set()

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.stmt:
        names = {alias.name for alias in node.names}
        if not _is_known(node.module or "") and (names == {"*"} or names <= self.defined.callables | self.defined.others):
            self.names |= {alias.asname: alias.name for alias in node.names if alias.asname}
            return ast.Pass()
        if not _is_known(node.module or "") or node.level:
            self.packages.add(node.module or ".")
        return node

    def visit_Import(self, node: ast.Import) -> ast.stmt:
        own = [alias for alias in node.names if not _is_known(alias.name)]
        self.modules |= {alias.asname or alias.name for alias in own if alias.name in ("solution", "main", "your_module", "module")}
        self.packages |= {alias.name for alias in own} - {"solution", "main", "your_module", "module"}
        kept = [alias for alias in node.names if alias not in own]
        return ast.Import(kept) if kept else ast.Pass()

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        if isinstance(node.value, ast.Name) and node.value.id in self.modules:
            return ast.Name(node.attr, node.ctx)
        self.generic_visit(node)
        return node

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.Name(self.names.get(node.id, node.id), node.ctx)


def _is_known(module: str) -> bool:
    top = module.split(".")[0]
    return top in sys.stdlib_module_names or top in PACKAGES


def _bound(tree: ast.Module) -> Iterator[str]:
    """Names that the tests themselves bind at the top level: functions, classes, variables."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))


def _calls(tree: ast.Module) -> tuple[list[str], bool]:
    """The statements that start the tests, and whether there is a `unittest` case among them.

    Raises:
        SuiteFault: `tests_need_fixtures`.
    """
    calls, has_case = [], False
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test"):
            if node.args.args or node.args.posonlyargs or node.decorator_list:
                raise SuiteFault("tests_need_fixtures")
            calls.append(f"{node.name}()")
        elif isinstance(node, ast.FunctionDef) and node.name == "check" and len(node.args.args) == 1:
            raise SuiteFault("tests_need_fixtures")
        elif isinstance(node, ast.ClassDef) and any("TestCase" in ast.unparse(base) for base in node.bases):
            calls.append(f"_mft_run_case({node.name})")
            has_case = True
        elif isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            calls += [f"{node.name}().{method.name}()" for method in node.body
                      if isinstance(method, ast.FunctionDef) and method.name.startswith("test")]
    return calls, has_case


def assertions_in(tree: ast.Module) -> Sequence[ast.AST]:
    """All assertions of a suite: `assert`, calls of `assert...` (unittest, numpy), `self.fail`, and `raise AssertionError`."""
    return [node for node in ast.walk(tree) if isinstance(node, ast.Assert) or _is_assert_call(node)
            or (isinstance(node, ast.Raise) and node.exc is not None and "AssertionError" in ast.unparse(node.exc))]


def _is_assert_call(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and (
        node.func.attr.startswith("assert") or node.func.attr == "fail")


def is_constant(assertion: ast.AST) -> bool:
    """True for an assertion that cannot fail whatever the solution does: of constants alone, or of a thing and itself.

    >>> [is_constant(node) for node in ast.parse("assert True; assert 1 == 1; assert x == x; assert f(1) == 1").body]
    [True, True, True, False]
    """
    if isinstance(assertion, ast.Assert):
        test = assertion.test
        if isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.Eq | ast.Is | ast.LtE | ast.GtE):
            return _names_nothing(test) or ast.dump(test.left) == ast.dump(test.comparators[0])
        return _names_nothing(test)
    if isinstance(assertion, ast.Call) and assertion.args:
        values = assertion.args[:2]
        is_equality = isinstance(assertion.func, ast.Attribute) and assertion.func.attr in ("assertEqual", "assertIs", "assertEquals")
        return all(map(_names_nothing, values)) or (is_equality and len({ast.dump(value) for value in values}) == 1 < len(values))
    return False


def _names_nothing(node: ast.AST) -> bool:
    return not any(isinstance(child, ast.Name | ast.Call | ast.Attribute) for child in ast.walk(node))
