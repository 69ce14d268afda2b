"""What a merge reports about itself."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check measured; its fields are those of MergeResult. All None: nothing was checked."""

    max_abs_diff: float | None = None
    tolerance: float | None = None
    reference: str | None = None
    kl: float | None = None
    top1_agreement: float | None = None


@dataclass(frozen=True, slots=True)
class MergeResult:
    """The counts, the check and the cost of one merge; `merge.json` in the output folder holds the same.

    `max_abs_diff`, `tolerance` and `reference` are None with `verify: none`; `kl`, in nats per token, and
    `top1_agreement`, a fraction, are None unless `verify: logits`.
    """

    tensors: int
    """Tensors written: all of the base."""
    merged: int
    """Tensors that the adapter changed."""
    verify: str
    max_abs_diff: float | None
    """Largest difference between the merged weights' outputs and those of `reference`."""
    tolerance: float | None
    """What rounding to the output dtype may account for, where `max_abs_diff` was found."""
    reference: str | None
    """What the merged weights were compared with."""
    kl: float | None
    top1_agreement: float | None
    onto: str
    """Which weights the adapter was added to."""
    adapters: list[dict[str, Any]]
    """Folder and weight of each adapter."""
    from_trained: dict[str, Any] | None
    """How far the merged model is from the NF4 model that was trained (the fields of `TrainedDistance`); None where the adapter was
    not trained on one, does not say, or nothing was verified. `distance.json` in the output folder has it tensor by tensor."""
    resumed_bytes: int
    """Bytes of weight files that an earlier, killed attempt had finished."""
    peak_rss_bytes: int
    """Largest resident memory of the process so far, file pages included."""
    anonymous_bytes: int
    """Largest anonymous memory during the merge, above that at its start (the loaded interpreter)."""
    seconds: float
    """Wall time up to the writing of the manifest."""
    stage_seconds: dict[str, float]
    """Wall time of `hash` (the files of base and adapters), `merge` (read, add, write, fsync) and `verify`."""

    def to_json(self) -> dict[str, Any]:
        """The fields as plain data."""
        return asdict(self)
