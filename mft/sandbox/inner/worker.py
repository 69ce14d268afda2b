"""The warm parent: serves jobs, each in fresh sandboxes, and reads nothing of what it passes on.

A job is one message on the control socket, its texts files in memory that only the forked sides read. So the memory that a solution
inherits by the fork holds neither its tests nor another program's.
"""

import contextlib
import gc
import importlib
import json
import os
import select
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .cell import NOT_BUILT, OUT_OF_MEMORY, open_cell
from .foreign import foreign_side
from .sides import solution_side, tests_side
from .whole import whole_side

JOB_BYTES, SAID_BYTES = 1 << 16, 1000
READY = b'{"ready": true}'
MOST_CHILDREN = 8
LONGEST_WAIT = 4.0
"""A deadline moves while the kernel lets a program wait for a CPU, up to this many times the time allowed."""


def serve(control: socket.socket, plan: Mapping[str, Any]) -> None:
    """Until the other end is closed."""
    for name in plan["preload"]:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()         # what is here stays: a fork need not look at it, nor copy its pages
    control.send(READY)
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, JOB_BYTES, 4)
        if not message:
            return
        job = json.loads(message)
        if "another" in job:
            control = _another(control, descriptors[0])
            continue
        try:
            report = _run(job, descriptors, plan["limits"] | job["limits"], plan["bare"], control)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        control.send(json.dumps(report).encode())


def _another(control: socket.socket, descriptor: int) -> socket.socket:
    """A second worker, forked from this one, which serves on that descriptor; each goes on with its own socket."""
    fresh = socket.socket(fileno=descriptor)
    if os.fork():
        fresh.close()
        return control
    control.close()
    fresh.send(READY)
    return fresh


def _run(job: Mapping[str, Any], descriptors: list[int], limits: Mapping[str, Any], bare: bool,
         control: socket.socket) -> dict[str, Any]:
    """One program from its start to the death of its last process."""
    read, write = os.pipe()
    cells: list[int] = []
    folder = tempfile.mkdtemp() if bare else None
    started = time.monotonic()
    try:
        _open_cells(job["mode"], descriptors, cells, {"output": write, "limits": limits, "bare": folder})
        os.close(write)
        write = -1
        how = _wait(cells, read, control, started + job["timeout_s"], limits["output_bytes"])
        seconds = time.monotonic() - started
    finally:
        if write >= 0:
            os.close(write)
        codes = [_end(cell, group=bare) for cell in cells]
        said = os.read(read, SAID_BYTES) if NOT_BUILT in codes else b""
        os.close(read)
        if folder:
            shutil.rmtree(folder, ignore_errors=True)
    return {"how": "out_of_memory" if OUT_OF_MEMORY in codes else how, "seconds": seconds, "codes": codes,
            "said": said.decode(errors="replace")}


def _open_cells(mode: str, descriptors: list[int], cells: list[int], options: Mapping[str, Any]) -> None:
    """The sandboxes of a job, that of the verdict last."""
    if mode != "separate":
        text, verdict = descriptors
        side = foreign_side if mode == "foreign" else whole_side
        cells.append(open_cell(lambda: side(text, verdict), keep=(text, verdict), **options))
        return
    solution, tests, verdict = descriptors
    ours, theirs = socket.socketpair()
    with ours, theirs:
        a, b = ours.fileno(), theirs.fileno()
        cells.append(open_cell(lambda: solution_side(solution, a), keep=(solution, a), **options))
        cells.append(open_cell(lambda: tests_side(tests, b, verdict), keep=(tests, b, verdict), **options))


def _wait(cells: list[int], output: int, control: socket.socket, deadline: float, output_bytes: int) -> str:
    """Until the judge's process (the last one) ends: `ended`, `timeout` or `output_limit`. Leaves at once where nobody waits any more."""
    judge = os.pidfd_open(cells[-1])
    poll = select.poll()
    poll.register(judge, select.POLLIN)
    poll.register(output, select.POLLIN)
    poll.register(control, 0)           # no event but that the other end is closed
    printed, extended = 0, 0.0
    timeout_s = deadline - time.monotonic()
    try:
        while True:
            left = deadline + extended - time.monotonic()
            events = dict(poll.poll(max(0, left * 1000)))
            if judge in events:
                return "ended"
            if control.fileno() in events:
                raise SystemExit
            if output in events:
                piece = os.read(output, 1 << 16)
                printed += len(piece)
                if printed > output_bytes:
                    return "output_limit"
                if not piece:
                    poll.unregister(output)
            if left <= 0:
                waited = min(_waited(cells), timeout_s * (LONGEST_WAIT - 1))
                if waited <= extended + 0.01:
                    return "timeout"
                extended = waited
    finally:
        os.close(judge)


def _waited(cells: list[int]) -> float:
    """Seconds that the processes of the cells stood in the kernel's queue for a CPU."""
    total = 0.0
    family = [str(cell) for cell in cells]
    for pid in family:              # grows while it is gone through
        with contextlib.suppress(OSError, ValueError, IndexError):
            total += int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
            family += Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[:MOST_CHILDREN]
    return total


def _end(cell: int, *, group: bool) -> int:
    """Kill a cell and everything in it; its exit code (a signal's number negative). `group`: without namespaces, the session it leads."""
    with contextlib.suppress(ChildProcessError):
        ended, status = os.waitpid(cell, os.WNOHANG)
        if group:
            with contextlib.suppress(OSError):
                os.killpg(cell, signal.SIGKILL)
        if not ended:
            os.kill(cell, signal.SIGKILL)
            _, status = os.waitpid(cell, 0)
        return os.waitstatus_to_exitcode(status)
    return 0
