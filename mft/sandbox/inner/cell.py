"""The second wall: the sandbox of one program, in fresh namespaces.

`open_cell` forks; the child is process 1 of its own pid namespace. It builds what is private, gives up all rights, forks the program as
process 2 and waits for it. When process 1 ends, the kernel kills everything that is left.
"""

import os
import resource
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from . import system

INSIDE_ID = 65534
OUT_OF_MEMORY, NOT_BUILT = 98, 99
"""Exit codes of process 1: its processes held more memory than allowed; the sandbox could not be made."""
WATCH_S = 0.1
PAGE = os.sysconf("SC_PAGE_SIZE")


def open_cell(role: Callable[[], None], *, keep: Sequence[int], output: int, limits: Mapping[str, Any], bare: str | None = None) -> int:
    """Start `role` alone in a sandbox; returns process 1. `keep`: descriptors that stay open; `output`: where it may print.

    `bare`: no sandbox, this folder to work in: what the user insisted on. Then the process leads a session of its own and nothing more.
    """
    uid, gid = os.getuid(), os.getgid()
    pid = os.fork() if bare else system.clone(system.CLONE_NEWUSER | system.ALL_BUT_USER)
    if pid:
        return pid
    code = NOT_BUILT
    try:
        if not bare:
            system.map_ids(uid, gid, INSIDE_ID)
        _only(keep, output)
        if bare:
            os.chdir(bare)
        else:
            _private_places(limits)
        _limit(limits)
        if not bare:
            system.drop_capabilities()
        os.setsid()
        code = _watch(_start(role, bare or "/tmp"), None if bare else limits["memory_bytes"])
    except BaseException as error:  # noqa: BLE001 - whatever went wrong, this process must not go on as a copy of the worker
        with suppress(OSError):
            os.write(output, f"sandbox: {type(error).__name__}: {error}\n".encode())
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


def _private_places(limits: Mapping[str, Any]) -> None:
    disk = limits["disk_bytes"]
    flags = system.MS_NOSUID | system.MS_NODEV
    system.mount("none", "/", flags=system.MS_REC | system.MS_PRIVATE)
    system.mount("tmpfs", "/tmp", "tmpfs", flags, f"size={disk},nr_inodes={max(1024, disk // 16384)},mode=1777")
    system.mount("proc", "/proc", "proc", flags | system.MS_NOEXEC)
    with suppress(OSError):
        system.write("/proc/sys/user/max_user_namespaces", "0")    # a program has no use for namespaces of its own
    os.chdir("/tmp")


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


def _start(role: Callable[[], None], home: str) -> int:
    """The program as process 2. Process 1 is closed to it: it can neither be traced nor read, and signals from inside do not reach it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    system.prctl(system.PR_SET_DUMPABLE, 0)
    pid = os.fork()
    if pid:
        os.close(1)
        os.close(2)
        return pid
    code = 1
    try:
        system.prctl(system.PR_SET_DUMPABLE, 1)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        os.environ.clear()
        os.environ.update({"HOME": home, "TMPDIR": home, "LANG": "C.UTF-8"})
        role()
        code = 0
    except BaseException as error:  # noqa: BLE001 - the program's own end, whatever it raised; the worker's code must not be reached
        with suppress(BaseException):
            os.write(2, f"{type(error).__name__}: {error}\n"[:500].encode(errors="replace"))
    finally:
        os._exit(code)


def _watch(program: int, memory_bytes: int | None) -> int:
    """Reap what ends until the program does; its exit code, or OUT_OF_MEMORY."""
    while True:
        signal.sigtimedwait({signal.SIGCHLD}, WATCH_S)
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == program:
                    code = os.waitstatus_to_exitcode(ended[1])
                    return code if 0 <= code < OUT_OF_MEMORY else 1 if code >= 0 else 64 + min(-code, 33)
        if memory_bytes is not None and _resident_bytes() > memory_bytes:
            return OUT_OF_MEMORY


def _resident_bytes() -> int:
    total = 0
    for name in os.listdir("/proc"):
        if name.isdigit() and name != "1":
            with suppress(OSError):
                total += int(Path("/proc", name, "statm").read_text().split()[1]) * PAGE
    return total

