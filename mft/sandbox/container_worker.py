"""A worker that judges in containers: speaks with the judge as `inner.worker` does, and passes bytes between two containers.

It runs outside, so it runs nothing of a program: it reads frames (`inner.capsule`) of bounded size and the verdict's few bytes. The tests'
container alone can give a verdict; a solution that is judged apart is in a container that has no part in it.
"""

import json
import os
import select
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from mft.sandbox.container import Capsule, Engine
from mft.sandbox.inner.worker import JOB_BYTES, LONGEST_WAIT, READY
from mft.sandbox.program import SandboxError

PLAN_BYTES = 1 << 20
HELD_BYTES = 1 << 20
"""So much may wait for one container; no more is read from the other one until it has been taken."""
GRACE_S = 5.0
"""Process 1 of a container ends a side by itself this long after its time is up for good."""


def main(descriptor: int) -> None:
    """Until the judge is gone."""
    control = socket.socket(fileno=descriptor)
    plan = json.loads(control.recv(PLAN_BYTES))
    keeper = _Keeper(plan)
    try:
        keeper.ready("spare")
        control.send(READY)
        while True:
            message, descriptors, _, _ = socket.recv_fds(control, JOB_BYTES, 4)
            if not message:
                return
            job = json.loads(message)
            texts = [_whole(text) for text in descriptors[:-1]]
            try:
                report = keeper.run(job, texts, descriptors[-1], control)
            finally:
                os.close(descriptors[-1])
            control.send(json.dumps(report).encode())
    except SandboxError as error:
        with suppress(OSError):
            control.send(json.dumps({"refused": str(error)}).encode())
    except (BrokenPipeError, ConnectionResetError):
        return
    finally:
        keeper.close()


def _whole(descriptor: int) -> bytes:
    data, size = b"", os.fstat(descriptor).st_size
    while len(data) < size:
        data += os.pread(descriptor, size - len(data), len(data))
    os.close(descriptor)
    return data


class _Keeper:
    """One worker's containers: a `spare` for the next program, and the `tests`' one, which stays."""

    def __init__(self, plan: Mapping[str, Any]) -> None:
        self.plan = plan
        self.engine = Engine(tuple(plan["command"]), plan["image"], plan["own_tmpfs"])
        self.held: dict[str, Capsule] = {}
        self.is_ready: set[str] = set()
        self.leaving: list[Capsule] = []

    def start(self, place: str) -> None:
        if place not in self.held:
            self.held[place] = Capsule(self.engine, self.plan["limits"], foreign=self.plan["foreign"])

    def ready(self, place: str) -> Capsule:
        self.start(place)
        if place not in self.is_ready:
            self.held[place].wait_ready()
            self.is_ready.add(place)
        return self.held[place]

    def part(self, place: str) -> None:
        """Its container ends while others begin."""
        capsule = self.held.pop(place, None)
        self.is_ready.discard(place)
        if capsule is not None:
            capsule.leave()
            self.leaving.append(capsule)
        while len(self.leaving) > 1:
            self.leaving.pop(0).end()

    def close(self) -> None:
        for place in list(self.held):
            self.leaving.append(self.held.pop(place))
        for capsule in self.leaving:
            capsule.leave()
        for capsule in self.leaving:
            capsule.end()

    def run(self, job: Mapping[str, Any], texts: list[bytes], verdict: int, control: socket.socket) -> dict[str, Any]:
        """One program from its start to the death of its last process."""
        limits = self.plan["limits"] | job["limits"]
        told = {"limits": limits, "longest_s": job["timeout_s"] * LONGEST_WAIT + GRACE_S}
        if job["mode"] == "separate":
            self.start("tests")     # beside the other one, which may still be on its way
            solution, judging = self.ready("spare"), self.ready("tests")
            _begin(solution, texts[0], told | {"role": "solution"})
            _begin(judging, texts[1], told | {"role": "tests"})
        else:
            solution = judging = self.ready("spare")
            _begin(judging, texts[0], told | {"role": job["mode"]})
        started = time.monotonic()
        ended = _Round(solution, judging, control).ended(job["timeout_s"])
        seconds = time.monotonic() - started
        self.part("spare")
        if ended.get("spent", True) and judging is not solution:
            self.part("tests")
        self.start("spare")
        if ended["how"] == "ended" and ended["verdict"]:
            os.write(verdict, ended["verdict"].encode())
        return {"how": ended["how"], "seconds": seconds, "codes": [ended["code"]], "said": ended["said"], "spent": False}


def _begin(capsule: Capsule, text: bytes, job: Mapping[str, Any]) -> None:
    capsule.waited = 0.0
    capsule.send(b"T", text)
    capsule.send(b"J", json.dumps(job).encode())


class _Round:
    """Bytes between the two sides of one program until there is an end."""

    def __init__(self, solution: Capsule, judging: Capsule, control: socket.socket) -> None:
        self.sides = {solution.stdout: (solution, judging), judging.stdout: (judging, solution)}
        self.solution, self.judging, self.control = solution, judging, control
        self.end: dict[str, Any] | None = None
        self.poll = select.poll()
        self.poll.register(control, 0)      # no event but that the other end is closed

    def ended(self, timeout_s: float) -> dict[str, Any]:
        """What the judging side's container told of its end; else a timeout. Raises SystemExit where nobody waits any more."""
        deadline, extended = time.monotonic() + timeout_s, 0.0
        while self.end is None:
            for capsule, other in self.sides.values():
                self.poll.register(capsule.stdin, select.POLLOUT if capsule.inward else 0)
                self.poll.register(capsule.stdout, select.POLLIN if len(other.inward) < HELD_BYTES else 0)
            left = deadline + extended - time.monotonic()
            events = dict(self.poll.poll(max(0.0, left) * 1000))
            if self.control.fileno() in events:
                raise SystemExit
            for capsule, other in list(self.sides.values()):
                capsule.flush()
                if capsule.stdout in events:
                    self._take(capsule, other)
            if left <= 0 and self.end is None:
                waited = min(sum(capsule.waited for capsule in {self.solution, self.judging}), timeout_s * (LONGEST_WAIT - 1))
                if waited <= extended + 0.01:
                    return {"how": "timeout", "code": 0, "said": "", "verdict": ""}
                extended = waited
        return self.end

    def _take(self, capsule: Capsule, other: Capsule) -> None:
        for kind, data in capsule.frames():
            if kind == b"D" and data:
                other.send(b"D", data)
            elif kind == b"W":
                capsule.waited = float(data)
            elif kind == b"E":
                self._end(capsule, json.loads(data))
        if capsule.over:
            self._end(capsule, {"how": "ended", "code": 0, "said": "", "verdict": "", "spent": True})

    def _end(self, capsule: Capsule, told: dict[str, Any]) -> None:
        """The judging side's is the program's; the solution's closes the connection, unless it went beyond a limit."""
        self.sides.pop(capsule.stdout, None)
        for descriptor in (capsule.stdin, capsule.stdout):
            with suppress(KeyError):
                self.poll.unregister(descriptor)
        if capsule is self.judging:
            self.end = told
        elif told["how"] in ("out_of_memory", "output_limit") or told["said"]:
            self.end = told | {"verdict": "", "spent": True}
        else:
            self.judging.send(b"D")


if __name__ == "__main__":
    main(int(sys.argv[1]))
