"""The wall around a worker: what its root folder holds, and the process that stands behind it."""

import contextlib
import importlib.util
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, Literal

from mft.sandbox.container import Engine, look
from mft.sandbox.program import PACKAGES, Limits, SandboxError

Isolation = Literal["auto", "bubblewrap", "unshare", "container", "unsafe"]

HERE = Path(__file__).resolve().parent
INNER = "/judge"
PACKAGE_FOLDER = "/packages"
CLOSING_S = 5.0
OUTSIDE_ID = 65533
"""Whom root becomes before it forks a program: an id that owns no file and no other process."""

SYSTEM: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/alternatives", "/etc/java-17-openjdk")
DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
LINKS: Final = (("/tmp", "/dev/shm"), ("/proc/self/fd", "/dev/fd"))
FOLDERS: Final = ("/tmp", "/proc")
TEXTS: Final = {"/etc/passwd": "nobody:x:65534:65534:nobody:/tmp:/bin/false\n", "/etc/group": "nobody:x:65534:\n"}

ENVIRONMENT: Final = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1",
                      "OMP_NUM_THREADS": "1"}
"""All that a worker is told. A fixed hash seed: the order of a set is the same in every run."""

BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from inner.jail import main; main(int(sys.argv[2]))"

KEEPER = "import sys; sys.path.insert(0, sys.argv[1]); from mft.sandbox.container_worker import main; main(int(sys.argv[2]))"

PRELOADED: Final = (  # noqa: SIM905 - a list of words is read as words
    "bisect cmath collections copy datetime enum fractions functools heapq itertools json math operator re string textwrap typing").split()
"""Modules that solutions import most; a worker has them before it forks. Not `random`, nor what needs it: each fork must seed it anew."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How workers are started. `binds`: (place on this machine, place inside), all read-only but devices."""

    isolation: str
    python: str
    path: tuple[str, ...]
    binds: tuple[tuple[str, str], ...]
    preload: tuple[str, ...]
    foreign: bool
    privileged: bool
    limits: Mapping[str, Any]
    engine: Engine | None = None
    """What runs containers; then programs have the Python, the packages and the compilers of its image."""


def make_plan(isolation: str, limits: Limits, *, preload: Sequence[str] = (), languages: Collection[str] = ()) -> Plan:
    """The plan for this interpreter: its standard library and, of its packages, PACKAGES alone. `preload`: imported before any fork."""
    foreign = any(language != "python" for language in languages)
    if isolation == "container":
        return Plan(isolation=isolation, python=sys.executable, path=(), binds=(), preload=(), foreign=foreign, privileged=False,
                    limits=asdict(limits), engine=look().engine)
    python = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    prefix = Path(sys.base_prefix)
    places = [place for place in SYSTEM if os.path.exists(place)]
    if not any(prefix.is_relative_to(place) for place in places):
        places += [str(prefix / "lib")]
        places += [] if Path(python).is_relative_to(prefix / "lib") else [python]
    binds = [(os.path.realpath(place), place) for place in places] + [(device, device) for device in DEVICES]
    if "rust" in languages:
        binds += _rust_binds()
    binds.append((str(HERE / "inner"), f"{INNER}/inner"))
    path = [entry for entry in sys.path if entry and Path(entry).is_relative_to(prefix) and "site-packages" not in entry
            and "dist-packages" not in entry]
    for package in PACKAGES:
        binds += _package_binds(package)
    paths = (*path, *sorted({str(Path(source).parent) for source, target in binds if target.startswith(PACKAGE_FOLDER)})
             ) if isolation == "unsafe" else (*path, PACKAGE_FOLDER)
    return Plan(isolation=isolation, python=python, path=paths, binds=tuple(binds), preload=(*PRELOADED, *preload),
                foreign=foreign,
                privileged=os.geteuid() == 0 and _is_mapped(OUTSIDE_ID), limits=asdict(limits))


def _package_binds(name: str) -> list[tuple[str, str]]:
    """A package's folder, and the folder of shared libraries that wheels put beside it."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        return []
    folder = Path(next(iter(spec.submodule_search_locations)))
    return [(str(place), f"{PACKAGE_FOLDER}/{place.name}") for place in (folder, folder.with_name(f"{name}.libs")) if place.is_dir()]


def _rust_binds() -> list[tuple[str, str]]:
    """The toolchain of the rustc on PATH; rustup's own command only points to it."""
    rustc = shutil.which("rustc")
    if rustc is None:
        return []
    said = subprocess.run([rustc, "--print", "sysroot"], capture_output=True, text=True, check=False, timeout=60)
    root = said.stdout.strip()
    return [(root, "/rust")] if not said.returncode and os.path.isdir(root) and root != "/usr" else []


def _is_mapped(uid: int) -> bool:
    """Whether this user namespace knows an id. A root that is the one id of its namespace is an ordinary user outside."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/uid_map").read_text().splitlines():
            first, _, count = map(int, line.split())
            if first <= uid < first + count:
                return True
        return False
    return True


class Worker:
    """The socket to a process behind the wall. Without a `mother` the wall is built, and this is the mother that forks workers in it."""

    def __init__(self, plan: Plan, mother: "Worker | None" = None) -> None:
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.process: subprocess.Popen[bytes] | None = None
        with theirs:
            if mother is not None:
                mother.send({"another": True}, [theirs.fileno()])
                return
            self.process = subprocess.Popen(_command(plan, theirs.fileno()), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                            stderr=subprocess.PIPE, env=_environment(plan), pass_fds=[theirs.fileno()], cwd="/",
                                            start_new_session=True)
        if plan.engine is not None:
            limits = Limits(**plan.limits)
            limits = limits.for_compilers() if plan.foreign else limits
            self.socket.send(json.dumps(asdict(plan.engine) | {"foreign": plan.foreign, "limits": asdict(limits)}).encode())
            return
        message = {"build": plan.isolation == "unshare", "bare": plan.isolation == "unsafe", "privileged": plan.privileged,
                   "drop_to": OUTSIDE_ID if plan.privileged else None, "binds": plan.binds, "links": LINKS, "folders": FOLDERS,
                   "texts": TEXTS, "path": plan.path, "preload": plan.preload, "foreign": plan.foreign, "limits": dict(plan.limits)}
        self.socket.send(json.dumps(message).encode())

    def wait_ready(self) -> None:
        """Raises SandboxError with what the worker said where it could not begin."""
        said = self.receive() or {}
        if "ready" not in said:
            err = b""
            if self.process is not None:
                self.process.kill()
                _, err = self.process.communicate()
            reason = said.get("refused") or err.decode(errors="replace").strip()[-500:] or "it ended without a word"
            raise SandboxError(f"the sandbox does not start: {reason}")

    def send(self, job: Mapping[str, Any], descriptors: Sequence[int]) -> None:
        socket.send_fds(self.socket, [json.dumps(job).encode()], list(descriptors))

    def receive(self) -> dict[str, Any] | None:
        """The report on the job; None where the worker is gone."""
        try:
            message = self.socket.recv(1 << 16)
        except ConnectionResetError:
            return None
        return json.loads(message) if message else None

    def close(self) -> None:
        """It ends by itself, as nobody is there any more; killed where it does not."""
        self.socket.close()
        if self.process is None:
            return
        with self.process:
            try:
                self.process.wait(CLOSING_S)
            except subprocess.TimeoutExpired:
                self.process.kill()


def _environment(plan: Plan) -> dict[str, str] | None:
    """A worker behind a wall is told ENVIRONMENT alone; an engine's command needs the user's own."""
    return None if plan.engine is not None else dict(ENVIRONMENT)


def _command(plan: Plan, descriptor: int) -> list[str]:
    if plan.engine is not None:
        return [plan.python, "-P", "-c", KEEPER, str(HERE.parent.parent), str(descriptor)]
    inner = INNER if plan.isolation == "bubblewrap" else str(HERE)
    python = [plan.python, "-s", "-S", "-P", "-B", "-X", "utf8", "-c", BOOT, inner, str(descriptor)]
    if plan.isolation != "bubblewrap":
        return python
    command = [shutil.which("bwrap") or "bwrap", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    if not plan.privileged:
        command += ["--unshare-user", "--uid", "65534", "--gid", "65534"]
    command += ["--cap-add", "ALL", "--die-with-parent", "--new-session"]
    parents = {parent for _, target in plan.binds for parent in Path(target).parents}
    for folder in sorted(map(str, parents - {Path("/")})):
        command += ["--perms", "0755", "--dir", folder]     # those that bubblewrap makes by itself are for its own user alone
    for source, target in plan.binds:
        command += ["--dev-bind" if target in DEVICES else "--ro-bind", source, target]
    for target, link in LINKS:
        command += ["--symlink", target, link]
    for folder in FOLDERS:
        command += ["--dir", folder]
    command += [] if plan.privileged else ["--proc", "/proc"]
    return [*command, "--remount-ro", "/", "--", *python]


def _version(package: str) -> str | None:
    with contextlib.suppress(PackageNotFoundError):
        return version(package)
    return None


def facts(plan: Plan) -> dict[str, Any]:
    """What a score says of where its programs ran."""
    if plan.engine is not None:
        told = look().told
        return {"isolation": plan.isolation, "engine": plan.engine.command[0], "image": plan.engine.image, "as_root": False,
                **{name: told[name] for name in ("kernel", "machine", "python", "packages")}, "hash_seed": 0, "limits": dict(plan.limits)}
    return {"isolation": plan.isolation, "as_root": plan.privileged, "kernel": platform.release(), "machine": platform.machine(),
            "python": platform.python_version(), "packages": {name: _version(name) for name in PACKAGES},
            "hash_seed": 0, "limits": dict(plan.limits)}
