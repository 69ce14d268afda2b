"""The second wall: one worker's own, and the mother that forks the workers.

    jail, in which the mother waits       the root folder, bound read-only; no network, no capability
      ward, one a worker                  user, pid, mount, network, IPC, UTS and cgroup namespaces; /tmp, /proc
        tests of the program at hand      a child of the worker: the benchmark's own text, with nothing but plain values from outside
        cell, one a solution              user, pid, mount, IPC, UTS and cgroup namespaces again; /tmp, /proc (`cell`)

A ward's programs come one after the other: when a program's judging ends, the worker, process 1 here, kills every process below it. So a
cell needs no network namespace of its own: the ward's has no device that is up, and nobody but one program's processes is ever in it.
Nothing of one program's tests is left for the next one either: a ward whose tests left a file in /tmp ends, and another takes its place.
"""

import contextlib
import importlib
import json
import os
import signal
import socket
from collections.abc import Mapping
from typing import Any

from . import system
from .cell import INSIDE_ID, private_places
from .sides import forget_own_modules
from .worker import READY, Sides, heap_stays, serve


def tend(control: socket.socket, plan: Mapping[str, Any], sides: Sides) -> None:
    """The mother: a worker for every message, which serves on the descriptor that came with it. Until the other end is closed."""
    for name in plan["preload"]:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    forget_own_modules()
    heap_stays()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)       # nobody asks how a worker ended
    control.send(READY)
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 64, 1)
        if not message:
            return
        with socket.socket(fileno=descriptors[0]) as worker:
            _open_ward(worker, control, plan, sides)


def _open_ward(own: socket.socket, mothers: socket.socket, plan: Mapping[str, Any], sides: Sides) -> None:
    """In the mother it returns at once; the child serves and ends."""
    uid, gid = os.getuid(), os.getgid()
    if os.fork() if plan["bare"] else system.fork_into(system.CLONE_NEWUSER | system.ALL_BUT_USER):
        return
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        mothers.close()
        if not plan["bare"]:
            system.prctl(system.PR_SET_PDEATHSIG, signal.SIGKILL)
            system.map_ids(uid, gid, INSIDE_ID)
            private_places(plan["limits"])
            system.drop_capabilities()
            system.prctl(system.PR_SET_DUMPABLE, 0)     # the tests below have the worker's id, and still cannot read or trace it
        serve(own, plan, sides)
    except OSError as error:
        with contextlib.suppress(OSError):
            own.send(json.dumps({"refused": str(error)}).encode())
    finally:
        os._exit(0)
