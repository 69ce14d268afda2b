"""transformers.Trainer with an exact multi-task loss, whole checkpoints and one metrics file."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Sampler
from transformers import Trainer, TrainerControl

from mft.files import append_json_line
from mft.tokenization.collate import Batch
from mft.training.checkpoints import whole_checkpoint
from mft.training.config import TASK_MODES, TasksConfig
from mft.training.losses import StepCounts, count_step, task_loss, task_sums
from mft.training.rows import PackedRows, SeededOrder

logger = logging.getLogger(__name__)


class MultiTaskTrainer(Trainer):
    """Trainer whose loss is normalised by the counts of the whole optimizer step, task by task.

    The model must carry `trl.trainer.add_fused_lm_head`. `evaluate_tasks` gives the validation loss of each task.
    """

    # Trainer would divide the loss by the number of micro-batches; ours is already a part of the step's sum.
    loss_is_scaled_for_ga = True

    def __init__(self, *, train_rows: PackedRows, task_names: Sequence[str], tasks: TasksConfig, metrics_path: Path,
                 evaluate_tasks: Callable[[], dict[str, float]], **options: Any) -> None:
        self.task_names = list(task_names)
        self.balance = tasks.balance
        weighs = tasks.balance in TASK_MODES
        self.weights = [tasks.weights.get(name, 1.0) for name in task_names] if weighs else None
        self.metrics_path = metrics_path
        self.evaluate_tasks = evaluate_tasks
        self.window = torch.zeros(2, len(self.task_names), dtype=torch.float64)
        self.window_tokens = 0
        self.last_evaluation: dict[str, float] = {}
        self._clock = time.perf_counter()
        super().__init__(train_dataset=train_rows, data_collator=train_rows.batch, **options)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return SeededOrder(len(self.train_dataset), self.args.seed)

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = ["input_ids", "labels", "position_ids", "task_ids", "sample_ids"]

    def get_batch_samples(
            self, epoch_iterator: Iterator[Batch], num_batches: int, device: torch.device) -> tuple[list[Batch], StepCounts]:
        """The micro-batches of one optimizer step, and the counts of the step over all ranks."""
        batches = [batch for _, batch in zip(range(num_batches), epoch_iterator, strict=False)]
        counts = reduce(add, (self._counts(batch) for batch in batches))
        tokens, samples = (self.accelerator.reduce(part.to(device), "sum") for part in (counts.tokens, counts.samples))
        return batches, StepCounts(tokens, samples)

    def _counts(self, batch: Batch) -> StepCounts:
        return count_step(batch["labels"][:, 1:], batch["task_ids"][:, 1:], batch["sample_ids"][:, 1:], len(self.task_names))

    def compute_loss(self, model: torch.nn.Module, inputs: Batch, return_outputs: bool = False,
                     num_items_in_batch: StepCounts | None = None) -> Tensor:
        """This micro-batch's part of the step's loss, times the number of ranks (which average their gradients)."""
        output = model(input_ids=inputs["input_ids"], position_ids=inputs["position_ids"], labels=inputs["labels"],
                       use_cache=False, fused_lm_head=True)
        labels, task_ids = inputs["labels"][:, 1:], inputs["task_ids"][:, 1:]
        token_losses = -output.log_probs
        sums = task_sums(token_losses, labels, task_ids, len(self.task_names)).cpu()
        self.window += torch.stack((sums, self._counts(inputs).tokens.cpu()))
        self.window_tokens += labels.numel() + 1
        part = task_loss(token_losses, labels, task_ids, inputs["sample_ids"][:, 1:], self.balance, self.weights,
                         num_tasks=len(self.task_names), counts=num_items_in_batch)
        return part * self.accelerator.num_processes

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the tasks' losses to a training line and append it to metrics.jsonl."""
        if "loss" in logs:
            logs = self._training_line(logs)
            append_json_line(self.metrics_path, {"step": self.state.global_step, **logs})
        super().log(logs, start_time)

    def _training_line(self, logs: dict[str, float]) -> dict[str, float]:
        window = self.accelerator.reduce(self.window.to(self.args.device), "sum").cpu()
        self.window.zero_()
        seconds = time.perf_counter() - self._clock
        self._clock = time.perf_counter()
        line = {"loss": logs["loss"]}
        for index, name in enumerate(self.task_names):
            total, tokens = window[:, index].tolist()
            if tokens:
                line[f"loss/task/{name}"] = total / tokens
            line[f"tokens/task/{name}"] = int(tokens)
            if self.weights is not None:
                line[f"weight/task/{name}"] = self.weights[index]
        line |= {"lr": logs["learning_rate"], "grad_norm": logs.get("grad_norm", float("nan")),
                 "tokens_per_s": self.window_tokens * self.accelerator.num_processes / seconds, "seconds": seconds}
        self.window_tokens = 0
        if torch.cuda.is_available():
            line["memory_bytes"] = torch.cuda.max_memory_allocated()
        return line

    def evaluate(self, *args: Any, **options: Any) -> dict[str, float]:
        """The validation loss of each task, as one line of metrics.jsonl."""
        started = time.perf_counter()
        losses = self.evaluate_tasks()
        self.last_evaluation = losses
        line = {**losses, "eval/seconds": time.perf_counter() - started}
        append_json_line(self.metrics_path, {"step": self.state.global_step, **line})
        self._clock = time.perf_counter()
        super().log(dict(line))
        self.control: TrainerControl = self.callback_handler.on_evaluate(self.args, self.state, self.control, losses)
        return losses

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        with whole_checkpoint(Path(self.args.output_dir), self.state.global_step, self.args.save_total_limit) as partial:
            self._checkpoint_root = str(partial)
            try:
                super()._save_checkpoint(model, trial)
            finally:
                del self._checkpoint_root

    def _get_output_dir(self, trial: Any) -> str:
        return getattr(self, "_checkpoint_root", None) or super()._get_output_dir(trial)
