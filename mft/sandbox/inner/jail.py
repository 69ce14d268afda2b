"""The first wall: a root folder that holds what programs need and nothing else, in namespaces of its own. The workers' mother is in it.

Started outside as `python -c BOOT FOLDER DESCRIPTOR`; the descriptor is a socket whose first message is the plan. With bubblewrap the
root folder stands already; else it is built here with the kernel's own calls.
"""

import json
import os
import signal
import socket
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import system
from .ward import tend
from .whole import whole_side

INSIDE_ID = 65534
"""The user and group that programs see themselves as."""
PLAN_BYTES = 1 << 20
ROOT = "/tmp"
"""Where the root folder is built: a place that every system has. It is hidden below the folder that becomes `/`."""

KEPT_FLAGS = {os.ST_NOSUID: system.MS_NOSUID, os.ST_NODEV: system.MS_NODEV, os.ST_NOEXEC: system.MS_NOEXEC}
"""A mount's flags that a user namespace may not take away, by what statvfs calls them."""


def main(descriptor: int) -> None:
    """Never returns."""
    control = socket.socket(fileno=descriptor)
    plan = json.loads(control.recv(PLAN_BYTES))
    sides = {"inside": whole_side}
    if plan["foreign"]:
        # brings more modules than other programs should find; its file is out of reach once the root folder has changed
        from .foreign import foreign_side

        sides["foreign"] = foreign_side
    try:
        if plan["build"]:
            _enter_namespaces(plan)
            _build_root(plan)
        if not plan["bare"]:
            _finish(plan)
    except OSError as error:
        control.send(json.dumps({"refused": str(error)}).encode())
        os._exit(1)
    sys.path[:] = plan["path"]
    tend(control, plan, sides)
    os._exit(0)


def _enter_namespaces(plan: Mapping[str, Any]) -> None:
    """The child goes on as process 1 of the new namespaces; this process waits for it, and dies with it and it with this one."""
    uid, gid = os.getuid(), os.getgid()
    system.unshare(system.ALL_BUT_USER | (0 if plan["privileged"] else system.CLONE_NEWUSER))
    if not plan["privileged"]:
        system.map_ids(uid, gid, INSIDE_ID)
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    system.prctl(system.PR_SET_PDEATHSIG, signal.SIGKILL)


def _build_root(plan: Mapping[str, Any]) -> None:
    """A small tmpfs with read-only binds becomes `/`; the old root is let go."""
    system.mount("none", "/", flags=system.MS_REC | system.MS_PRIVATE)
    system.mount("tmpfs", ROOT, "tmpfs", system.MS_NOSUID | system.MS_NODEV, "size=4m,mode=755")
    old = f"{ROOT}/.old"
    os.mkdir(old)
    system.pivot_root(ROOT, old)
    os.chdir("/")
    for source, target in plan["binds"]:
        _bind("/.old" + source, target, read_only=not source.startswith("/dev/"))
    for target, link in plan["links"]:
        Path(link).parent.mkdir(parents=True, exist_ok=True)
        os.symlink(target, link)
    for folder in plan["folders"]:
        Path(folder).mkdir(parents=True, exist_ok=True)
    for name, text in plan["texts"].items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)
    _mount_proc()       # while the old root's /proc is still to be seen: the kernel gives no more of /proc than was there before
    system.unmount("/.old")
    os.rmdir("/.old")
    system.mount("none", "/", flags=system.MS_REMOUNT | system.MS_BIND | system.MS_RDONLY | system.MS_NOSUID | system.MS_NODEV)


def _mount_proc() -> None:
    system.mount("proc", "/proc", "proc", system.MS_NOSUID | system.MS_NODEV | system.MS_NOEXEC)


def _bind(source: str, target: str, *, read_only: bool) -> None:
    if stat.S_ISDIR(os.stat(source).st_mode):
        Path(target).mkdir(parents=True, exist_ok=True)
    else:
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        Path(target).touch()
    system.mount(source, target, flags=system.MS_BIND | system.MS_REC)
    if read_only:
        flags = os.statvfs(target).f_flag
        kept = sum(ours for theirs, ours in KEPT_FLAGS.items() if flags & theirs)
        system.mount("none", target, flags=system.MS_REMOUNT | system.MS_BIND | system.MS_RDONLY | system.MS_NOSUID | kept)


def _finish(plan: Mapping[str, Any]) -> None:
    """What both kinds have in common: a /proc of these processes alone, no id that owns a file, no capability."""
    if not plan["build"] and plan["privileged"]:
        _mount_proc()   # bubblewrap's own has parts covered where root starts it, and then programs could have none of theirs
    system.set_hostname("sandbox")
    if plan["drop_to"] is not None:
        os.setgroups([])
        os.setresgid(plan["drop_to"], plan["drop_to"], plan["drop_to"])
        os.setresuid(plan["drop_to"], plan["drop_to"], plan["drop_to"])
    system.drop_capabilities()
    system.prctl(system.PR_SET_DUMPABLE, 1)     # a change of ids took /proc/self from the process; its children must write their id maps
