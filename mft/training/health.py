"""Losses and gradients that are not finite, and losses that jump: found on every rank at once, and written down with their rows."""

import logging
import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from mft.errors import TrainingStopped
from mft.files import append_json_line, read_json, write_json
from mft.training.config import HealthConfig
from mft.training.ranks import is_first_rank, world_size

logger = logging.getLogger(__name__)

NONFINITE, SPIKES = "nonfinite.json", "loss-spikes.jsonl"
MOST_IN_A_ROW = 10
"""Steps in a row that may be skipped. A run that needs more is lost: its weights or its data are not what they should be."""

MOST_OVERFLOWS = 30
"""Gradients in a row that may overflow under fp16: the loss scale, 65536 at first, is down at 1 after 16 of them."""

MEDIAN_OF, FEWEST = 50, 10
"""Logged losses whose median a new one is compared with, and how many there must be before it is."""

SHOWN_IDS = 8

Names = Callable[[], Sequence[str]]


class StepHealth(TrainerCallback, ExportableState):
    """Looks at every micro-batch's loss and every step's gradient norm; all ranks come to the same decision.

    The device is asked once per optimizer step, not per micro-batch; over ranks it costs one all-reduce of one number. The trainer
    calls `micro_batch` for each loss, `step` between clipping and the optimizer's step, and `logged` for each logged loss.
    """

    def __init__(self, config: HealthConfig, folder: Path, *, fp16: bool = False) -> None:
        self._config = config
        self._folder = folder
        self._fp16 = fp16
        self._step = 0
        self._losses: list[Tensor] = []
        self._names: list[Names] = []
        self._since_logged: list[tuple[int, Names]] = []
        self._in_a_row = self._overflows = 0
        self._steps_since_logged = self._skipped_since_logged = 0
        self._history: deque[float] = deque(maxlen=MEDIAN_OF)
        self._spiking = False
        self.skipped = 0
        """Steps that changed nothing because a loss or a gradient was not finite, since the run began."""

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Begin a new step."""
        self._step = state.global_step + 1
        self._losses, self._names = [], []

    def micro_batch(self, loss: Tensor, names: Names) -> None:
        """Note the loss of a micro-batch, a scalar on its device. `names()` gives the ids of its rows; it is called only if needed,
        so it should hold a few indices, not the batch.
        """
        self._losses.append(loss.detach())
        self._names.append(names)
        if self._config.spike_factor:
            self._since_logged.append((self._step, names))

    def step(self, grad_norm: Tensor | float | None, parameters: Iterable[torch.nn.Parameter],
             task_losses: Callable[[], Mapping[str, float]] = dict) -> bool:
        """Call on every rank between clipping and the optimizer's step. False: the step was made to change nothing.

        A step is skipped by taking the gradients away: Adam then leaves weight, moments and step count of each parameter alone,
        and decays nothing, while the schedule goes on. Under fp16 a gradient that is not finite where the loss is, is the loss
        scaler's affair, which skips that step itself. `task_losses` is called on all ranks or on none.

        Raises:
            TrainingStopped: a loss or the gradient norm is not finite and `on_nonfinite` is `stop`, or it was so too often in a row.
        """
        self._steps_since_logged += 1
        losses_fine, norm_fine = self._finite_everywhere(grad_norm)
        overflow = self._fp16 and losses_fine and not norm_fine
        self._overflows = self._overflows + 1 if overflow else 0
        if (losses_fine and norm_fine) or (overflow and self._overflows <= MOST_OVERFLOWS):
            self._in_a_row = 0 if norm_fine else self._in_a_row
            return True
        self._in_a_row += 1
        skips = self._config.on_nonfinite == "skip" and self._in_a_row <= MOST_IN_A_ROW and not overflow
        message = self._write_down(grad_norm, dict(task_losses()), losses_fine, "skipped" if skips else "stopped")
        if not skips:
            raise TrainingStopped(f"{message}; {self._advice()}")
        self.skipped += 1
        self._skipped_since_logged += 1
        logger.warning("%s; the step was skipped, %d so far", message, self.skipped)
        for parameter in parameters:
            parameter.grad = None
        return False

    def mean_loss(self, loss: float) -> float | None:
        """The mean over the steps since the last log that were not skipped, from the mean in which skipped ones count as 0; None
        where all were skipped. transformers sums the loss up before it knows of a skip, and a NaN would stay in that sum for ever:
        the trainer must put the sum back to what it was before a skipped step.
        """
        kept = self._steps_since_logged - self._skipped_since_logged
        return loss * self._steps_since_logged / kept if kept else None

    def logged(self, step: int, loss: float | None) -> None:
        """Take in a logged loss (None: all of its steps were skipped); call on every rank with the loss over all ranks.

        One warning for each spike, however long it lasts.
        """
        rows, self._since_logged = self._since_logged, []
        self._steps_since_logged = self._skipped_since_logged = 0
        if not self._config.spike_factor or loss is None or not math.isfinite(loss):
            return
        usual = median(self._history) if len(self._history) >= FEWEST else math.inf
        is_spike = loss > self._config.spike_factor * usual
        if is_spike and not self._spiking:
            self._report_spike(step, loss, usual, rows)
        self._spiking = is_spike
        self._history.append(loss)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Take up what the checkpoint says."""
        restore_state(self, state)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, in transformers' own layout."""
        return {"args": {}, "attributes": {
            "skipped": self.skipped, "in_a_row": self._in_a_row, "overflows": self._overflows, "spiking": self._spiking,
            "history": list(self._history)}}

    def load_state(self, attributes: Mapping[str, Any]) -> None:
        """Go on from what `state` gave under `attributes`."""
        self.skipped, self._in_a_row, self._overflows = attributes["skipped"], attributes["in_a_row"], attributes["overflows"]
        self._spiking = attributes["spiking"]
        self._history = deque(attributes["history"], maxlen=MEDIAN_OF)

    def _finite_everywhere(self, grad_norm: Tensor | float | None) -> tuple[bool, bool]:
        """Whether all losses, and the gradient norm, are finite on all ranks."""
        device = self._losses[0].device if self._losses else torch.device("cpu")
        losses = torch.stack([loss.float() for loss in self._losses]) if self._losses else torch.zeros(1, device=device)
        if isinstance(grad_norm, Tensor) and hasattr(grad_norm, "full_tensor"):   # FSDP2 gives a distributed tensor
            grad_norm = grad_norm.full_tensor()
        norm = torch.as_tensor(0.0 if grad_norm is None else grad_norm, dtype=torch.float32, device=device)
        bad = torch.stack([~losses.isfinite().all(), ~norm.isfinite()]).to(torch.int32)
        if world_size() > 1:
            dist.all_reduce(bad, op=dist.ReduceOp.MAX)
        losses_bad, norm_bad = bad.tolist()
        return not losses_bad, not norm_bad

    def _write_down(self, grad_norm: Tensor | float | None, task_losses: Mapping[str, float], losses_fine: bool, action: str) -> str:
        """Add the step to `nonfinite.json` on rank 0; the sentence that says what was found, on all ranks."""
        own = [{"micro_batch": index, "loss": _number(loss.item()), "rows": list(names())}
               for index, (loss, names) in enumerate(zip(self._losses, self._names, strict=True))]
        rows = [{"rank": rank, **batch} for rank, batches in enumerate(_from_all_ranks(own)) for batch in batches]
        norm = None if grad_norm is None else _number(float(grad_norm))
        path = self._folder / NONFINITE
        if is_first_rank():
            earlier = read_json(path)["steps"] if path.is_file() else []
            # Steps from this one on were made before the run went back to a checkpoint.
            steps = [event for event in earlier if event["step"] < self._step]
            write_json(path, {"steps": [*steps, {
                "step": self._step, "action": action, "grad_norm": norm,
                "task_losses": {name: _number(loss) for name, loss in task_losses.items()}, "micro_batches": rows}]})
        bad = [f"rank {batch['rank']} micro-batch {batch['micro_batch']}: {batch['loss']}" for batch in rows
               if isinstance(batch["loss"], str)][:SHOWN_IDS]
        what = f"the gradient norm is {norm}, every loss is finite" if losses_fine else f"the loss is not finite ({', '.join(bad)})"
        tasks = f"; losses by task: {', '.join(f'{name} {_number(loss)}' for name, loss in task_losses.items())}" if task_losses else ""
        return f"step {self._step}: {what}{tasks}; the ids of its rows are in {path}"

    def _advice(self) -> str:
        if self._config.on_nonfinite == "skip":
            return (f"{self._in_a_row - 1} steps before it were skipped in a row, so this is not one bad row: lower learning_rate or "
                    "go back to an earlier checkpoint")
        return ("nothing was saved after the last checkpoint; look at these rows, lower learning_rate, or set "
                "training.health.on_nonfinite: skip")

    def _report_spike(self, step: int, loss: float, usual: float, rows: Sequence[tuple[int, Names]]) -> None:
        own = [(at, list(names())) for at, names in rows]
        everywhere = [batch for batches in _from_all_ranks(own) for batch in batches]
        steps = sorted({at for at, _ in everywhere})
        ids = {str(at): [name for other, names in everywhere if other == at for name in names] for at in steps}
        found = [name for names in ids.values() for name in names]
        if is_first_rank():
            append_json_line(self._folder / SPIKES, {"step": step, "loss": loss, "median": usual, "rows": ids})
            logger.warning("step %d: the loss is %.4g, %.1f times the median of the %d before it (%.4g); rows: %s%s; all of them are in %s",
                           step, loss, loss / usual, len(self._history), usual, ", ".join(found[:SHOWN_IDS]),
                           f" and {len(found) - SHOWN_IDS} more" if len(found) > SHOWN_IDS else "", self._folder / SPIKES)


def restore_state(callback: Any, state: TrainerState) -> None:
    """Load into a callback what the checkpoint holds under its class's name.

    transformers' own way (`restore_callback_states_from_checkpoint`) builds a new callback, of which the trainer would not know.
    """
    name = type(callback).__name__
    stored: Any = state.stateful_callbacks.get(name) if isinstance(state.stateful_callbacks, dict) else None
    if stored is None:
        state.stateful_callbacks = {**(state.stateful_callbacks or {}), name: callback.state()}
        return
    callback.load_state(stored["attributes"])


def health_faults(health: HealthConfig, engine: str) -> list[str]:
    """What an engine cannot do of a run's health settings, one message each.

    Under none, ddp and fsdp the gradients lie with the parameters until the optimizer's step, and can be taken away. DeepSpeed makes
    its step inside the last backward pass, before the gradient norm can be looked at.
    """
    if engine == "deepspeed" and health.on_nonfinite == "skip":
        return ["training.health.on_nonfinite: skip does not go with distributed.engine: deepspeed, which has changed the weights before "
                "the gradient can be looked at; set on_nonfinite: stop, or engine: ddp"]
    return []


def _number(value: float) -> float | str:
    """JSON has no NaN and no infinity: these become strings."""
    return value if math.isfinite(value) else str(value)


def _from_all_ranks(value: Any) -> list[Any]:
    """The value of each rank, in order of the ranks."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values
