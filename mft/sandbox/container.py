"""Programs in containers, where neither bubblewrap nor the kernel's namespaces can be had directly: podman, docker, or what speaks alike.

    this process, one a worker  --stdin-->  engine's command  -->  process 1 of a container (`inner.capsule`)  -->  the program
                                <--stdout--

A solution has a container of its own, used once: no network, a read-only root, no capability, no new privileges, a user id drawn for it,
limits of processes and memory, a private /tmp, and a filter against namespaces of its own, which some engines leave open. Its tests run in
a second one, which serves the worker's next program too, unless they left a file in it. Nothing of the machine is mounted but /dev/null:
the code that runs inside goes through stdin, so an engine may be remote.

CPU time, address space, open files, file sizes and the number of processes are bounded by limits of the process as well (`inner.cell`), and
the resident memory of a container is watched from its process 1: these hold where an engine has no control groups to give. With podman the
number of files in /tmp has no bound but memory and time: it takes no such option.

A container ends when its stdin does, so also where this process is killed; one that does not is removed by its name. All bear the label
`mft.judge`. Engine: MFT_CONTAINER_ENGINE (a command, with options if need be), else podman, else docker. Image: MFT_SANDBOX_IMAGE; it needs
Python 3.11 or newer as `python3`, and is never fetched.
"""

import json
import os
import secrets
import select
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from mft.sandbox.inner.capsule import FRAME, PIECE_BYTES
from mft.sandbox.program import PACKAGES, SandboxError

ENGINE_VARIABLE, IMAGE_VARIABLE = "MFT_CONTAINER_ENGINE", "MFT_SANDBOX_IMAGE"
DEFAULT_IMAGE = "docker.io/library/python:3.11-slim"
ENGINES = ("podman", "docker")
LABEL = "mft.judge"
START_S, LEAVE_S, ASK_S, LOOK_S = 60.0, 5.0, 10.0, 25.0
MARGIN_BYTES, OWN_PROCESSES = 256 << 20, 8
"""Of the engine's limits, for process 1 and so that the limits inside, which say what went beyond them, come first."""
FIRST_ID, IDS = 10_000, 50_000
"""User ids inside: limits of processes are counted by id, so no two containers share one."""
INNER = Path(__file__).parent / "inner"
MODULES = ("system", "cell", "values", "peer", "sides", "whole", "foreign", "capsule")
"""What goes into a container, in the order in which it can be loaded."""
EMPTY_FILES = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf")
"""Files that engines write into a container and that tell of this machine."""

BOOT = """
import json, os, sys, types
def read(count):
    data = b""
    while len(data) < count:
        data += os.read(0, count - len(data)) or os._exit(1)
    return data
given = json.loads(read(int.from_bytes(read(4), "little")))
package = sys.modules["inner"] = types.ModuleType("inner")
package.__path__ = []
for name, text in given["modules"]:
    module = sys.modules["inner." + name] = types.ModuleType("inner." + name)
    module.__package__ = "inner"
    setattr(package, name, module)
    exec(compile(text, "<inner/" + name + ".py>", "exec"), vars(module))
sys.modules["inner.capsule"].main(given["packages"])
"""


@dataclass(frozen=True, slots=True)
class Engine:
    """A command that runs containers, and the image to run."""

    command: tuple[str, ...]
    image: str
    own_tmpfs: bool = False
    """It would mount /run and /var/tmp to be written in, unless told otherwise (podman)."""

    def ask(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Raises SandboxError where the command cannot be run or does not end."""
        try:
            return subprocess.run([*self.command, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                                  timeout=ASK_S, check=False, start_new_session=True)
        except subprocess.TimeoutExpired:
            raise SandboxError(f"{self.command[0]} {arguments[0]} did not end within {ASK_S:g} s") from None
        except OSError as error:
            raise SandboxError(f"{self.command[0]} cannot be started: {error.strerror}") from None

    def run_command(self, name: str, limits: Mapping[str, Any], *, foreign: bool) -> list[str]:
        """Of one container. `foreign`: what a program builds in /tmp may be run."""
        owner, disk = FIRST_ID + secrets.randbelow(IDS), limits["disk_bytes"]
        files = "" if self.own_tmpfs else f",nr_inodes={max(1024, disk // 16384)}"
        memory, processes = limits["memory_bytes"] + MARGIN_BYTES, limits["processes"] + OWN_PROCESSES
        options = ["run", "--rm", "--interactive", "--init=false", "--pull", "never", "--log-driver", "none", "--name", name,
                   "--label", f"{LABEL}={os.getppid()}", "--hostname", "sandbox", "--network", "none", "--ipc", "private", "--read-only",
                   "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--user", f"{owner}:{owner}", "--workdir", "/",
                   "--memory", str(memory), "--memory-swap", str(memory), "--pids-limit", str(processes),
                   "--ulimit", f"nproc={processes}:{processes}", "--ulimit", f"nofile={limits['open_files']}:{limits['open_files']}",
                   "--ulimit", "core=0:0", "--shm-size", str(disk),
                   "--tmpfs", f"/tmp:rw,nosuid,nodev,{'exec' if foreign else 'noexec'},size={disk},mode=1777{files}"]
        for file in EMPTY_FILES:
            options += ["--mount", f"type=bind,source=/dev/null,target={file},readonly"]
        for variable, value in {"PYTHONHASHSEED": "0", "LANG": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}.items():
            options += ["--env", f"{variable}={value}"]
        options += ["--read-only-tmpfs=false"] if self.own_tmpfs else []
        return [*self.command, *options, "--entrypoint", "python3", self.image, "-s", "-P", "-B", "-X", "utf8", "-c", BOOT]


def find_engine() -> Engine:
    """The engine and the image that the environment names.

    Raises:
        SandboxError: there is no engine on PATH.
    """
    command = shlex.split(os.environ.get(ENGINE_VARIABLE, ""))
    if command and shutil.which(command[0]) is None:
        raise SandboxError(f"{ENGINE_VARIABLE} names {command[0]}, which is not on PATH")
    command = command or [name for name in ENGINES if shutil.which(name)][:1]
    if not command:
        raise SandboxError(f"neither {' nor '.join(ENGINES)} is on PATH")
    engine = Engine(tuple(command), os.environ.get(IMAGE_VARIABLE) or DEFAULT_IMAGE)
    return replace(engine, own_tmpfs="podman" in engine.ask("--version").stdout.lower())


class Capsule:
    """A container that was started; its process 1 says when it is ready."""

    def __init__(self, engine: Engine, limits: Mapping[str, Any], *, foreign: bool) -> None:
        self.engine = engine
        self.name = f"mft-judge-{secrets.token_hex(8)}"
        self.complaints = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `end`
        self.process = subprocess.Popen(engine.run_command(self.name, limits, foreign=foreign), stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=self.complaints, bufsize=0, start_new_session=True)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin.fileno(), self.process.stdout.fileno()
        os.set_blocking(self.stdin, False)
        os.set_blocking(self.stdout, False)
        modules = [(name, (INNER / f"{name}.py").read_text(encoding="utf-8")) for name in MODULES]
        boot = json.dumps({"modules": modules, "packages": PACKAGES}).encode()
        self.inward, self.outward = bytearray(len(boot).to_bytes(4, "little") + boot), bytearray()
        self.over = False
        self.waited = 0.0

    def send(self, kind: bytes, data: bytes = b"") -> None:
        """In frames of a size that the other end takes."""
        for start in range(0, max(len(data), 1), PIECE_BYTES):
            piece = data[start:start + PIECE_BYTES]
            self.inward += FRAME.pack(kind, len(piece)) + piece
        self.flush()

    def flush(self) -> None:
        """Write what the engine takes now."""
        try:
            while self.inward:
                del self.inward[:os.write(self.stdin, self.inward)]
        except BlockingIOError:
            pass
        except OSError:
            self.inward.clear()     # that it is gone is read from stdout

    def frames(self) -> list[tuple[bytes, bytes]]:
        """All that came and is whole; `over` is set where no more will come."""
        with suppress(BlockingIOError):
            piece = os.read(self.stdout, 1 << 20)
            self.over = not piece
            self.outward += piece
        found = []
        while len(self.outward) >= FRAME.size:
            kind, length = FRAME.unpack_from(self.outward)
            if len(self.outward) < FRAME.size + length:
                break
            found.append((kind, bytes(self.outward[FRAME.size:FRAME.size + length])))
            del self.outward[:FRAME.size + length]
        return found

    def wait_ready(self, timeout_s: float = START_S) -> dict[str, Any]:
        """What process 1 tells of its container.

        Raises:
            SandboxError: with what the engine said where none came up.
        """
        poll, last = select.poll(), time.monotonic() + timeout_s
        while (left := last - time.monotonic()) > 0:
            poll.register(self.stdin, select.POLLOUT if self.inward else 0)
            poll.register(self.stdout, select.POLLIN)
            poll.poll(left * 1000)
            self.flush()
            for kind, data in self.frames():
                if kind == b"R":
                    ready: dict[str, Any] = json.loads(data)
                    return ready
            if self.over:
                break
        self.complaints.seek(0)
        lines = [line for line in self.complaints.read().decode(errors="replace").splitlines() if line.strip()]
        self.end()
        raise SandboxError(f"a container does not start: {lines[-1].strip()[:300] if lines else f'not within {timeout_s:g} s'}")

    def leave(self) -> None:
        """Let it end by itself."""
        if self.process.stdin:
            self.process.stdin.close()

    def end(self) -> None:
        """It is gone when this returns: by itself, else removed by name."""
        self.leave()
        try:
            self.process.wait(LEAVE_S)
        except subprocess.TimeoutExpired:
            with suppress(SandboxError):
                self.engine.ask("rm", "--force", self.name)
            self.process.kill()
            self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()
        self.complaints.close()


@dataclass(frozen=True, slots=True)
class Look:
    """What a container of this machine is, as process 1 of one has told."""

    engine: Engine
    told: Mapping[str, Any]

    def leaks(self) -> list[str]:
        """What a program would have that it must not."""
        told = self.told
        shared = [f"the host's {name} namespace" for name in ("pid", "net") if _own_namespace(name) == told["namespaces"][name]]
        return shared + [leak for leak, holds in (
            ("a writable file system", not told["read_only"]), ("capabilities", told["capabilities"]), ("root's id", told["uid"] == 0),
            ("a way to new privileges", not told["no_new_privileges"]), ("another process 1", told["pid"] != 1),
            ("network devices", set(told["devices"]) - {"lo"}), ("no /tmp to write in", not told["tmp"])) if holds]


def _own_namespace(name: str) -> str | None:
    with suppress(OSError):
        return os.readlink(f"/proc/self/ns/{name}")
    return None


@cache
def look() -> Look:
    """A container of this machine, run once.

    Raises:
        SandboxError: none runs, or one that is no wall.
    """
    engine = find_engine()
    inspected = engine.ask("image", "inspect", engine.image)
    if inspected.returncode:
        said = next((line.strip() for line in inspected.stderr.splitlines() if line.strip()), "without a word")[:300]
        if any(words in said.lower() for words in ("no such image", "not known", "not found")):
            raise SandboxError(f"the image {engine.image} is not here; fetch it with: {' '.join(engine.command)} pull {engine.image}, or "
                               f"name another one that has Python 3.11 in {IMAGE_VARIABLE}")
        raise SandboxError(f"{engine.command[0]} does not answer: {said}")
    capsule = Capsule(engine, {"memory_bytes": 512 << 20, "processes": 16, "disk_bytes": 8 << 20, "open_files": 256}, foreign=False)
    seen = Look(engine, capsule.wait_ready(LOOK_S))
    capsule.end()
    if leaks := seen.leaks():
        raise SandboxError(f"a program in a container of {engine.command[0]} still has {', '.join(leaks)}")
    return seen
