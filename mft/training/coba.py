"""CoBa: weights from how fast each task converges, against the others and against its own past.

Task k has validation losses L_k; y_k = L_k / (its first L_k); a_k is the slope of y_k through its last N points. Probes before W are
the warm-up (all weights 1/K). From then on, T is the number of probes since the warm-up and, at each of them:

    RCS_k = softmax over tasks of   K a_k / sum_j |a_j|                              slower than the others: more
    ACS_k = softmax over tasks of  -n a_k / sum over its last n slopes of |a_k|      n = min(T, N); slower than before: less
    DF    = T softmax over probes of (-tau T A_s / sum_s |A_s|), at the last, at most 1; A: slope of the task that is worst off
    mix   = DF RCS + (1 - DF) ACS

`variant: code` gives softmax(K mix), and w = 0.9 w + 1 / (10 K) where a weight would fall below 1 / (10 K); its A is the slope of the
largest y over the tasks. `variant: paper` gives mix; its A is the largest a_k.

Sources: CoBa, arXiv:2410.06741; MFTCoder, class CoBaStatus. Unlike that code: DF never exceeds 1, slopes are taken over real step
numbers, the history of slopes holds N of them at any W, a task that a probe does not measure adds no point (the code closes the gap
up, which makes its slope steeper), and the losses are those of all ranks' tokens together.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any

from mft.training.config import CobaConfig
from mft.training.slopes import Point, SlopeBalancer, relative, restore_points, slope, softmax


class CobaBalancer(SlopeBalancer):
    """The state of CoBa: the last N points and slopes of each task, and all slopes A since the warm-up."""

    kind = "coba"
    settings: CobaConfig

    def __init__(self, settings: CobaConfig, task_names: Sequence[str]) -> None:
        super().__init__(settings, task_names)
        self.first: list[float | None] = [None] * len(self.task_names)
        self.worst: deque[Point] = deque(maxlen=settings.history_probes)
        self.task_slopes: list[deque[float]] = [deque(maxlen=settings.history_probes) for _ in self.task_names]
        self.worst_slopes: list[float] = []

    def _add(self, step: int, losses: Sequence[float | None]) -> None:
        for task, loss in enumerate(losses):
            if loss is not None:
                first = self.first[task]
                self.first[task] = first = loss if first is None else first
                self.points[task].append((step, loss / first))
        # An absent task counts with its last ratio: the largest must not jump because a task was not drawn.
        self.worst.append((step, max(points[-1][1] for points in self.points if points)))

    def _weigh(self) -> list[float]:
        if self.probes < self.settings.warmup_probes:
            return self.weights()
        now = self.slopes()
        for history, value in zip(self.task_slopes, now, strict=True):
            history.append(value)
        self.worst_slopes.append(slope(self.worst) if self.settings.variant == "code" else max(now))
        share = self.divergence_factor()
        mix = [share * own + (1 - share) * past
               for own, past in zip(self.relative_scores(), self.absolute_scores(), strict=True)]
        return mix if self.settings.variant == "paper" else _with_floor(softmax([len(mix) * score for score in mix]))

    def relative_scores(self) -> list[float]:
        """RCS [K]: a task that converges more slowly than the others scores higher. Sum 1."""
        return softmax(relative(history[-1] for history in self.task_slopes))

    def absolute_scores(self) -> list[float]:
        """ACS [K]: a task that converges more slowly than it did, or diverges, scores lower. Sum 1."""
        return softmax([-relative(history)[-1] for history in self.task_slopes])

    def divergence_factor(self) -> float:
        """DF: the share of RCS, 1 while the worst task converges as fast as ever, near 0 when it diverges."""
        scores = softmax([-self.settings.tau * value for value in relative(self.worst_slopes)])
        return min(1.0, len(scores) * scores[-1])

    def state_dict(self) -> dict[str, Any]:
        """See `mft.training.balancing.Balancer`."""
        return {**super().state_dict(), "first": list(self.first), "worst": [[step, value] for step, value in self.worst],
                "task_slopes": [list(history) for history in self.task_slopes], "worst_slopes": list(self.worst_slopes)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `mft.training.balancing.Balancer`."""
        super().load_state_dict(state)
        self.first = list(state["first"])
        restore_points(self.worst, state["worst"])
        for history, saved in zip(self.task_slopes, state["task_slopes"], strict=True):
            history.clear()
            history.extend(saved)
        self.worst_slopes = list(state["worst_slopes"])


def _with_floor(weights: list[float]) -> list[float]:
    floor = 1 / (10 * len(weights))
    return [0.9 * weight + floor for weight in weights] if min(weights) < floor else weights
