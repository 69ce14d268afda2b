"""The two processes of a separate judge: the solution, which answers calls, and the tests, which make them and give the verdict."""

import builtins
import importlib
import json
import os
import socket
import sys
import traceback
import types
from contextlib import suppress
from typing import Any

from .peer import Channel, Gone, HandedOver, Peer, RemoteCallable
from .values import NotPlain

READY = ""
"""The name under which a solution says what it defines; no Python name is empty."""
DETAIL = 600
"""Characters of a verdict's detail."""
FRAMES = 40
"""Calls of this file and `peer` that stand below a solution's own; its recursion limit is Python's usual one on top of them."""


def read_text(descriptor: int) -> Any:
    """The JSON value in a file in memory, which is then closed."""
    data, size = b"", os.fstat(descriptor).st_size
    while len(data) < size:
        data += os.pread(descriptor, size - len(data), len(data))
    os.close(descriptor)
    return json.loads(data)


def fresh_module(name: str) -> types.ModuleType:
    """An empty module that `import` finds. It is not `__main__`: a program's command-line part does not run."""
    module = types.ModuleType(name)
    sys.modules[name] = module
    return module


def forget_own_modules() -> None:
    """What a program has no business with goes out of its `sys.modules`: this package, and ctypes, which the worker needed."""
    package = __name__.rpartition(".")[0]
    for name in [name for name in sys.modules if name.split(".")[0] in ("ctypes", "_ctypes") or name.startswith(package)]:
        del sys.modules[name]


def compiled(source: str, name: str) -> types.CodeType:
    """With assertions, whatever the interpreter's options are, and none of this file's `from __future__`."""
    return compile(source, f"<{name}>", "exec", dont_inherit=True, optimize=0)


def run(code: types.CodeType, namespace: dict[str, Any]) -> None:
    exec(code, namespace)


def solution_side(text: int, connection: int) -> None:
    """Run the solution's text, then answer until the tests are done. A text that raises answers every call with that."""
    source = read_text(text)["solution"]
    namespace = vars(fresh_module("solution"))
    sys.setrecursionlimit(1000 + FRAMES)

    def ready() -> list[str]:
        return [name for name in namespace if not name.startswith("__")]

    names: dict[str, Any] = namespace
    try:
        run(compiled(source, "solution"), namespace)
    except BaseException as error:  # noqa: BLE001 - it goes to the tests' side
        caught = error

        def ready() -> list[str]:
            raise caught

        names = {}
    Peer(Channel(socket.socket(fileno=connection)), _Names(names, ready), open_objects=True).serve()


class _Names(dict[str, Any]):
    """The solution's own names as they are at each call, and READY."""

    def __init__(self, namespace: dict[str, Any], ready: Any) -> None:
        super().__init__()
        self.namespace = namespace
        self.ready = ready

    def __contains__(self, name: object) -> bool:
        return name == READY or name in self.namespace

    def __getitem__(self, name: str) -> Any:
        return self.ready if name == READY else self.namespace[name]


def tests_side(text: int, connection: int, verdict: int) -> None:
    """Run the tests against the solution behind the connection, and write the verdict."""
    job = read_text(text)
    peer = Peer(Channel(socket.socket(fileno=connection)), open_objects=False)
    status, detail = _judged(job, peer)
    os.write(verdict, json.dumps({"nonce": job["nonce"], "status": status, "detail": detail[:DETAIL]}).encode())


def _judged(job: dict[str, str], peer: Peer) -> tuple[str, str]:
    try:
        defined = peer.ask(["call", READY])
        namespace = vars(fresh_module("tests"))
        run(compiled(job["prefix"], "prefix"), namespace)
        tests, call = compiled(job["tests"], "tests"), compiled(job["call"], "call")
        _resolve(names_in(tests) | names_in(call), namespace, peer, {*defined}, job["entry_point"])
        run(tests, namespace)
        run(call, namespace)
    except BaseException as error:  # noqa: BLE001 - any end but the last line's is a verdict of its own
        return verdict_of(error, job["tests"])
    return "passed", ""


def _resolve(names: set[str], namespace: dict[str, Any], peer: Peer, defined: set[str], entry_point: str) -> None:
    """Give the tests what they name and do not have: a module of the standard library, else what the solution calls so.

    A module is the tests' own one even where the solution has another thing of that name: it must not check itself.
    """
    for name in names - namespace.keys() - {entry_point}:
        if name in sys.stdlib_module_names:
            with suppress(ImportError):
                namespace[name] = importlib.import_module(name)
        elif name in defined and not hasattr(builtins, name):
            namespace[name] = RemoteCallable(peer, name)
    namespace[entry_point] = RemoteCallable(peer, entry_point)


def names_in(code: types.CodeType) -> set[str]:
    """Every name that compiled text reads, writes or asks an object for, in its functions too.

    >>> sorted(names_in(compile("def check(f):\\n  x = g(f)\\n  assert math.pi", "", "exec")))
    ['check', 'g', 'math', 'pi']
    """
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= names_in(constant)
    return names


def verdict_of(error: BaseException, tests: str) -> tuple[str, str]:
    """(status, detail) of the exception that ended the tests."""
    from_solution = getattr(error, "from_solution", False)
    said = f"{type(error).__name__}: {error}".removesuffix(": ")
    if isinstance(error, Gone):
        return "error", "the solution's process ended before it answered"
    if isinstance(error, HandedOver):
        return "inside", str(error)
    if isinstance(error, MemoryError):
        return "out_of_memory", said
    if isinstance(error, NotPlain):
        return "error", f"the solution answered with what is no plain value: {error}"
    line = next((frame.lineno for frame in reversed(traceback.extract_tb(error.__traceback__)) if frame.filename == "<tests>"), None)
    lines = tests.splitlines()
    where = lines[line - 1].strip() if line and line <= len(lines) else ""
    if isinstance(error, AssertionError) and not from_solution:
        return "failed", f"{where}  # {error}" if str(error) else where or "an assertion"
    return "error", f"{said}, at: {where}" if where else said
