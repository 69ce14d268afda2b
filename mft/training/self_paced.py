"""Self-paced weights as MFTCoder v0.4.3 computed them (class SelfpacedStatus); for repeating old runs only.

With a_k the slope of task k's validation loss through its last points and n_k = K a_k / sum_j |a_j|:

    score_k = softmax(n)_k * (-n_k)        w = softmax(scale * score)

The score is not monotone in the slope, and a task that falls fast mostly gets more weight, not less: `coba` is the balance to take
for a new run. Unlike that code, slopes are taken over real step numbers and losses are those of all ranks' tokens together.
"""

from collections.abc import Sequence

from mft.training.config import SelfPacedConfig
from mft.training.slopes import SlopeBalancer, relative, softmax


class SelfPacedBalancer(SlopeBalancer):
    """The state of the self-paced weights: the last points of each task."""

    kind = "self_paced"
    settings: SelfPacedConfig

    def _add(self, step: int, losses: Sequence[float | None]) -> None:
        for points, loss in zip(self.points, losses, strict=True):
            if loss is not None:
                points.append((step, loss))

    def _weigh(self) -> list[float]:
        steepness = relative(self.slopes())
        scores = [-share * own for share, own in zip(softmax(steepness), steepness, strict=True)]
        return softmax([self.settings.scale * score for score in scores])
