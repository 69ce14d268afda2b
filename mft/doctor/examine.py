"""Running the checks: several at a time, each with a time limit, none able to stop the others."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mft.doctor.child import first_line
from mft.doctor.context import Context, available_cpus
from mft.doctor.finding import Check, Finding, State, fault

logger = logging.getLogger(__name__)

MOST_AT_ONCE = 4
LOOK_EVERY_S = 0.05


@dataclass(frozen=True, slots=True)
class Checked:
    """A check that has been made, and how long it took."""

    name: str
    finding: Finding
    seconds: float

    @property
    def state(self) -> State:
        """How it ended."""
        return self.finding.state

    def to_json(self) -> dict[str, Any]:
        """As `mft doctor --json` has it."""
        finding = self.finding
        return {"name": self.name, "state": finding.state, "found": finding.found, "remedy": finding.remedy,
                "seconds": round(self.seconds, 2), "facts": dict(finding.facts)}


Report = Callable[[Checked, int, int], None]
"""(the check that has ended, checks ended, checks in all) -> None."""


def examine(checks: Sequence[Check], context: Context, report: Report = lambda checked, done, total: None) -> list[Checked]:
    """Run the checks and return what they found, in their order. An exception or a lapsed time limit is a fault of that check."""
    slots = threading.Semaphore(max(1, min(MOST_AT_ONCE, available_cpus())))
    running = [_Running(check, context, slots) for check in checks]
    for one in running:
        threading.Thread(target=one.run, daemon=True, name=f"doctor-{one.check.name}").start()
    ended: dict[str, Checked] = {}
    while len(ended) < len(running):
        time.sleep(LOOK_EVERY_S)
        for one in running:
            if one.check.name not in ended and (checked := one.look()) is not None:
                ended[one.check.name] = checked
                report(checked, len(ended), len(running))
    return [ended[check.name] for check in checks]


class _Running:
    """A check in a thread of its own. One that hangs keeps its thread, and gives its slot to the next."""

    def __init__(self, check: Check, context: Context, slots: threading.Semaphore) -> None:
        self.check = check
        self._context = context
        self._slots = slots
        self._lock = threading.Lock()
        self._began: float | None = None
        self._result: Checked | None = None

    def run(self) -> None:
        self._slots.acquire()
        self._began = time.monotonic()
        try:
            finding = self.check.run(self._context)
        except Exception as error:  # noqa: BLE001  a check that breaks is a finding; the others go on
            logger.debug("check %s", self.check.name, exc_info=True)
            finding = fault(f"the check could not be made: {first_line(error)}", "mft doctor --debug shows more; mend what it names")
        self._end(finding)

    def look(self) -> Checked | None:
        """The result, once there is one; a check whose time is over ends here."""
        if self._began is not None and self._result is None and time.monotonic() - self._began > self.check.time_limit_s:
            self._end(fault(f"did not end within {self.check.time_limit_s:g} s",
                            "something that this check touches hangs: a network file system, a device, or a name server"))
        return self._result

    def _end(self, finding: Finding) -> None:
        with self._lock:
            if self._result is None and self._began is not None:
                self._result = Checked(self.check.name, finding, time.monotonic() - self._began)
                self._slots.release()
