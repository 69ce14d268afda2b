"""The values that a page is made of: what each file of a run folder says, and nothing that it does not say."""

from dataclasses import dataclass, field
from typing import Any

from mft.report.benchmarks import BenchmarkEvaluation
from mft.report.curve import Curve


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage as the project's `run.json` lists it."""

    name: str
    kind: str
    seconds: float | None = None
    skipped: bool = False


@dataclass(frozen=True, slots=True)
class StepLedger:
    """Rows in and out of one data step."""

    step: str
    read: int
    kept: int
    dropped: dict[str, int] = field(default_factory=dict)
    task: str | None = None
    """None where the step looks at all tasks."""


@dataclass(frozen=True, slots=True)
class JoinedTask:
    """A task that was too small to validate on: its rows went `into` another."""

    into: str
    rows: int


@dataclass(frozen=True, slots=True)
class DataBuild:
    """`manifest.json` of a data stage."""

    stage: str
    read: int
    kept: int
    dropped: dict[str, int]
    emitted: int | None = None
    steps: tuple[StepLedger, ...] = ()
    per_task: dict[str, dict[str, int]] = field(default_factory=dict)
    sha256: str | None = None
    joined: dict[str, JoinedTask] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FunnelStep:
    """One step of a synthesis: rows in, made, out, replaced by what was made of them, and dropped by reason."""

    step: str
    read: int
    kept: int
    made: int = 0
    replaced: int = 0
    dropped: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Synthesis:
    """`manifest.json` of a synthesize stage: its funnel, the seeds first."""

    stage: str
    made: int
    kept: int
    funnel: tuple[FunnelStep, ...]


@dataclass(frozen=True, slots=True)
class Lengths:
    """A histogram: `counts[i]` samples of `edges[i]` up to `edges[i + 1]` tokens. Both are empty where there is no sample."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.edges) != len(self.counts) + 1 and (self.edges or self.counts):
            raise ValueError(f"{len(self.edges)} edges and {len(self.counts)} counts; there must be one edge more than counts")


@dataclass(frozen=True, slots=True)
class SplitTokens:
    """One split after encoding and packing; `rows` are packed rows of at most `context` tokens."""

    samples: int
    tokens: int
    trained_tokens: int
    rows: int | None = None
    fill: float | None = None
    context: int | None = None
    read: int | None = None
    kept: int | None = None
    emitted: int | None = None
    dropped: dict[str, int] = field(default_factory=dict)
    per_task: dict[str, dict[str, int]] = field(default_factory=dict)
    lengths: Lengths | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a rendered sample and whether its tokens are trained."""

    text: str
    trained: bool


@dataclass(frozen=True, slots=True)
class TrainedSample:
    """One rendered sample as spans."""

    id: str
    task: str
    spans: tuple[Span, ...]
    origin: str | None = None


@dataclass(frozen=True, slots=True)
class TaskTraining:
    """A task's training loss and the trained tokens that it saw."""

    loss: float | None = None
    """Mean over the last tenth of the log lines, in nats per trained token."""
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Training:
    """`run.json` of a train stage and the curve in its `metrics.jsonl`."""

    stage: str
    steps: int | None = None
    seconds: float | None = None
    trainable_parameters: int | None = None
    adapter: str | None = None
    tasks: dict[str, TaskTraining] = field(default_factory=dict)
    tokens: dict[str, SplitTokens] = field(default_factory=dict)
    samples: tuple[TrainedSample, ...] = ()
    memory: dict[str, Any] = field(default_factory=dict)
    curve: Curve | None = None


@dataclass(frozen=True, slots=True)
class MergeCheck:
    """`merge.json` of a merge stage. What the chosen `verify` does not measure is None."""

    stage: str
    tensors: int
    merged: int
    max_abs_diff: float | None = None
    tolerance: float | None = None
    reference: Any = None
    kl: float | None = None
    top1_agreement: float | None = None
    peak_rss_bytes: int | None = None
    anonymous_bytes: int | None = None
    seconds: float | None = None
    stage_seconds: dict[str, float] = field(default_factory=dict)
    verify: Any = None


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Mean and standard error of (model - base) over the same rows."""

    mean: float
    se: float | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """Held-out loss of each model on one task's rows, and the paired differences to the base."""

    rows: int
    tokens: int
    loss: dict[str, float | None]
    difference: dict[str, PairedDifference] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the evaluation's own check passed, and what it found."""

    ok: bool
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """What could not be judged."""


@dataclass(frozen=True, slots=True)
class Generation:
    """One model's answer to a held-out prompt."""

    task: str
    id: str
    prompt: str
    completion: str
    model: str
    reference: str | None = None
    finish_reason: str | None = None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """`result.json` of an evaluate stage with `benchmark: loss`."""

    stage: str
    models: tuple[str, ...]
    tasks: dict[str, Held]
    overall: Held | None = None
    verdict: Verdict | None = None
    generations: tuple[Generation, ...] = ()
    protocol: dict[str, Any] = field(default_factory=dict)
    divergence: dict[str, Any] | None = None
    """`reference`, `tokens`, and `models`: name -> `kl`, `kl_standard_error`, `top1_agreement`."""


@dataclass(frozen=True, slots=True)
class Run:
    """All that a page shows. `absent` names each part that the folder does not hold, with the reason."""

    name: str
    status: str | None
    mft: str | None
    versions: dict[str, Any]
    stages: tuple[Stage, ...]
    config: str | None
    data: tuple[DataBuild, ...]
    trainings: tuple[Training, ...]
    merges: tuple[MergeCheck, ...]
    evaluations: tuple[Evaluation, ...]
    benchmarks: tuple[BenchmarkEvaluation, ...]
    absent: tuple[str, ...]
    syntheses: tuple[Synthesis, ...] = ()

    def kind_of(self, stage: str) -> str | None:
        """The kind of the stage of that name, None where there is none."""
        return next((each.kind for each in self.stages if each.name == stage), None)
