"""Judge programs in parallel, in sandboxes: results come as they are ready.

    >>> program = Program(id="a", solution="def f(x):\\n    return x + 1", tests="assert f(1) == 2", entry_point="f")
    >>> [result.status for result in judge([program], limits=Limits(), isolation="unshare")]  # doctest: +SKIP
    ['passed']
"""

import json
import logging
import os
import secrets
import selectors
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal, get_args

from mft.sandbox import isolation as walls
from mft.sandbox.inner.foreign import BUILDS, LANGUAGES
from mft.sandbox.isolation import Isolation, Plan, Worker, make_plan
from mft.sandbox.probe import WALLS, Probe, probe_sandbox
from mft.sandbox.program import PACKAGES, ExecutionResult, Limits, Program, SandboxError

logger = logging.getLogger(__name__)

VERDICT_BYTES = 1 << 14

Mode = Literal["separate", "inside"]


def judge(programs: Sequence[Program], *, limits: Limits | None = None, workers: int | None = None, isolation: Isolation = "auto",
          mode: Mode = "separate", again: bool = True) -> Iterator[ExecutionResult]:
    """Verdicts in the order in which they are ready. Programs that ran out of time are run again, one by one, when all others are done,
    unless `again` is False.

    Raises:
        SandboxError: this machine has no isolation of the kind asked for.
    """
    if not programs:
        return
    limits = limits or Limits()
    preload = [name for name in PACKAGES if any(name in program.solution or name in program.tests for program in programs)]
    plan = make_plan(choose(isolation), limits, preload=preload, languages={program.language for program in programs})
    unknown = sorted({program.language for program in programs if not program.build_only} - {"python", *LANGUAGES}
                     | {program.language for program in programs if program.build_only} - BUILDS.keys())
    if unknown:
        raise SandboxError(f"cannot run {', '.join(unknown)}; what can be run: python, {', '.join(LANGUAGES)}; "
                           f"what can be built alone: {', '.join(BUILDS)}")
    jobs = [_Job(program, mode if program.language == "python" else "inside", limits,
                 "" if program.language == "python" else f"its tests are part of the {program.language} program") for program in programs]
    pool = _Pool(plan, max(1, min(workers or len(os.sched_getaffinity(0)), len(jobs))))
    try:
        late = []
        for job, result in pool.run(jobs):
            if again and result.status == "timeout":
                late.append(job)
            else:
                yield result
        pool.shrink(1)
        for job in late:
            for _, result in pool.run([job]):
                yield replace(result, alone=True)
    finally:
        pool.close()


def choose(isolation: Isolation) -> str:
    """The kind of isolation that will be used.

    Raises:
        SandboxError: none works, with each one's reason.
    """
    kinds = get_args(Isolation)
    if isolation not in kinds:
        raise SandboxError(f"isolation '{isolation}'; expected {', '.join(kinds[:-1])} or {kinds[-1]}")
    if isolation == "unsafe":
        logger.warning("programs run without a sandbox, with the rights of this user: insisted on by isolation 'unsafe'")
        return isolation
    tried: list[Probe] = []
    for name in WALLS if isolation == "auto" else (isolation,):
        tried.append(probed(name))
        if tried[-1].works:
            return name
    raise SandboxError("no sandbox on this machine: " + "; ".join(f"{probe.name}: {probe.reason}" for probe in tried)
                       + ". Isolation 'unsafe' runs programs with the rights of this user")


@cache
def probed(name: str) -> Probe:
    """Whether this machine has a kind of isolation; that does not change while a process lives."""
    return probe_sandbox(name)


def facts(isolation: Isolation = "auto", limits: Limits | None = None) -> dict[str, Any]:
    """Of what a score's protocol says where its programs ran: isolation, kernel, Python, limits."""
    return walls.facts(make_plan(choose(isolation), limits or Limits()))


@dataclass(frozen=True, slots=True)
class _Job:
    program: Program
    mode: Mode
    limits: Limits
    why_inside: str = ""

    @property
    def timeout_s(self) -> float:
        return self.program.timeout_s or self.limits.timeout_s

    @property
    def foreign(self) -> bool:
        return self.program.language != "python"

    def message(self) -> dict[str, Any]:
        """What the worker is told: nothing of the texts."""
        limits, wall = self.limits, self.timeout_s
        own: dict[str, int | None] = {"cpu_s": limits.cpu_seconds(wall), "address_bytes": limits.memory_bytes}
        if self.foreign:
            wall += limits.build_timeout_s
            raised = limits.for_compilers()
            own |= {"cpu_s": limits.cpu_seconds(wall), "address_bytes": None, "disk_bytes": raised.disk_bytes,
                    "processes": raised.processes, "open_files": raised.open_files}
        return {"mode": "foreign" if self.foreign else self.mode, "timeout_s": wall, "limits": own}

    def texts(self, nonce: str) -> list[dict[str, Any]]:
        """What each side reads, the one with the verdict last."""
        program, limits = self.program, self.limits
        if self.foreign:
            return [{"language": program.language, "solution": program.solution, "build_only": program.build_only,
                     "nonce": nonce, "timeout_s": self.timeout_s,
                     "build_timeout_s": limits.build_timeout_s, "output_bytes": limits.output_bytes, "memory_bytes": limits.memory_bytes}]
        tests = {"tests": program.tests, "call": program.call, "entry_point": program.entry_point, "nonce": nonce}
        if self.mode == "separate":
            return [{"solution": program.solution}, {"prefix": program.trusted_prefix} | tests]
        return [{"solution": program.solution} | tests]


class _Running:
    """A job that a worker has: its secret and the pipe of its verdict."""

    def __init__(self, job: _Job, worker: Worker) -> None:
        self.job = job
        self.nonce = secrets.token_hex(16)
        self.read, write = os.pipe()
        descriptors = [_in_memory(text) for text in job.texts(self.nonce)] + [write]
        try:
            worker.send(job.message(), descriptors)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def verdict(self) -> dict[str, str] | None:
        """What came through the private pipe, if it bears the secret."""
        os.set_blocking(self.read, False)
        try:
            said = json.loads(os.read(self.read, VERDICT_BYTES))
        except (OSError, ValueError):
            return None
        finally:
            os.close(self.read)
        return said if isinstance(said, dict) and said.get("nonce") == self.nonce else None


def _in_memory(value: dict[str, Any]) -> int:
    descriptor = os.memfd_create("text", os.MFD_CLOEXEC)
    data = json.dumps(value).encode()
    while data:
        data = data[os.write(descriptor, data):]
    return descriptor


class _Pool:
    """Workers that take a job each."""

    def __init__(self, plan: Plan, count: int) -> None:
        self.plan = plan
        self.mother = None if plan.isolation == "container" else Worker(plan)
        self.workers: list[Worker] = []
        try:
            if self.mother is not None:
                self.mother.wait_ready()
            self.workers += [Worker(plan, self.mother) for _ in range(count)]
            for worker in self.workers:
                worker.wait_ready()
        except BaseException:
            self.close()
            raise

    def run(self, jobs: Sequence[_Job]) -> Iterator[tuple[_Job, ExecutionResult]]:
        """Every job once; one that must be judged inside is started again so."""
        waiting, idle = deque(jobs), list(self.workers)
        running: dict[Worker, _Running] = {}
        with selectors.DefaultSelector() as selector:
            while waiting or running:
                while waiting and idle:
                    worker = idle.pop()
                    running[worker] = _Running(waiting.popleft(), worker)
                    selector.register(worker.socket, selectors.EVENT_READ, worker)
                for key, _ in selector.select():
                    worker = key.data
                    selector.unregister(worker.socket)
                    done = running.pop(worker)
                    report, verdict = worker.receive(), done.verdict()
                    if report is not None and "refused" in report:
                        raise SandboxError(f"the sandbox does not go on: {report['refused']}")
                    idle.append(worker if report is not None and not report["spent"] else self._replaced(worker))
                    if verdict is not None and verdict["status"] == "inside":
                        waiting.append(replace(done.job, mode="inside", why_inside=verdict["detail"]))
                    else:
                        yield done.job, _result(done.job, report, verdict)

    def _replaced(self, worker: Worker) -> Worker:
        worker.close()
        try:
            fresh = Worker(self.plan, self.mother)
            fresh.wait_ready()
        except (OSError, SandboxError):
            if self.mother is None:
                raise
            self.mother.close()             # she was killed too
            self.mother = Worker(self.plan)
            self.mother.wait_ready()
            fresh = Worker(self.plan, self.mother)
            fresh.wait_ready()
        self.workers[self.workers.index(worker)] = fresh
        return fresh

    def shrink(self, count: int) -> None:
        while len(self.workers) > count:
            self.workers.pop().close()

    def close(self) -> None:
        for worker in [*self.workers, *([self.mother] if self.mother else [])]:
            worker.close()


def _result(job: _Job, report: dict[str, Any] | None, verdict: dict[str, str] | None) -> ExecutionResult:
    result = ExecutionResult(id=job.program.id, status="error", judged=job.mode, why_inside=job.why_inside,
                             seconds=report["seconds"] if report else 0.0)
    if report is None:
        return replace(result, detail="the sandbox's worker was killed")
    if report["how"] != "ended":
        return replace(result, status=report["how"], detail={
            "timeout": f"no verdict within {job.timeout_s:g} s", "out_of_memory": f"more than {job.limits.memory_bytes} bytes of memory",
            "output_limit": f"more than {job.limits.output_bytes} bytes printed"}[report["how"]])
    if verdict is None:
        if report["said"]:
            raise SandboxError(f"a program's sandbox could not be made: {report['said'].strip()}")
        return replace(result, detail=f"ended without a verdict (exit code {report['codes'][-1]})")
    status: Any = verdict["status"]
    return replace(result, status=status, detail=_printable(verdict["detail"]))


def _printable(text: str) -> str:
    """One line without control characters: the text may be an enemy's."""
    return "".join(character if character.isprintable() else " " for character in text)
