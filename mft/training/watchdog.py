"""When no step ends for too long: the stacks of the process are written down and it ends, instead of holding its GPUs for days."""

import faulthandler
import logging
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any, TextIO

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from mft.errors import TrainingStopped

logger = logging.getLogger(__name__)

GRACE = 1.1
"""After this many times the limit the process is ended from C, which needs no Python thread to run."""


class Watchdog(TrainerCallback):
    """Ends the process when nothing has ticked for `limit_s` seconds; 0: never. A context manager around the training.

    Steps, evaluations and checkpoints tick when they end; a long evaluation calls `tick` as its rows go by. A daemon thread writes
    the stacks of all Python threads to `stacks-rankR.txt`, says what happened and ends the process with `os._exit`, as a main
    thread that hangs in NCCL or CUDA can be reached in no other way. Should a C call hold Python's lock, so that no thread runs,
    a timer of faulthandler writes the stacks a tenth later and ends the process with exit code 1, without a message.
    """

    def __init__(self, folder: Path, limit_s: float, rank: int = 0) -> None:
        self._path = folder / f"stacks-rank{rank}.txt"
        self._limit_s = limit_s
        self._rank = rank
        self._last = "training began"
        self._deadline = 0.0
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._file: TextIO | None = None

    def __enter__(self) -> "Watchdog":
        if self._limit_s:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # Opened now: in a process that hangs, or that has no descriptor left, it may be too late.
            self._file = self._path.open("w", encoding="utf-8")
            self.tick("training began")
            self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        if self._file is not None:
            faulthandler.cancel_dump_traceback_later()
            self._file.close()
            self._path.unlink(missing_ok=True)
            self._file = None

    def tick(self, what: str) -> None:
        """Something has ended, which `what` names: the time starts anew."""
        self._last = what
        self._deadline = time.monotonic() + self._limit_s
        if self._file is not None and not self._ended.is_set():
            faulthandler.dump_traceback_later(self._limit_s * GRACE + 1, exit=True, file=self._file)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """A step has ended."""
        self.tick(f"step {state.global_step} ended")

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """An evaluation has ended."""
        self.tick(f"the evaluation after step {state.global_step} ended")

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """A checkpoint has been written."""
        self.tick(f"the checkpoint of step {state.global_step} was written")

    def _watch(self) -> None:
        while (left := self._deadline - time.monotonic()) > 0:
            if self._ended.wait(left):
                return
        if not self._ended.is_set():
            self._end_process()

    def _end_process(self) -> None:
        assert self._file is not None
        limit = f"{self._limit_s / 60:g} minutes" if self._limit_s >= 60 else f"{self._limit_s:g} s"
        self._file.write(f"rank {self._rank}: nothing ended for {limit} after this: {self._last}\n\n")
        self._file.flush()
        faulthandler.dump_traceback(self._file, all_threads=True)
        os.fsync(self._file.fileno())
        logger.error("rank %d: %s, and nothing since for %s (training.health.watchdog_minutes); the process ends here, its stacks are in "
                     "%s; the same command goes on from the last checkpoint", self._rank, self._last, limit, self._path)
        for handler in logging.getLogger().handlers:
            handler.flush()
        sys.stderr.flush()
        os._exit(TrainingStopped.exit_code)
