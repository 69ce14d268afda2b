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
import signal
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .cell import NOT_BUILT, OUT_OF_MEMORY, open_cell
from .foreign import foreign_side
from .sides import solution_side, tests_side
from .whole import whole_side

JOB_BYTES = 1 << 16
LONGEST_WAIT = 4.0
"""A deadline moves while the kernel lets a program wait for a CPU, up to this many times the time allowed."""


def serve(control: socket.socket, plan: Mapping[str, Any]) -> None:
    """Until the other end is closed."""
    for name in plan["preload"]:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()         # what is here stays: a fork need not look at it, nor copy its pages
    control.send(json.dumps({"ready": os.getpid()}).encode())
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, JOB_BYTES, 4)
        if not message:
            return
        job = json.loads(message)
        try:
            report = _run(job, descriptors, plan["limits"] | job["limits"])
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        control.send(json.dumps(report).encode())


def _run(job: Mapping[str, Any], descriptors: list[int], limits: Mapping[str, Any]) -> dict[str, Any]:
    """One program from its start to the death of its last process."""
    read, write = os.pipe()
    cells: list[int] = []
    started = time.monotonic()
    try:
        if job["mode"] == "separate":
            solution, tests, verdict = descriptors
            ours, theirs = socket.socketpair()
            with ours, theirs:
                a, b = ours.fileno(), theirs.fileno()
                cells.append(open_cell(lambda: solution_side(solution, a), keep=(solution, a), output=write, limits=limits))
                cells.append(open_cell(lambda: tests_side(tests, b, verdict), keep=(tests, b, verdict), output=write, limits=limits))
        else:
            text, verdict = descriptors
            side = foreign_side if job["mode"] == "foreign" else whole_side
            cells.append(open_cell(lambda: side(text, verdict), keep=(text, verdict), output=write, limits=limits))
        os.close(write)
        write = -1
        how = _wait(cells, read, started, job["timeout_s"], limits["output_bytes"])
        seconds = time.monotonic() - started
    finally:
        if write >= 0:
            os.close(write)
        codes = [_end(cell) for cell in cells]
        said = os.read(read, 1000) if NOT_BUILT in codes else b""
        os.close(read)
    return {"how": "out_of_memory" if OUT_OF_MEMORY in codes else how, "seconds": seconds, "codes": codes, "said": said.decode(errors="replace")}


def _wait(cells: list[int], output: int, started: float, timeout_s: float, output_bytes: int) -> str:
    """Until the judge's process (the last one) ends: `ended`, `timeout` or `output_limit`."""
    judge = os.pidfd_open(cells[-1])
    poll = select.poll()
    poll.register(judge, select.POLLIN)
    poll.register(output, select.POLLIN)
    printed, allowed = 0, timeout_s
    try:
        while True:
            left = started + allowed - time.monotonic()
            events = dict(poll.poll(max(0, left * 1000)))
            if judge in events:
                return "ended"
            if output in events:
                piece = os.read(output, 1 << 16)
                printed += len(piece)
                if printed > output_bytes:
                    return "output_limit"
                if not piece:
                    poll.unregister(output)
            if left <= 0:
                extended = min(timeout_s + _waited(cells), timeout_s * LONGEST_WAIT)
                if extended <= allowed + 0.01:
                    return "timeout"
                allowed = extended
    finally:
        os.close(judge)


def _waited(cells: list[int]) -> float:
    """Seconds that the processes of the cells stood in the kernel's queue for a CPU."""
    total = 0.0
    for cell in cells:
        with contextlib.suppress(OSError, ValueError, IndexError):
            for pid in [str(cell), *Path(f"/proc/{cell}/task/{cell}/children").read_text().split()]:
                total += int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    return total


def _end(cell: int) -> int:
    """Kill a cell and everything in it; its exit code (a signal's number negative)."""
    with contextlib.suppress(ChildProcessError):
        ended, status = os.waitpid(cell, os.WNOHANG)
        if not ended:
            os.kill(cell, signal.SIGKILL)
            _, status = os.waitpid(cell, 0)
        return os.waitstatus_to_exitcode(status)
    return 0
