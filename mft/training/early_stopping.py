"""The best evaluation so far: its adapter is kept, and training stops when none has been better for a while."""

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from mft.training.config import EarlyStoppingConfig
from mft.training.health import restore_state

logger = logging.getLogger(__name__)

WATCHED = "eval/loss"
BEST_ADAPTER = "adapter-best"


class BestEvaluation(TrainerCallback, ExportableState):
    """Follows the validation loss (`eval/loss`); its state is in every checkpoint.

    `keep(step, loss)` is called on every rank when a loss is the lowest so far: it writes the adapter to `adapter-best/`. With
    `config` training stops after `patience` evaluations in a row without one that is lower by more than `min_delta` than the
    last that was; a loss that is not finite is never lower. All ranks must be given the same loss; they then decide alike.
    """

    def __init__(self, config: EarlyStoppingConfig | None = None, keep: Callable[[int, float], None] | None = None) -> None:
        self._config = config
        self._keep = keep
        self.step: int | None = None
        """Step of the lowest validation loss; None before there is one."""

        self.loss = math.inf
        """The lowest validation loss, in nats."""

        self.stalled = 0
        """Evaluations in a row that were no improvement."""

        self._reference = math.inf
        self.stopped_at: int | None = None
        """Step after which early stopping ended the training, if it did."""

    def improved(self, step: int, loss: float) -> bool:
        """Take in an evaluation; True when its loss is the lowest so far."""
        min_delta = self._config.min_delta if self._config else 0.0
        if loss < self._reference - min_delta:
            self._reference, self.stalled = loss, 0
        else:
            self.stalled += 1
        if not loss < self.loss:
            return False
        self.loss, self.step = loss, step
        return True

    @property
    def is_over(self) -> bool:
        """True when the patience is used up."""
        return self._config is not None and self.stalled >= self._config.patience

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: Any = None,
                    **_: Any) -> TrainerControl:
        """Keep the adapter of a new lowest loss; ask for a checkpoint and the end of training when patience is used up."""
        step, loss = state.global_step, metrics[WATCHED]
        if self.improved(step, loss) and self._keep is not None:
            self._keep(step, loss)
        if self.is_over and step < state.max_steps:
            self.stopped_at = step
            control.should_save = control.should_training_stop = True
            logger.info("step %d: stopped early: %d evaluations in a row were not better than %.4g (training.early_stopping); the lowest "
                        "%s is %.4g, of step %s", step, self.stalled, self._reference, WATCHED, self.loss, self.step)
        return control

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> TrainerControl:
        """Take up what the checkpoint says; a run that had stopped early does not go on."""
        restore_state(self, state)
        control.should_training_stop = control.should_training_stop or self.stopped_at is not None
        return control

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, in transformers' own layout; JSON has no infinity, so it becomes null."""
        return {"args": {}, "attributes": {
            "step": self.step, "loss": _finite_or_none(self.loss), "reference": _finite_or_none(self._reference), "stalled": self.stalled,
            "stopped_at": self.stopped_at}}

    def load_state(self, attributes: Mapping[str, Any]) -> None:
        """Go on from what `state` gave under `attributes`."""
        self.step, self.stalled, self.stopped_at = attributes["step"], attributes["stalled"], attributes["stopped_at"]
        self.loss = math.inf if attributes["loss"] is None else attributes["loss"]
        self._reference = math.inf if attributes["reference"] is None else attributes["reference"]


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
