"""transformers.Trainer with an exact multi-task loss on any number of ranks, whole checkpoints and one metrics file."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerControl

from mft.files import append_json_line, read_json, write_json
from mft.modeling.modes import uncast_inputs
from mft.training.balancing import Balancer
from mft.training.callbacks import StopOnSignal
from mft.training.checkpoints import checkpoints, whole_checkpoint
from mft.training.config import WEIGHED_MODES, TasksConfig, TrainingConfig, loss_mode
from mft.training.disk import full_disk_named, size_bytes
from mft.training.engine_state import load_optimizer_state, optimizer_state, trainable_state
from mft.training.health import StepHealth
from mft.training.losses import StepCounts, check_trains, count_step, task_loss, task_sums
from mft.training.optimizers import make_optimizer, make_schedule
from mft.training.rows import DealtBatches, PackedRows, RankLoader, TrainBatch
from mft.training.utilization import Utilization

logger = logging.getLogger(__name__)

BALANCE = "balance.json"
"""State of a measured balance, in a checkpoint."""


class MultiTaskTrainer(Trainer):
    """Trainer whose loss is normalised by the counts of the whole optimizer step over all ranks, task by task.

    The model must carry `trl.trainer.add_fused_lm_head`. `evaluate_tasks` gives the validation loss of each task. `autocast`: the type
    of the activations, where it is not that of the weights.
    """

    # Trainer would divide the loss by the number of micro-batches; ours is already a part of the step's sum.
    loss_is_scaled_for_ga = True

    def __init__(self, *, train_rows: PackedRows, task_names: Sequence[str], tasks: TasksConfig, training: TrainingConfig,
                 metrics_path: Path,
                 evaluate_tasks: Callable[[], dict[str, float]], autocast: torch.dtype | None = None, **options: Any) -> None:
        self.train_rows = train_rows
        self.training = training
        self.task_names = list(task_names)
        self.balance = loss_mode(tasks.balance)
        weighs = tasks.balance in WEIGHED_MODES
        self.weights = [tasks.weights.get(name, 1.0) for name in task_names] if weighs else None
        self.metrics_path = metrics_path
        self.evaluate_tasks = evaluate_tasks
        self.autocast = autocast
        self.window = torch.zeros(2, len(self.task_names), dtype=torch.float64)
        self.window_tokens = 0
        self.last_evaluation: dict[str, float] = {}
        self.stop: StopOnSignal | None = None
        self.ranks_asked_to_stop = torch.zeros(1)
        self.balancer: Balancer | None = None
        self.health: StepHealth | None = None
        self.utilization: Utilization | None = None
        self._loss_before, self._window_before = torch.zeros(()), self.window.clone()
        self._probed, self._probe_seconds = -1, 0.0
        self._used_weights = self.weights
        self._clock = time.perf_counter()
        super().__init__(train_dataset=train_rows, data_collator=train_rows.batch, **options)
        self._adapter_layers = [layer for layer in self.model.modules() if isinstance(layer, LoraLayer)] if autocast else []
        # On the device: a GPU is waited for once a step and when a line is written, not in every micro-batch.
        self.window = self.window.to(self.args.device)

    def stop_on(self, stop: StopOnSignal) -> None:
        """Stop all ranks after the same step once one of them has got a signal."""
        self.stop = stop
        if self.accelerator.num_processes > 1:
            stop.asked = lambda: self.ranks_asked_to_stop.item() > 0
        self.add_callback(stop)

    def watch_steps(self, health: StepHealth) -> None:
        """Look at each step's losses and gradient before the weights change."""
        self.health = health
        self.add_callback(health)

    def balance_by(self, balancer: Balancer, validation_tasks: "np.ndarray[Any, Any]", measure: Callable[[Sequence[int]], Tensor]) -> None:
        """Let a balancer set the tasks' weights, from validation losses measured while training.

        Args:
            validation_tasks: the task of each validation sample, [samples].
            measure: sums over all ranks of the losses and trained tokens of each task for these validation samples, [2, K].
        """
        self.balancer = balancer
        self.weights = balancer.weights()
        self._probe = lambda: measure(balancer.probe(validation_tasks))

    # ---- optimizer and schedule: ours, the same under every engine

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """The optimizer of `training`, once."""
        if self.optimizer is None:   # type: ignore[has-type]
            self.optimizer = make_optimizer(self.model if model is None else model, self.training)
        made: torch.optim.Optimizer = self.optimizer
        return made

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LRScheduler:
        """The rates of `training` over so many optimizer steps, once."""
        if self.lr_scheduler is None:   # type: ignore[has-type]
            self.lr_scheduler = make_schedule(self.optimizer if optimizer is None else optimizer, self.training, num_training_steps)
            self._created_lr_scheduler = True
        made: LRScheduler = self.lr_scheduler
        return made

    # ---- data: dealt to ranks by us, so accelerate does not see the loader

    def get_train_dataloader(self) -> DataLoader[list[int]]:
        """This rank's micro-batches, in the order that the seed decides."""
        arguments = self.args
        micro, ranks = arguments.per_device_train_batch_size, self.accelerator.num_processes
        return RankLoader(self.train_rows, DealtBatches(
            self.train_rows, arguments.seed, global_rows=micro * ranks * arguments.gradient_accumulation_steps, micro_rows=micro,
            rank=self.accelerator.process_index, ranks=ranks))

    def get_batch_samples(self, epoch_iterator: Iterator[TrainBatch], num_batches: int,
                          device: torch.device) -> tuple[list[TrainBatch], StepCounts]:
        """The micro-batches of one optimizer step, and the counts of the step over all ranks.

        The same reduction tells every rank whether one of them was asked to stop: all stop after the same step.
        """
        self._loss_before, self._window_before = self._tr_loss.clone(), self.window.clone()
        batches = [batch for _, batch in zip(range(num_batches), epoch_iterator, strict=False)]
        counts = reduce(add, (self._counts(batch) for batch in batches))
        asked = torch.tensor([float(self.stop is not None and self.stop.received is not None)], dtype=torch.float64)
        own = torch.cat((counts.tokens, counts.samples, asked)).to(device)
        self.window[1] += own[:len(self.task_names)]
        told = self.accelerator.reduce(own, "sum")
        tokens, samples, asked = told.split([len(self.task_names), len(self.task_names), 1])
        self.ranks_asked_to_stop = asked
        check_trains(counts := StepCounts(tokens, samples))
        return batches, counts

    def _counts(self, batch: TrainBatch) -> StepCounts:
        return count_step(batch["labels"][:, 1:], batch["task_ids"][:, 1:], batch["sample_ids"][:, 1:], len(self.task_names))

    # ---- loss

    def autocast_smart_context_manager(self, cache_enabled: bool | None = True) -> contextlib.AbstractContextManager[Any]:
        """The type of the activations. Not accelerate's or DeepSpeed's own: these also cast the adapter's float32 weights."""
        if self.autocast is None:
            return contextlib.nullcontext()
        return torch.autocast(self.args.device.type, dtype=self.autocast, cache_enabled=cache_enabled)

    def training_step(self, model: torch.nn.Module, inputs: TrainBatch, num_items_in_batch: StepCounts | None = None) -> Tensor:
        """Forward and backward pass of a micro-batch."""
        with uncast_inputs(self._adapter_layers):
            loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        return loss

    def compute_loss(self, model: torch.nn.Module, inputs: TrainBatch, return_outputs: bool = False,
                     num_items_in_batch: StepCounts | None = None) -> Tensor:
        """This micro-batch's part of the step's loss, times the number of ranks (which average their gradients)."""
        output = model(input_ids=inputs["input_ids"], position_ids=inputs["position_ids"], labels=inputs["labels"],
                       use_cache=False, fused_lm_head=True)
        labels, task_ids = inputs["labels"][:, 1:], inputs["task_ids"][:, 1:]
        token_losses = -output.log_probs
        self.window[0] += task_sums(token_losses, labels, task_ids, len(self.task_names))
        self._used_weights = self.weights
        self.window_tokens += labels.numel() + 1 if len(inputs["samples"]) else 0
        part = task_loss(token_losses, labels, task_ids, inputs["sample_ids"][:, 1:], self.balance, self.weights,
                         num_tasks=len(self.task_names), counts=num_items_in_batch, num_samples=max(1, len(inputs["samples"])))
        loss = part * self.accelerator.num_processes
        if self.health is not None:
            samples = inputs["samples"]
            self.health.micro_batch(loss, lambda: self.train_rows.names(samples.tolist()))
        return loss

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        """transformers calls this once a step, between clipping and the optimizer's step."""
        norm = super()._get_grad_norm(model, grad_norm)
        if self.health is not None and not self.health.step(norm, self.model.parameters(), self._step_losses):
            self._tr_loss.copy_(self._loss_before)
            self.window.copy_(self._window_before)
        return norm

    def _step_losses(self) -> dict[str, float]:
        """Mean loss of each task in this step so far, over all ranks."""
        totals, counts = self.accelerator.reduce(self.window - self._window_before, "sum").tolist()
        return {name: total / count for name, total, count in zip(self.task_names, totals, counts, strict=True) if count}

    def _run_epoch(self, *args: Any, **options: Any) -> None:
        """Nothing where training is over: transformers would make one more step of a run that is resumed at its end."""
        if not self.control.should_training_stop and self.state.global_step < self.state.max_steps:
            super()._run_epoch(*args, **options)

    # ---- what is written

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the tasks' losses to a training line and append it to metrics.jsonl."""
        if "loss" in logs:
            logs = self._training_line(logs)
            if self.health is not None:
                loss = self.health.mean_loss(logs.pop("loss"))
                self.health.logged(self.state.global_step, loss)
                logs = logs if loss is None else {"loss": loss, **logs}
            self._write_line(logs)
        super().log(logs, start_time)

    def _write_line(self, values: dict[str, float]) -> None:
        if self.is_world_process_zero():
            append_json_line(self.metrics_path, {"step": self.state.global_step, **values})

    def _training_line(self, logs: dict[str, float]) -> dict[str, float]:
        shared = torch.cat((self.window.flatten(), self.window.new_tensor([self.window_tokens])))
        *window, tokens_seen = self.accelerator.reduce(shared, "sum").tolist()
        totals, counts = window[:len(self.task_names)], window[len(self.task_names):]
        seconds = time.perf_counter() - self._clock
        self._clock = time.perf_counter()
        line = {"loss": logs["loss"]}
        for index, (name, total, tokens) in enumerate(zip(self.task_names, totals, counts, strict=True)):
            if tokens:
                line[f"loss/task/{name}"] = total / tokens
            line[f"tokens/task/{name}"] = int(tokens)
            if self._used_weights is not None:
                line[f"weight/task/{name}"] = self._used_weights[index]
        line |= {"lr": logs["learning_rate"], "grad_norm": logs.get("grad_norm", float("nan")),
                 "tokens_per_s": tokens_seen / seconds, "seconds": seconds}
        if self.balancer is not None:
            line["probe/seconds"], self._probe_seconds = self._probe_seconds, 0.0
        if self.utilization and (mfu := self.utilization.mfu(line["tokens_per_s"], self.accelerator.num_processes)) is not None:
            line["mfu"] = mfu
        self.window.zero_()
        self.window_tokens = 0
        if torch.cuda.is_available():
            line["memory_bytes"] = torch.cuda.max_memory_allocated()
        return line

    def evaluate(self, *args: Any, **options: Any) -> dict[str, float]:
        """The validation loss of each task, as one line of metrics.jsonl."""
        started = time.perf_counter()
        with self.autocast_smart_context_manager():
            losses = self.evaluate_tasks()
        self.last_evaluation = losses
        line = {**losses, "eval/seconds": time.perf_counter() - started}
        self._write_line(line)
        self._clock = time.perf_counter()
        super().log(dict(line))
        self.control: TrainerControl = self.callback_handler.on_evaluate(self.args, self.state, self.control, losses)
        return losses

    def _maybe_log_save_evaluate(self, *args: Any, **options: Any) -> None:
        if self.balancer is not None and self.state.global_step % self.balancer.every == 0 and self._probed != self.state.global_step:
            self._set_weights(self.balancer)
        super()._maybe_log_save_evaluate(*args, **options)

    def _set_weights(self, balancer: Balancer) -> None:
        started = time.perf_counter()
        with self.autocast_smart_context_manager():
            nll, tokens = self._probe().tolist()
        balancer.observe(self.state.global_step, [total / count if count else None for total, count in zip(nll, tokens, strict=True)])
        self.weights = balancer.weights()
        self._probed = self.state.global_step
        self._probe_seconds += time.perf_counter() - started

    # ---- checkpoints: the same files for every engine and number of ranks

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        folder = Path(self.args.output_dir)
        needed = max((size_bytes(path) for _, path in checkpoints(folder)), default=None)
        with full_disk_named(folder, f"checkpoint-{self.state.global_step}", needed), \
                whole_checkpoint(folder, self.state.global_step, self.args.save_total_limit, self.accelerator) as partial:
            self._checkpoint_root = str(partial)
            try:
                super()._save_checkpoint(model, trial)
            finally:
                del self._checkpoint_root

    def _get_output_dir(self, trial: Any) -> str:
        return getattr(self, "_checkpoint_root", None) or super()._get_output_dir(trial)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the trained weights, float32, in PEFT's layout (a model's, where all weights train); rank 0 writes, all take part."""
        state = trainable_state(self)
        if self.args.should_save:
            self._save(output_dir, state_dict=state)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        state = optimizer_state(self)
        if self.args.should_save:
            torch.save(state, Path(output_dir, "optimizer.pt"))
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir, "scheduler.pt"))
            if self.balancer is not None:
                write_json(Path(output_dir, BALANCE), self.balancer.state_dict())

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        """Nothing: the weights are put in place before the model is wrapped (mft/training/run.py)."""

    def _prepare_for_training(self, max_steps: int, train_dataloader: DataLoader[Any], resume_from_checkpoint: str | None) -> Any:
        # Without the checkpoint: DeepSpeed would look for one of its own, which goes on with the same number of ranks alone.
        prepared = super()._prepare_for_training(max_steps, train_dataloader, None)
        if resume_from_checkpoint is not None:
            folder = Path(resume_from_checkpoint)
            load_optimizer_state(self, torch.load(folder / "optimizer.pt", map_location="cpu", weights_only=True))
            self.lr_scheduler.load_state_dict(torch.load(folder / "scheduler.pt", weights_only=True))
            if self.balancer is not None:
                self.balancer.load_state_dict(read_json(folder / BALANCE))
                self.weights = self.balancer.weights()
                self._probed = self.state.global_step
        return prepared

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Go on with this rank's random numbers; where the checkpoint has none for it (another number of ranks), begin new ones."""
        ranks = self.args.world_size
        names = [f"rng_state_{rank}.pth" for rank in range(ranks)] if ranks > 1 else ["rng_state.pth"]
        folder = Path(checkpoint or ".")
        if all((folder / name).is_file() for name in names) and not (folder / f"rng_state_{ranks}.pth").is_file():
            super()._load_rng_state(checkpoint)
            return
        logger.info("another number of ranks than before: dropout draws new numbers from step %d on", self.state.global_step)
        seed_rank(self.args.seed + 7919 * self.state.global_step, self.args.process_index)


def seed_rank(seed: int, rank: int) -> None:
    """Begin the random numbers of a rank: dropout must differ between ranks."""
    torch.manual_seed((seed * 1_000_003 + rank) % (1 << 63))
