"""The judge inside the program's own process: for what a separate judge cannot do. Hardened, not proven.

Two processes: the clerk has the tests, the secret and the descriptor of the verdict, and can be neither read nor traced; its child runs
the solution, then asks for the tests, and must give the clerk the token that came with them after the last one. In between a guard that
Python code cannot take off refuses what would lead from a solution to the frames around it: frames, the garbage collector's lists, ctypes.

What it does not hold against: a solution that plays the child's part (it has the child's descriptors), and one that answers with an
object which is equal to everything. Neither is possible where solution and tests are separate processes.
"""

import builtins
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

from . import system
from .sides import DETAIL, compiled, fresh_module, read_text, run, verdict_of

MESSAGE_BYTES = 1 << 24
TOKEN_BYTES = 16

REFUSED = frozenset({"gc.get_objects", "gc.get_referrers", "gc.get_referents", "sys._current_frames", "sys._current_exceptions",
                     "sys.settrace", "sys.setprofile", "code.__new__", "os.exec", "os.posix_spawn", "os.spawn"})
FRAMES = frozenset({"tb_frame", "gi_frame", "cr_frame", "ag_frame"})
LOOKS_UP = ("/collections/__init__.py", "/typing.py", "/enum.py", "/dataclasses.py")
"""Files of the standard library that look at their caller's frame and give it to nobody."""


def whole_side(text: int, verdict: int) -> None:
    """The clerk."""
    job = read_text(text)
    system.prctl(system.PR_SET_DUMPABLE, 0)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    solution, nonce = job["solution"], job.pop("nonce")
    child = os.fork()
    if not child:
        try:
            ours.close()
            os.close(verdict)
            job.clear()
            _child(solution, theirs.detach())
        finally:
            os._exit(1)
    theirs.close()
    status, detail = _clerk(ours, job)
    os.write(verdict, json.dumps({"nonce": nonce, "status": status, "detail": detail[:DETAIL]}).encode())


def _clerk(child: socket.socket, job: Mapping[str, str]) -> tuple[str, str]:
    token = os.urandom(TOKEN_BYTES)
    child.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MESSAGE_BYTES)
    try:
        asked = child.recv(DETAIL * 8)
        if asked != b"tests":
            return _told(asked)
        child.send(token + json.dumps([job["tests"], job["call"]]).encode())
        said = child.recv(DETAIL * 8)
    except OSError as error:
        return "error", f"the judge inside broke off: {error}"
    return ("passed", "") if said == token else _told(said)


def _told(message: bytes) -> tuple[str, str]:
    """A verdict that is none of `passed`: it needs no token."""
    if not message:
        return "error", "the program's process ended before its tests did"
    status, _, detail = message.decode(errors="replace").partition("\n")
    return (status, detail) if status in ("failed", "error", "out_of_memory") else ("error", "the judge inside was tampered with")


def _child(solution: str, descriptor: int) -> None:
    """Everything that is needed after the solution has run is taken before it: what the solution does to modules changes nothing here."""
    write, read, loads, leave, judge, execute = os.write, os.read, json.JSONDecoder().raw_decode, os._exit, verdict_of, run
    compile_text, own_builtins, reset_signal, fill, wipe = compiled, dict(vars(builtins)), signal.setitimer, dict.update, dict.clear
    errors, as_bytes, join = BaseException, str.encode, "\n".join
    tests = ""
    stop = _guard()
    try:
        namespace = vars(fresh_module("solution"))
        execute(compile_text(solution, "solution"), namespace)
        live = vars(builtins)
        wipe(live)
        fill(live, own_builtins)
        reset_signal(signal.ITIMER_REAL, 0)
        namespace.pop("__builtins__", None)
        write(descriptor, b"tests")
        answer = read(descriptor, MESSAGE_BYTES)
        (tests, call), _ = loads(answer[TOKEN_BYTES:].decode())
        execute(compile_text(tests, "tests"), namespace)
        execute(compile_text(call, "call"), namespace)
        write(descriptor, answer[:TOKEN_BYTES])
    except errors as error:
        stop()
        status, detail = judge(error, tests)
        write(descriptor, as_bytes(join([status, detail[:DETAIL]]), errors="replace"))
    finally:
        leave(0)


def _guard() -> Callable[[], None]:
    """Refuse, from here to the end of this process, what leads to other frames; returns what ends it, which nobody else can find."""
    on, looking = [True], set()
    frame_of, starts, thread = sys._getframe, str.startswith, threading.get_ident

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        if not on or thread() in looking:
            return
        if event == "sys._getframe":
            looking.add(thread())
            caller = frame_of(1).f_code.co_filename
            looking.discard(thread())
            if caller.endswith(LOOKS_UP):
                return
        elif event == "object.__getattr__":
            if arguments[1] not in FRAMES:
                return
        elif event == "import":
            if arguments[0] not in ("ctypes", "_ctypes", "_testcapi", "_xxsubinterpreters"):
                return
        elif event == "compile":
            if not isinstance(arguments[1], str) or not arguments[1].endswith(LOOKS_UP):
                return
        elif event not in REFUSED and not starts(event, "ctypes."):
            return
        raise RuntimeError(f"{event} is refused where a solution is judged in the process of its tests")

    sys.addaudithook(look)
    return on.clear
