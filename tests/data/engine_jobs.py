"""Jobs for the tests of engines; in a module of its own, so that other processes can import it."""

import time
from dataclasses import dataclass
from pathlib import Path

from mft.data.engine.jobs import Job


@dataclass(frozen=True, slots=True)
class Where(Job):
    folder: Path
    number: int

    @property
    def name(self):
        return f"where-{self.number}"

    def run(self):
        import ray

        time.sleep(1)
        return {"rows": 0, "node": ray.get_runtime_context().get_node_id()}


@dataclass(frozen=True, slots=True)
class Sleep(Job):
    folder: Path
    number: int
    seconds: float

    @property
    def name(self):
        return f"sleep-{self.number}"

    def run(self):
        time.sleep(self.seconds)
        return {"rows": self.number}
