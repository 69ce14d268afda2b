"""The third wall: the sandbox of one solution, in fresh namespaces.

`open_cell` forks; the child is process 1 of its own pid namespace. It builds what is private, gives up all rights and becomes the program.
When it ends, the kernel kills everything that it left. As process 1 it gets no signal that it did not ask for from its own kind.
"""

import os
import resource
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from . import system

INSIDE_ID = 65534
NAMESPACES = system.CLONE_NEWUSER | system.ALL_BUT_USER & ~system.CLONE_NEWNET
"""A cell's own: the network is its ward's, where nobody else is and no device is up."""
NOT_BUILT = 99
"""Exit code of a cell that could not be made; what it printed says why."""
PAGE = os.sysconf("SC_PAGE_SIZE")


def open_cell(role: Callable[[], None], *, keep: Sequence[int], output: int, limits: Mapping[str, Any], bare: str | None = None,
              own_walls: bool = True) -> int:
    """Start `role` alone in a sandbox; returns its process. `keep`: descriptors that stay open; `output`: where it may print.

    `own_walls`: else it is a child of this process within the same walls, with limits of its own.
    `bare`: no sandbox, this folder to work in: what the user insisted on. Then the process leads a session of its own and nothing more.
    """
    uid, gid = os.getuid(), os.getgid()
    own_walls = own_walls and not bare
    pid = system.fork_into(NAMESPACES) if own_walls else os.fork()
    if pid:
        return pid
    code = NOT_BUILT
    try:
        _only(keep, output)
        if own_walls:
            system.prctl(system.PR_SET_DUMPABLE, 1)     # what the worker is not; a process that is not may not write its id maps
            system.map_ids(uid, gid, INSIDE_ID)
            private_places(limits)
            with suppress(OSError):
                system.write("/proc/sys/user/max_user_namespaces", "0")     # a program has no use for namespaces of its own
        os.chdir(bare or "/tmp")
        _limit(limits)
        if own_walls:
            system.drop_capabilities(bounding=False)
        os.setsid()
        os.environ.clear()
        os.environ.update({"HOME": bare or "/tmp", "TMPDIR": bare or "/tmp", "LANG": "C.UTF-8"})
        code = 1
        role()
        code = 0
    except BaseException as error:  # noqa: BLE001 - whatever it was, this process must not go on as a copy of the worker
        with suppress(BaseException):
            os.write(2 if code == 1 else output, f"{type(error).__name__}: {error}\n"[:500].encode(errors="replace"))
    finally:
        os._exit(code)


def _only(keep: Sequence[int], output: int) -> None:
    """stdin says nothing, stdout and stderr are `output`, `keep` stays, all else is closed."""
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    low = 3
    for descriptor in sorted(keep):
        os.closerange(low, descriptor)
        low = descriptor + 1
    os.closerange(low, max(low, resource.getrlimit(resource.RLIMIT_NOFILE)[0]))


def private_places(limits: Mapping[str, Any]) -> None:
    """A /tmp and a /proc of this mount namespace's own."""
    disk = limits["disk_bytes"]
    flags = system.MS_NOSUID | system.MS_NODEV
    system.mount("none", "/", flags=system.MS_REC | system.MS_PRIVATE)
    system.mount("tmpfs", "/tmp", "tmpfs", flags, f"size={disk},nr_inodes={max(1024, disk // 16384)},mode=1777")
    system.mount("proc", "/proc", "proc", flags | system.MS_NOEXEC)


def _limit(limits: Mapping[str, Any]) -> None:
    bounds = {
        resource.RLIMIT_AS: limits["address_bytes"], resource.RLIMIT_CPU: limits["cpu_s"], resource.RLIMIT_NPROC: limits["processes"],
        resource.RLIMIT_FSIZE: limits["disk_bytes"], resource.RLIMIT_NOFILE: limits["open_files"], resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0, resource.RLIMIT_MSGQUEUE: 0,
    }
    for kind, bound in bounds.items():
        if bound is None:
            continue
        hard = resource.getrlimit(kind)[1]
        bound = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        resource.setrlimit(kind, (bound, bound))


def close_cell(cell: int, *, group: bool) -> int:
    """Kill a cell and everything in it; its exit code (a signal's number negative). `group`: without namespaces, the session it leads."""
    with suppress(ChildProcessError):
        ended, status = os.waitpid(cell, os.WNOHANG)
        if group:
            with suppress(OSError):
                os.killpg(cell, signal.SIGKILL)
        if not ended:
            os.kill(cell, signal.SIGKILL)
            _, status = os.waitpid(cell, 0)
        return os.waitstatus_to_exitcode(status)
    return 0


def kill_below() -> None:
    """For process 1 of a pid namespace: no other process is left in it when this returns."""
    assert os.getpid() == 1, "anywhere else this would reach processes that are none of a program's"
    with suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    with suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)


def family(cell: int) -> list[str]:
    """A cell's process and all that came from it: in a pid namespace nobody leaves it."""
    found = [str(cell)]
    for pid in found:               # grows while it is gone through
        with suppress(OSError):
            found += Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return found


def resident_bytes(pids: Iterable[str]) -> int:
    """Memory that these processes hold together; pages that a fork shares are counted for each."""
    total = 0
    for pid in pids:
        with suppress(OSError, IndexError, ValueError):
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    return total


def waited_s(pids: Iterable[str]) -> float:
    """Seconds that these processes stood in the kernel's queue for a CPU."""
    total = 0
    for pid in pids:
        with suppress(OSError, IndexError, ValueError):
            total += int(Path(f"/proc/{pid}/schedstat").read_text().split()[1])
    return total / 1e9
