"""What a run tells wandb and TensorBoard: its config, its data, the lines of metrics.jsonl under their own names, some answers."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from mft.errors import MftError
from mft.extras import require
from mft.files import append_json_line
from mft.training.checkpoints import cut_metrics

logger = logging.getLogger(__name__)

GENERATIONS = "generations.jsonl"
MANIFEST_FACTS = ("sha256", "read", "kept", "emitted", "dropped", "per_task", "mixture")
"""What trackers are told of the data's manifest: not its list of files."""

NOT_METRICS = ("epoch", "total_flos")
"""What transformers adds to every line; with `train_...`, its last line, these are not in metrics.jsonl."""

Sampler = Callable[[Any], Sequence[Mapping[str, str]]]
"""(model) -> answers to held-out prompts, each with the same keys: `task`, `id`, `prompt`, `reference`, `completion`."""


class Tracker(Protocol):
    """One place where a run is followed."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Add values under their names."""

    def table(self, step: int, name: str, rows: Sequence[Mapping[str, str]]) -> None:
        """Add a table of texts."""

    def close(self, exit_code: int) -> None:
        """End it; 0: all went well."""


@dataclass(frozen=True, slots=True)
class TrackingOptions:
    """Where a run is followed. `config`: the resolved project; `data`: the manifest of its built data.

    `generations`: held-out prompts that are answered at each evaluation; `sampler`: answers them, on the first rank.
    """

    project: str
    name: str
    wandb: bool = False
    tensorboard: bool = False
    config: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    generations: int = 0
    sampler: Sampler | None = None


class Tracking(TrainerCallback):
    """Follows a training; a context manager around it, entered before the model is loaded so that a missing login is told at once.

    transformers' own callbacks are not used: they rename (`loss/task/a` becomes `train/loss/task/a`), know of neither the project's
    config nor the data, and begin a run of its own at each resumption. Nothing is written on ranks other than the first.
    """

    def __init__(self, options: TrackingOptions, folder: Path, *, fresh: bool = False, first_rank: bool = True) -> None:
        """`fresh`: begin a wandb run of its own, though the folder names one (`--resume never`)."""
        self._options = options
        self._folder = folder
        self._fresh = fresh
        self._active = first_rank
        self._trackers: list[Tracker] = []

    def begin(self) -> None:
        """Begin the wandb run, unless that has been done. On its own for `on_first_rank`, by which a failure reaches every rank.

        Raises:
            DependencyError: TensorBoard is not installed. ConfigError: wandb has no login, or cannot be reached.
        """
        options = self._options
        if not self._active or self._trackers:
            return
        if options.tensorboard:
            require("tensorboard", extra="tensorboard", why="tracking.tensorboard")
        if options.wandb:
            from mft.training.wandb_run import WandbRun
            self._trackers.append(WandbRun(self._folder, options.project, options.name, self._facts(), fresh=self._fresh))

    def __enter__(self) -> "Tracking":
        self.begin()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        code = 0 if error is None else error.exit_code if isinstance(error, MftError) else 1
        for tracker in self._trackers:
            tracker.close(code)
        self._trackers = []

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Open what needs to know the step that training starts from."""
        if not self._active:
            return
        cut_metrics(self._folder / GENERATIONS, state.global_step)
        if self._options.tensorboard:
            from mft.training.tensorboard_run import TensorBoardRun
            self._trackers.append(TensorBoardRun(self._folder, self._facts(), from_step=state.global_step))

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any) -> None:
        """Hand a line of metrics.jsonl on."""
        values = {name: value for name, value in (logs or {}).items()
                  if isinstance(value, int | float) and name not in NOT_METRICS and not name.startswith("train_")}
        if values:
            for tracker in self._trackers:
                tracker.scalars(state.global_step, values)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any) -> None:
        """Have a few held-out prompts answered; the answers are kept in `generations.jsonl` too."""
        if not self._active or self._options.sampler is None:
            return
        if rows := list(self._options.sampler(model)):
            for row in rows:
                append_json_line(self._folder / GENERATIONS, {"step": state.global_step, **row})
            for tracker in self._trackers:
                tracker.table(state.global_step, "generations", rows)

    def _facts(self) -> dict[str, Any]:
        """What stays the same over the run."""
        data = {name: self._options.data[name] for name in MANIFEST_FACTS if name in self._options.data}
        return {"config": dict(self._options.config), "data": data}


def tracking_faults(generations: int, *, engine: str, zero_stage: int | None, evaluate_every: int) -> list[str]:
    """What of `tracking.generations` cannot be had, one message each. The answers are written on the first rank alone."""
    if not generations:
        return []
    faults = []
    if engine == "fsdp" or (engine == "deepspeed" and zero_stage == 3):
        sharded = "deepspeed with zero_stage 3" if engine == "deepspeed" else "fsdp"
        faults.append(f"tracking.generations is {generations}, but under distributed.engine {sharded} no rank holds the whole model, "
                      "and answers are written on one rank; set generations: 0, or use ddp or zero_stage: 2")
    if not evaluate_every:
        faults.append(f"tracking.generations is {generations}, but answers are written at each evaluation and training.evaluate_every is 0")
    return faults
