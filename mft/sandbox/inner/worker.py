"""The warm parent: serves jobs, each solution in a fresh sandbox, and reads nothing of what it passes on.

A job is one message on the control socket, its texts files in memory that only the forked sides read. So the memory that a solution
inherits by the fork holds neither its tests nor another program's.
"""

import gc
import json
import os
import select
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from .cell import NOT_BUILT, close_cell, family, kill_below, open_cell, resident_bytes, waited_s
from .sides import solution_side, tests_side

Sides = Mapping[str, Callable[[int, int], None]]
"""Mode -> what runs a program in one sandbox, tests and all: (text, verdict), both descriptors."""
JOB_BYTES, SAID_BYTES = 1 << 16, 1000
READY = b'{"ready": true}'
WATCH_S = 0.1
"""How often the memory of a program's processes is looked at."""
LONGEST_WAIT = 4.0
"""A deadline moves while the kernel lets a program wait for a CPU, up to this many times the time allowed."""


def heap_stays() -> None:
    """What is here stays: no fork need look at it, nor copy its pages."""
    gc.collect()
    gc.freeze()


def serve(control: socket.socket, plan: Mapping[str, Any], sides: Sides) -> None:
    """Until the other end is closed."""
    heap_stays()
    control.send(READY)
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, JOB_BYTES, 4)
        if not message:
            return
        job = json.loads(message)
        try:
            report = _run(job, descriptors, plan["limits"] | job["limits"], plan["bare"], control, sides)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        control.send(json.dumps(report).encode())


def _run(job: Mapping[str, Any], descriptors: list[int], limits: Mapping[str, Any], bare: bool, control: socket.socket,
         sides: Sides) -> dict[str, Any]:
    """One program from its start to the death of its last process."""
    read, write = os.pipe()
    cells: list[int] = []
    folder = _folder() if bare else None
    started = time.monotonic()
    try:
        _open_cells(sides.get(job["mode"]), descriptors, cells, {"output": write, "limits": limits, "bare": folder})
        os.close(write)
        write = -1
        how = _wait(cells, read, control, started + job["timeout_s"], limits, watched=not bare)
        seconds = time.monotonic() - started
    finally:
        if write >= 0:
            os.close(write)
        codes = [close_cell(cell, group=bare) for cell in cells]
        if not bare:
            kill_below()
        said = os.read(read, SAID_BYTES) if NOT_BUILT in codes else b""
        os.close(read)
        if folder:
            _remove(folder)
    return {"how": how, "seconds": seconds, "codes": codes, "said": said.decode(errors="replace"),
            "spent": not bare and bool(os.listdir("/tmp"))}


def _folder() -> str:
    import tempfile  # only without a sandbox: it brings `random`, which every fork would have to seed anew

    return tempfile.mkdtemp()


def _remove(folder: str) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def _open_cells(side: Callable[[int, int], None] | None, descriptors: list[int], cells: list[int], options: Mapping[str, Any]) -> None:
    """The processes of a job, that of the verdict last. No `side`: a solution and its tests, apart."""
    if side is not None:
        text, verdict = descriptors
        cells.append(open_cell(lambda: side(text, verdict), keep=(text, verdict), **options))
        return
    solution, tests, verdict = descriptors
    ours, theirs = socket.socketpair()
    with ours, theirs:
        a, b = ours.fileno(), theirs.fileno()
        cells.append(open_cell(lambda: solution_side(solution, a), keep=(solution, a), **options))
        cells.append(open_cell(lambda: tests_side(tests, b, verdict), keep=(tests, b, verdict), own_walls=False, **options))


def _wait(cells: list[int], output: int, control: socket.socket, deadline: float, limits: Mapping[str, Any], *,
          watched: bool) -> str:
    """Until the judge's process (the last one) ends: `ended`, or what went beyond a limit. Leaves at once where nobody waits any more."""
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
            events = dict(poll.poll(max(0, min(left, WATCH_S) * 1000)))
            if judge in events:
                return "ended"
            if control.fileno() in events:
                raise SystemExit
            if output in events:
                piece = os.read(output, 1 << 16)
                printed += len(piece)
                if printed > limits["output_bytes"]:
                    return "output_limit"
                if not piece:
                    poll.unregister(output)
            elif watched and max(resident_bytes(family(cell)) for cell in cells) > limits["memory_bytes"]:
                return "out_of_memory"
            if left <= 0:
                waited = min(sum(waited_s(family(cell)) for cell in cells), timeout_s * (LONGEST_WAIT - 1))
                if waited <= extended + 0.01:
                    return "timeout"
                extended = waited
    finally:
        os.close(judge)
