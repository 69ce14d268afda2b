"""What is judged, within which limits, and what came out."""

from dataclasses import dataclass, field, replace
from typing import Final, Literal

from mft.errors import MftError

Status = Literal["passed", "failed", "error", "timeout", "out_of_memory", "output_limit"]
"""failed: an assertion of the tests did not hold. error: any other exception, no verdict, or a solution that ended before it answered."""

Judged = Literal["separate", "inside"]
"""separate: the tests ran in a process of their own and saw nothing but plain values of the solution. inside: in the solution's process."""

MIB = 1024 * 1024

PACKAGES: Final = ("numpy",)
"""What programs may import besides the standard library, where it is installed."""


class SandboxError(MftError):
    """No isolation of the kind asked for, or limits that cannot be."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one program. Judged separately, the solution and the tests have all but the time for themselves each."""

    timeout_s: float = 3.0
    """From the sandbox's start to the verdict. Time in which the kernel let a program wait for a CPU does not count."""
    cpu_s: float | None = None
    """CPU time of one process; None: `timeout_s` and a second."""
    memory_bytes: int = 2048 * MIB
    """Address space of one process, and resident memory of a sandbox's processes together."""
    processes: int = 32
    """Processes and threads at one time."""
    output_bytes: int = 8 * MIB
    """What a program may print; one that prints more is killed."""
    disk_bytes: int = 64 * MIB
    """Size of the private /tmp, the one place that can be written."""
    open_files: int = 256
    build_timeout_s: float = 60.0
    """For the compiler of another language, besides `timeout_s` for the run."""

    def __post_init__(self) -> None:
        low = [f"{name}={getattr(self, name):g}" for name in ("timeout_s", "memory_bytes", "processes", "output_bytes", "disk_bytes",
                                                              "open_files", "build_timeout_s") if getattr(self, name) <= 0]
        if self.cpu_s is not None and self.cpu_s <= 0:
            low.append(f"cpu_s={self.cpu_s:g}")
        if low:
            raise SandboxError(f"limits of the sandbox must be above 0: {', '.join(low)}")

    def for_compilers(self) -> "Limits":
        """These with what a compiler or a virtual machine needs at least."""
        return replace(self, disk_bytes=max(self.disk_bytes, 512 * MIB), processes=max(self.processes, 256),
                       open_files=max(self.open_files, 1024))

    def cpu_seconds(self, timeout_s: float) -> int:
        """Whole seconds of CPU time that one process has."""
        return max(1, -int(-(self.cpu_s if self.cpu_s is not None else timeout_s + 1) // 1))


@dataclass(frozen=True, slots=True)
class Program:
    """A solution and the tests that judge it.

    Python: `solution` defines `entry_point`; `tests` and `trusted_prefix` are trusted text, run in this order: prefix, tests, call.
    Other languages: `solution` is the whole source text, its tests in it; `tests` and `call` stay empty.
    """

    id: str
    solution: str
    tests: str
    entry_point: str
    call: str = ""
    """How the tests are started: `check(name)`; empty where `tests` are plain statements."""
    trusted_prefix: str = ""
    """Helpers of the prompt that the tests use (HumanEval 32, 38, 50): the tests' side has its own, whatever the solution makes of them."""
    language: str = "python"
    timeout_s: float | None = None
    """In place of the limits' own."""
    build_only: bool = False
    """Of a language that is not Python: compiled and not run; it has passed where its compiler takes it."""


@dataclass(frozen=True, slots=True)
class ExecutionResult:
    """The verdict of one program."""

    id: str
    status: Status
    detail: str = ""
    """The first assertion that failed or the exception, in one line; empty where it passed."""
    seconds: float = 0.0
    judged: Judged = "separate"
    why_inside: str = ""
    """Why the tests had to run in the solution's own process."""
    alone: bool = field(default=False)
    """Judged a second time with no other program running, as the first time ran out of time."""

    @property
    def passed(self) -> bool:
        return self.status == "passed"
