"""What every measured balance needs: which validation samples come next, and how fast each task's loss falls.

All sums are exactly rounded (`math.fsum`), so that nothing depends on the order of the tasks or on the machine's vector units.
"""

import hashlib
import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from mft.errors import CheckFailed, CheckpointError, ConfigError
from mft.training.config import ProbeConfig

Point = tuple[int, float]
"""(optimizer step, value)."""


def slope(points: Sequence[Point]) -> float:
    """Slope, per optimizer step, of the least-squares line through at least two points at different steps.

    Example: `slope([(1, 1.0), (2, 0.9), (4, 0.7)])` is -0.1.
    """
    middle = math.fsum(step for step, _ in points) / len(points)
    mean = math.fsum(value for _, value in points) / len(points)
    across = math.fsum((step - middle) * (value - mean) for step, value in points)
    return across / math.fsum((step - middle) ** 2 for step, _ in points)


def softmax(scores: Sequence[float]) -> list[float]:
    """exp(score) / sum of exp(scores); the largest score is subtracted first, so that nothing overflows."""
    largest = max(scores)
    powers = [math.exp(score - largest) for score in scores]
    total = math.fsum(powers)
    return [power / total for power in powers]


def relative(values: Iterable[float]) -> list[float]:
    """Values divided by the mean of their absolute values; zeros stay zeros."""
    known = list(values)
    mean = math.fsum(abs(value) for value in known) / len(known)
    return [value / mean if mean else 0.0 for value in known]


def check_measurable(balance: str, task_names: Sequence[str], validation_tasks: np.ndarray) -> None:
    """Refuse to balance by measuring where a task has nothing to be measured on. `validation_tasks` [samples]: each sample's task.

    Raises:
        ConfigError: names every task without a validation sample.
    """
    counts = np.bincount(np.asarray(validation_tasks, dtype=np.int64), minlength=len(task_names)).tolist()
    if missing := [name for name, count in zip(task_names, counts, strict=True) if not count]:
        raise ConfigError([
            f"tasks.balance: {balance} weighs a task by its validation loss, but task {name!r} has no validation sample; raise "
            "split.validation of the recipe, give the task more rows, or take a fixed balance such as task_token_mean"
            for name in missing])


class ProbeCursor:
    """A place in each task's validation samples, from which the next probe takes its share.

    A task's samples come in an order that depends on the task's name and their number alone (sources may be sorted), and start
    again when all have been taken. A task with fewer samples than a probe asks for is measured on all of them, each once.
    """

    def __init__(self, task_names: Sequence[str], rows: int) -> None:
        self.task_names = list(task_names)
        self.rows = rows
        self.places = [0] * len(self.task_names)
        self._tasks: np.ndarray | None = None
        self._samples: list[list[int]] = []

    def next(self, validation_tasks: np.ndarray) -> list[int]:
        """Indices into `validation_tasks` (the task of each validation sample, [samples]), task by task; the cursors go on."""
        if self._tasks is None or not np.array_equal(self._tasks, validation_tasks):
            self._tasks = np.array(validation_tasks, dtype=np.int64)
            self._samples = [self._order(task) for task in range(len(self.task_names))]
        taken = []
        for task, samples in enumerate(self._samples):
            count = min(self.rows, len(samples))
            taken += [samples[(self.places[task] + offset) % len(samples)] for offset in range(count)]
            self.places[task] = (self.places[task] + count) % max(1, len(samples))
        return taken

    def _order(self, task: int) -> list[int]:
        indices = np.flatnonzero(self._tasks == task).tolist()
        name = self.task_names[task]
        keys = [hashlib.sha256(f"{name}\0{place}".encode()).digest() for place in range(len(indices))]
        return [index for _, index in sorted(zip(keys, indices, strict=True))]


class SlopeBalancer(ABC):
    """A balance whose weights follow the slopes of the tasks' validation losses. K tasks; all weigh 1/K at first."""

    kind: ClassVar[str]

    def __init__(self, settings: ProbeConfig, task_names: Sequence[str]) -> None:
        self.settings = settings
        self.task_names = list(task_names)
        self.every = settings.every
        self.cursor = ProbeCursor(task_names, settings.validation_rows)
        self.step = -1
        self.probes = 0
        self.points: list[deque[Point]] = [deque(maxlen=settings.history_probes) for _ in task_names]
        self._weights = [1 / len(self.task_names)] * len(self.task_names)

    def probe(self, validation_tasks: np.ndarray) -> list[int]:
        """See `mft.training.balancing.Balancer`."""
        check_measurable(self.kind, self.task_names, validation_tasks)
        return self.cursor.next(validation_tasks)

    def weights(self) -> list[float]:
        """See `mft.training.balancing.Balancer`."""
        return list(self._weights)

    def observe(self, step: int, losses: Sequence[float | None]) -> None:
        """See `mft.training.balancing.Balancer`."""
        if step <= self.step:
            raise ValueError(f"step {step} follows step {self.step}: steps must grow")
        if len(losses) != len(self.task_names) or all(loss is None for loss in losses):
            raise ValueError(f"losses {list(losses)} for tasks {self.task_names}: one for each task, and at least one of them known")
        for name, loss in zip(self.task_names, losses, strict=True):
            self._check(step, name, loss)
        self.step, self.probes = step, self.probes + 1
        self._add(step, losses)
        self._weights = self._weigh()

    def _check(self, step: int, name: str, loss: float | None) -> None:
        first = not self.points[self.task_names.index(name)]
        if loss is not None and (not math.isfinite(loss) or loss < 0 or (first and loss == 0)):
            raise CheckFailed(f"step {step}: the validation loss of task {name!r} is {loss}, from which tasks.balance: {self.kind} can "
                              "derive no weight; look at loss and grad_norm in metrics.jsonl before this step, or take a fixed balance")

    def slopes(self) -> list[float]:
        """Slope of each task through its own last points, [K]; 0 for a task measured less than twice.

        A task that was absent of late has the points it had, so its slope stays.
        """
        return [slope(points) if len(points) > 1 else 0.0 for points in self.points]

    @abstractmethod
    def _add(self, step: int, losses: Sequence[float | None]) -> None:
        """Keep what was measured."""

    @abstractmethod
    def _weigh(self) -> list[float]:
        """The weights that follow from all that was kept."""

    def state_dict(self) -> dict[str, Any]:
        """See `mft.training.balancing.Balancer`."""
        return {"balance": self.kind, "settings": self.settings.model_dump(), "tasks": self.task_names, "step": self.step,
                "probes": self.probes, "cursor": list(self.cursor.places), "points": [_plain(points) for points in self.points],
                "weights": self.weights()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `mft.training.balancing.Balancer`."""
        for key, own in {"balance": self.kind, "tasks": self.task_names, "settings": self.settings.model_dump()}.items():
            if state.get(key) != own:
                raise CheckpointError(f"the task balance of the checkpoint has {key} {state.get(key)}, this run has {own}; "
                                      "go on with the settings of the checkpoint, or start anew with --resume never")
        self.step, self.probes = state["step"], state["probes"]
        self.cursor.places = list(state["cursor"])
        for points, saved in zip(self.points, state["points"], strict=True):
            restore_points(points, saved)
        self._weights = list(state["weights"])


def restore_points(points: deque[Point], saved: Sequence[Sequence[float]]) -> None:
    """Replace points by saved ones, as JSON gives them back."""
    points.clear()
    points.extend((int(step), value) for step, value in saved)


def _plain(points: Iterable[Point]) -> list[list[float]]:
    return [[step, value] for step, value in points]
