"""Which isolation this machine can give a program, found by running a harmless one in each kind."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mft.sandbox.container import look
from mft.sandbox.program import SandboxError

TIMEOUT_S = 10.0
NOBODY = "65534"

NAMESPACES = ("user", "pid", "net")
LOOK = """
import json, os
own = {name: os.readlink("/proc/self/ns/" + name) for name in ("user", "pid", "net")}
print("LOOKED " + json.dumps({"namespaces": own, "read_only": bool(os.statvfs("/").f_flag & os.ST_RDONLY)}))
"""
"""What the harmless program tells of its surroundings: the kernel's names of its namespaces, and whether `/` is read-only."""

SYSCTLS = {
    "/proc/sys/user/max_user_namespaces": ("0", "user namespaces are off (user.max_user_namespaces is 0)"),
    "/proc/sys/kernel/unprivileged_userns_clone": ("0", "user namespaces are off for users (kernel.unprivileged_userns_clone is 0)"),
    "/proc/sys/kernel/apparmor_restrict_unprivileged_userns": (
        "1", "AppArmor takes the rights out of user namespaces (kernel.apparmor_restrict_unprivileged_userns is 1)"),
}
"""Kernel setting -> the value that forbids user namespaces, and what that means."""


WALLS = ("bubblewrap", "unshare", "container")
"""The kinds that the judge runs programs in, in the order in which it takes them."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One kind of isolation. `reason`: what holds where it works, or why it does not."""

    name: str
    works: bool
    reason: str


def probe_sandboxes(timeout_s: float = TIMEOUT_S) -> list[Probe]:
    """Try every kind, in the order of WALLS. Those of this machine's own tools end after `timeout_s` seconds each."""
    return [probe_sandbox(name, timeout_s) for name in WALLS]


def probe_sandbox(name: str, timeout_s: float = TIMEOUT_S) -> Probe:
    """Try the kind of WALLS with this name."""
    if name == "container":
        return _container()
    return _bubblewrap(timeout_s) if name == "bubblewrap" else _unshare(timeout_s)


def best(probes: Sequence[Probe]) -> Probe | None:
    """The kind that programs will be judged in: the first of WALLS that works."""
    return next((probe for probe in probes if probe.works and probe.name in WALLS), None)


def _bubblewrap(timeout_s: float) -> Probe:
    """Everything own, the file system read-only, no capability, an id that owns nothing."""
    options = ["--ro-bind", "/", "/", "--tmpfs", "/tmp", "--proc", "/proc", "--dev", "/dev", "--unshare-all", "--unshare-user",
               "--uid", NOBODY, "--gid", NOBODY, "--cap-drop", "ALL", "--die-with-parent", "--new-session",
               "--ro-bind", sys.base_prefix, sys.base_prefix]   # an interpreter that lives in /tmp
    return _python_inside("bubblewrap", "bwrap", [*options, "--"], timeout_s, read_only=True)


def _unshare(timeout_s: float) -> Probe:
    """Own user, network, process, mount and IPC namespaces; what the file system allows is left to whoever uses it."""
    options = ["--user", "--map-root-user", "--net", "--pid", "--mount", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc"]
    return _python_inside("unshare", "unshare", [*options, "--"], timeout_s, read_only=False)


def _python_inside(name: str, command: str, options: Sequence[str], timeout_s: float, *, read_only: bool) -> Probe:
    path = shutil.which(command)
    if path is None:
        return Probe(name, False, f"{command} is not on PATH")
    ended = _run([path, *options, os.path.realpath(sys.executable), "-I", "-S", "-c", LOOK], timeout_s)
    if isinstance(ended, str):
        return Probe(name, False, f"{command} {ended}")
    line = next((line for line in ended.stdout.splitlines() if line.startswith("LOOKED ")), None)
    if ended.returncode or line is None:
        return Probe(name, False, _why(command, ended))
    seen = json.loads(line.removeprefix("LOOKED "))
    leaks = [f"the host's {namespace} namespace" for namespace in NAMESPACES
             if seen["namespaces"][namespace] == os.readlink(f"/proc/self/ns/{namespace}")]
    leaks += ["a writable file system"] if read_only and not seen["read_only"] else []
    if leaks:
        return Probe(name, False, f"a program inside still has {', '.join(leaks)}")
    return Probe(name, True, "a program ran in user, process and network namespaces of its own"
                 + (", on a read-only file system" if read_only else "; the file system is as writable as the user's"))


def _container() -> Probe:
    """An engine that answers, and an image on this machine to run something in; nothing is fetched."""
    try:
        seen = look()
    except SandboxError as error:
        return Probe("container", False, str(error))
    return Probe("container", True, f"{' '.join(seen.engine.command)} ran a program of the image {seen.engine.image} (Python "
                 f"{seen.told['python']}) without network or rights, on a read-only file system")


def _run(command: Sequence[str], timeout_s: float) -> "subprocess.CompletedProcess[str] | str":
    """The ended process, or why there is none."""
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=timeout_s,
                              check=False, start_new_session=True)
    except subprocess.TimeoutExpired:
        return f"did not end within {timeout_s:g} s"
    except OSError as error:
        return f"cannot be started: {error.strerror}"


def _why(command: str, ended: "subprocess.CompletedProcess[str]") -> str:
    """Why a program did not run: the kernel's setting where one forbids it, and what the tool said."""
    said = f"{command} ended with {ended.returncode}: {_first_line(ended.stderr)}"
    settings = [meaning for file, (value, meaning) in SYSCTLS.items() if _content(Path(file)) == value]
    return "; ".join([*settings, said])


def _content(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError:
        return None


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "without a word")[:200]
