"""Stopping on a signal at the end of the running step, and progress on the terminal."""

import signal
import threading
from collections.abc import Callable
from contextlib import ExitStack
from types import FrameType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from mft.log import Move, shows_progress, terminal_bar


class StopOnSignal(TrainerCallback):
    """On SIGTERM or SIGINT: finish the optimizer step, save a checkpoint, stop. A second SIGINT interrupts at once.

    transformers' own just-in-time checkpoint may save before the optimizer step ends and is not exact.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.asked: Callable[[], bool] = lambda: self.received is not None
        """Whether to stop; with several ranks, what all of them agree on."""
        self.agreed = False
        """True once the run has been told to stop."""
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopOnSignal":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> TrainerControl:
        """Ask for a checkpoint and the end of training once a signal has come."""
        if state.global_step < state.max_steps and self.asked():
            self.agreed = True
            control.should_save = True
            control.should_training_stop = True
        return control


class TerminalProgress(TrainerCallback):
    """A bar on stderr with step, loss and time left; nothing where stderr is not a terminal."""

    def __init__(self) -> None:
        self._open = ExitStack()
        self._move: Move | None = None
        self._note = ""

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Open the bar."""
        if shows_progress():
            self._move = self._open.enter_context(terminal_bar("train"))
            self._show(state)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Move the bar."""
        self._show(state)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any) -> None:
        """Show the loss, whole and by task."""
        if self._move and logs and "loss" in logs:
            tasks = " ".join(f"{key.rsplit('/', 1)[1]} {value:.3f}" for key, value in logs.items() if key.startswith("loss/task/"))
            self._note = f"loss {logs['loss']:.3f}  {tasks}"
            self._show(state)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Close the bar."""
        self._open.close()
        self._move = None

    def _show(self, state: TrainerState) -> None:
        if self._move:
            self._move(state.global_step, state.max_steps, f"{state.global_step}/{state.max_steps}  {self._note}")
