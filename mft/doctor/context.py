"""What checks share: the config's values, and what one of them has found out for the others."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mft.doctor.child import ask
from mft.doctor.locate import LocatedBase, locate_base
from mft.doctor.subject import Subject

TORCH_S = 60.0
WEIGHTS_S = 60.0


class Context:
    """One examination. Checks run at the same time, so that what they share is made once, under a lock.

    `subject`: the config, or None to look at the machine alone.
    """

    def __init__(self, subject: Subject | None = None) -> None:
        self.subject = subject
        self._made: dict[str, Any] = {}
        self._locks = {name: threading.Lock() for name in ("torch", "base", "weights")}

    def torch(self) -> dict[str, Any]:
        """What torch says of itself and of its devices (mft/doctor/probes/torch_build.py).

        Raises:
            ProbeFailed: torch cannot be used.
        """
        facts: dict[str, Any] = self._once("torch", lambda: ask("torch_build", {}, timeout_s=TORCH_S))
        return facts

    def base(self) -> LocatedBase | None:
        """Where the config's base lies; None without a config."""
        subject = self.subject
        if subject is None:
            return None
        located: LocatedBase = self._once("base", lambda: locate_base(subject.model.base, subject.beside))
        return located

    def weights(self, folder: Path) -> dict[str, Any]:
        """What the base's weights files say of themselves (mft/doctor/probes/weights.py).

        Raises:
            ProbeFailed: they cannot be read at all.
        """
        facts: dict[str, Any] = self._once("weights", lambda: ask("weights", {"folder": str(folder)}, timeout_s=WEIGHTS_S))
        return facts

    def _once(self, name: str, make: Callable[[], Any]) -> Any:
        """Make a thing at the first call; what it raised is raised again at each later one."""
        with self._locks[name]:
            if name not in self._made:
                try:
                    self._made[name] = (make(), None)
                except Exception as error:  # noqa: BLE001  handed on to every check that asks
                    self._made[name] = (None, error)
            value, failure = self._made[name]
        if failure is not None:
            raise failure
        return value


def available_cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
