"""Process 1 of a container: runs one side of a program at a time, and is its only way out.

A container engine carries stdin and stdout and nothing else, so both bear frames (`FRAME`: kind, length; then the bytes). A program never
holds them: what it prints goes to a pipe that is read here, and this process can be neither read nor traced.

| to the container | |
|---|---|
| `T` | a piece of the side's text, for a file in memory; the buffer is wiped, so that a fork inherits none of it |
| `J` | start the side: JSON of `role`, `limits`, `longest_s` |
| `D` | bytes for the side's connection; an empty frame closes it |

| from it | |
|---|---|
| `R` | ready: JSON of what this container is |
| `D` | bytes from the side's connection |
| `W` | seconds that the side's processes stood in the kernel's queue for a CPU, every WATCH_S |
| `E` | the side and all that it left are dead: JSON of `how`, `code`, `said`, `verdict`, `spent` |

When stdin ends, this process ends, and with process 1 the kernel ends the container: nobody has to ask the engine for it.
"""

import json
import os
import platform
import select
import signal
import socket
import struct
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from . import system
from .cell import NOT_BUILT, kill_below, open_cell, resident_bytes, waited_s
from .foreign import foreign_side
from .sides import forget_own_modules, solution_side, tests_side
from .whole import whole_side

FRAME = struct.Struct("<cI")
PIECE_BYTES = 1 << 16
VERDICT_BYTES, SAID_BYTES = 1 << 14, 1000
WATCH_S = 0.1


def main(packages: list[str]) -> None:
    """Never returns. `packages`: whose versions are told, where they are installed."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)    # process 1 gets no signal that has no handler
    ready = facts(packages)
    system.prctl(system.PR_SET_NO_NEW_PRIVS, 1)
    system.forbid_namespaces()
    system.prctl(system.PR_SET_DUMPABLE, 0)
    forget_own_modules()
    os.set_blocking(1, False)
    capsule = _Capsule()
    capsule.say(b"R", json.dumps(ready).encode())
    with suppress(EOFError, BrokenPipeError):
        while True:
            capsule.serve()
    os._exit(0)


def facts(packages: list[str]) -> dict[str, Any]:
    """What a probe must know of this container, and what a score's protocol says of it."""
    from importlib.metadata import PackageNotFoundError, version

    def found(name: str) -> str | None:
        with suppress(PackageNotFoundError):
            return version(name)
        return None

    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    devices = Path("/proc/net/dev").read_text().splitlines()[2:]
    return {"python": platform.python_version(), "kernel": platform.release(), "machine": platform.machine(),
            "packages": {name: found(name) for name in packages}, "uid": os.getuid(), "pid": os.getpid(),
            "capabilities": int(status["CapPrm"], 16) | int(status["CapEff"], 16), "no_new_privileges": status["NoNewPrivs"].strip() == "1",
            "namespaces": {name: os.readlink(f"/proc/self/ns/{name}") for name in ("pid", "net", "mnt")},
            "devices": sorted(line.split(":")[0].strip() for line in devices),
            "tmp": os.access("/tmp", os.W_OK), "read_only": bool(os.statvfs("/").f_flag & os.ST_RDONLY)}


class _Capsule:
    """The frames, and the side that runs."""

    def __init__(self) -> None:
        self.out = bytearray()
        self.piece = bytearray(PIECE_BYTES)
        self.poll = select.poll()
        self.poll.register(0, select.POLLIN)
        self.poll.register(1, 0)

    # -- frames

    def say(self, kind: bytes, data: bytes) -> None:
        self.out += FRAME.pack(kind, len(data)) + data
        self.flush()

    def flush(self) -> None:
        with suppress(BlockingIOError):
            while self.out:
                del self.out[:os.write(1, self.out)]

    def read(self, count: int) -> memoryview:
        """So many bytes of stdin, in a buffer that the next call overwrites."""
        view, have = memoryview(self.piece)[:count], 0
        while have < count:
            got = os.readv(0, [view[have:]])
            if not got:
                raise EOFError
            have += got
        return view

    def frame(self) -> tuple[bytes, memoryview]:
        kind, length = FRAME.unpack(self.read(FRAME.size))
        return kind, self.read(length)

    # -- one side

    def serve(self) -> None:
        """One side from its text to the death of its last process."""
        text = os.memfd_create("text", os.MFD_CLOEXEC)
        try:
            while True:
                kind, data = self.frame()
                if kind == b"J":
                    break
                if kind == b"T":        # else it was for the side before
                    os.write(text, data)
                    data[:] = bytes(len(data))
            self._run(json.loads(bytes(data)), text)
        finally:
            os.close(text)

    def _run(self, job: Mapping[str, Any], text: int) -> None:
        ours, theirs = socket.socketpair()
        verdict, verdict_end = os.pipe()
        output, output_end = os.pipe()
        limits = job["limits"]
        role, keep = _role(job["role"], text, theirs.fileno(), verdict_end)
        cell = open_cell(role, keep=keep, output=output_end, limits=limits, own_walls=False)
        theirs.close()
        os.close(verdict_end)
        os.close(output_end)
        ours.setblocking(False)
        code, how = 0, "ended"
        try:
            how = self._wait(cell, ours, output, limits, time.monotonic() + job["longest_s"])
        finally:
            with suppress(ProcessLookupError):
                os.kill(cell, signal.SIGKILL)
            _, status = os.waitpid(cell, 0)
            code = os.waitstatus_to_exitcode(status)
            kill_below()
            said, told = _rest(output, SAID_BYTES), _rest(verdict, VERDICT_BYTES)
            ours.close()
        spent = any(os.listdir(place) for place in ("/tmp", "/dev/shm") if os.path.isdir(place))
        self.say(b"E", json.dumps({"how": how, "code": code, "said": said if code == NOT_BUILT else "", "verdict": told,
                                   "spent": spent}).encode())

    def _wait(self, cell: int, connection: socket.socket, output: int, limits: Mapping[str, Any], last: float) -> str:
        """Until the side ends: `ended`, or the limit that it went beyond. Meanwhile bytes go both ways."""
        ended = os.pidfd_open(cell)
        inward = bytearray()
        printed, open_connection, look = 0, True, time.monotonic() + WATCH_S
        for descriptor in (ended, output, connection.fileno()):
            self.poll.register(descriptor, select.POLLIN)
        try:
            while time.monotonic() < last:
                self.poll.modify(0, 0 if inward else select.POLLIN)     # no more is taken than the side takes
                if open_connection:
                    self.poll.modify(connection, (select.POLLOUT if inward else 0) | (0 if len(self.out) > PIECE_BYTES else select.POLLIN))
                self.poll.modify(1, select.POLLOUT if self.out else 0)
                events = dict(self.poll.poll(WATCH_S * 1000))
                self.flush()
                if ended in events:
                    self._outward(connection)
                    return "ended"
                if 0 in events:
                    kind, data = self.frame()
                    inward += data
                    if kind == b"D" and not data:
                        connection.shutdown(socket.SHUT_WR)
                if output in events:
                    piece = os.read(output, PIECE_BYTES)
                    printed += len(piece)
                    if printed > limits["output_bytes"]:
                        return "output_limit"
                    if not piece:
                        self.poll.unregister(output)
                if open_connection and events.get(connection.fileno(), 0):
                    open_connection = self._both_ways(connection, inward, events[connection.fileno()])
                if time.monotonic() >= look:
                    look = time.monotonic() + WATCH_S
                    others = [name for name in os.listdir("/proc") if name.isdigit() and name != "1"]
                    if resident_bytes(others) > limits["memory_bytes"]:
                        return "out_of_memory"
                    self.say(b"W", str(waited_s(others)).encode())
            return "timeout"
        finally:
            for descriptor in (ended, output, connection.fileno()):
                with suppress(KeyError):
                    self.poll.unregister(descriptor)
            self.poll.modify(0, select.POLLIN)
            os.close(ended)

    def _both_ways(self, connection: socket.socket, inward: bytearray, events: int) -> bool:
        """What is waiting, each way; False where the side has closed its end."""
        with suppress(BlockingIOError):
            if events & select.POLLOUT:
                try:
                    del inward[:connection.send(inward)]
                except OSError:
                    inward.clear()
            if events & (select.POLLIN | select.POLLHUP) and not self._one_outward(connection):
                self.poll.unregister(connection)
                inward.clear()
                return False
        return True

    def _one_outward(self, connection: socket.socket) -> bool:
        try:
            piece = connection.recv(PIECE_BYTES)
        except ConnectionResetError:
            piece = b""
        if piece:
            self.say(b"D", piece)
        return bool(piece)

    def _outward(self, connection: socket.socket) -> None:
        """What the side still said before it ended."""
        with suppress(OSError):
            while self._one_outward(connection):
                continue


def _role(name: str, text: int, connection: int, verdict: int) -> tuple[Callable[[], None], tuple[int, ...]]:
    """What the forked process does, and the descriptors that it keeps. A solution that is judged apart has no verdict to write."""
    if name == "solution":
        def solution() -> None:
            system.prctl(system.PR_SET_DUMPABLE, 1)     # a process like any other, with a /proc/self that is its own
            solution_side(text, connection)
        return solution, (text, connection)
    if name == "tests":
        return lambda: tests_side(text, connection, verdict), (text, connection, verdict)
    side = {"inside": whole_side, "foreign": foreign_side}[name]
    return lambda: side(text, verdict), (text, verdict)


def _rest(descriptor: int, count: int) -> str:
    """What a pipe holds, which is then closed."""
    os.set_blocking(descriptor, False)
    try:
        return os.read(descriptor, count).decode(errors="replace")
    except BlockingIOError:
        return ""
    finally:
        os.close(descriptor)
