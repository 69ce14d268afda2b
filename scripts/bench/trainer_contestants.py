"""Two trainers of the same packed rows for scripts/bench/trainer.py: mft's own run, and TRL's SFTTrainer."""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ.update({"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"})

import torch
from accelerate.state import AcceleratorState
from datasets import Dataset
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_post_hook
from transformers import AutoTokenizer, PrinterCallback
from trl import SFTConfig, SFTTrainer

from mft.modeling.adapters import add_adapter
from mft.modeling.base import read_model_config
from mft.modeling.load import load_base
from mft.tokenization.collate import gather
from mft.training.job import TrainJob, attention_weight_of
from mft.training.rows import DealtBatches, PackedRows
from mft.training.run import train
from mft.training.starting_point import METRICS
from mft.training.tokens import RunTokens


@dataclass
class Seen:
    """One run: clocks after each optimizer step, loss and tokens of each step, what the embedding was given."""

    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    """Mean over the step's trained tokens, nats."""

    tokens: list[int] = field(default_factory=list)
    """All tokens of each step, prompts included, as the trainer itself counted them."""

    ids_sha256: str | None = None

    def seconds(self, warmup: int) -> dict[str, float]:
        """From the end of step `warmup` to the end of the last."""
        return {"wall_s": self.wall_s[-1] - self.wall_s[warmup - 1], "cpu_s": self.cpu_s[-1] - self.cpu_s[warmup - 1]}


@dataclass(frozen=True, slots=True)
class Work:
    """What both do: `job` (mft's settings), the encoded data, and the packed rows of each micro-batch in order."""

    job: TrainJob
    tokens: RunTokens
    micro_batches: Sequence[Sequence[int]]
    """Samples of each micro-batch."""

    @property
    def steps(self) -> int:
        """Optimizer steps of a run."""
        return int(self.job.training.max_steps or 0)

    def batches_of_step(self, step: int) -> Sequence[Sequence[int]]:
        """Micro-batches of a step, from 0."""
        rows = self.job.training.global_batch_rows
        return self.micro_batches[step * rows:(step + 1) * rows]

    def tokens_of_step(self, step: int) -> int:
        """All tokens of a step, prompts included."""
        return sum(int(self.tokens.train.lengths[index]) for batch in self.batches_of_step(step) for index in batch)


def make_work(job: TrainJob, tokens: RunTokens) -> Work:
    """The rows that mft's trainer takes, in its order."""
    training = job.training
    rows = PackedRows(tokens.train, job.model.context, training.seed, attention_weight_of(read_model_config(job.base)))
    order = DealtBatches(rows, training.seed, global_rows=training.global_batch_rows, micro_rows=1)
    dealt = [[index for row in batch for index in rows[row]] for batch in order]
    return Work(job, tokens, dealt[:training.global_batch_rows * int(training.max_steps or 0)])


@contextmanager
def watched(hash_ids: bool) -> Iterator[Seen]:
    """Note the clocks after every step of every optimizer; with `hash_ids`, the ids that the embedding is given, in order."""
    seen, digest = Seen(), hashlib.sha256()

    def after_step(*_: Any) -> None:
        seen.wall_s.append(time.perf_counter())
        seen.cpu_s.append(time.process_time())

    def before_forward(module: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        if isinstance(module, torch.nn.Embedding) and module.training:   # not when mft tries the loaded base out
            digest.update(inputs[0].cpu().numpy().tobytes())

    hooks = [register_optimizer_step_post_hook(after_step), *([register_module_forward_pre_hook(before_forward)] if hash_ids else [])]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
    seen.ids_sha256 = digest.hexdigest() if hash_ids else None


def run_mft(work: Work, folder: Path, hash_ids: bool = False) -> Seen:
    """`mft.training.run.train`, whole: packing, balance, health, watchdog, metrics.jsonl."""
    AcceleratorState._reset_state()
    out = folder / "mft"
    with watched(hash_ids) as seen:
        train(work.job, work.tokens, out, resume="never")
    for line in map(json.loads, (out / METRICS).read_text(encoding="utf-8").splitlines()):
        counts = {name: line[f"tokens/task/{name}"] for name in work.tokens.task_names}
        seen.tokens.append(round(line["tokens_per_s"] * line["seconds"]))
        seen.losses.append(sum(line[f"loss/task/{name}"] * count for name, count in counts.items() if count) / sum(counts.values()))
    shutil.rmtree(out)
    return seen


def run_trl(work: Work, folder: Path, hash_ids: bool = False) -> Seen:
    """`trl.SFTTrainer` with the same rows ready made, padding-free, without recomputation; everything else at its default.

    Each row of its data set is one packed row: `input_ids`, `labels` and `seq_lengths`, from which its collator makes position_ids.
    Its loss is the fused head's, the mean over the trained tokens of the whole step. It holds the adapter in bf16.
    """
    AcceleratorState._reset_state()
    job, training = work.job, work.job.training
    model = add_adapter(load_base(job.base, job.quantization), job.adapter, training.seed)
    arguments = SFTConfig(
        output_dir=str(folder / "trl"), per_device_train_batch_size=1, gradient_accumulation_steps=training.global_batch_rows,
        max_steps=work.steps, learning_rate=training.learning_rate, lr_scheduler_type="constant", weight_decay=training.weight_decay,
        adam_beta1=training.betas[0], adam_beta2=training.betas[1], max_grad_norm=training.clip, seed=training.seed, bf16=True,
        gradient_checkpointing=False, padding_free=True, max_length=None, dataset_kwargs={"skip_prepare_dataset": True},
        train_sampling_strategy="sequential", logging_steps=1, save_strategy="no", report_to="none", disable_tqdm=True,
        use_cpu=not torch.cuda.is_available())
    trainer = SFTTrainer(model=model, args=arguments, train_dataset=_dataset(work),
                         processing_class=AutoTokenizer.from_pretrained(job.base))
    trainer.remove_callback(PrinterCallback)
    with watched(hash_ids) as seen:
        trainer.train()
    lines = [line for line in trainer.state.log_history if "loss" in line]
    seen.losses = [line["loss"] for line in lines]
    totals = [0, *(int(line["num_tokens"]) for line in lines)]
    seen.tokens = [after - before for before, after in pairwise(totals)]
    shutil.rmtree(folder / "trl", ignore_errors=True)
    return seen


def _dataset(work: Work) -> Dataset:
    rows = []
    for batch in work.micro_batches:
        laid = gather(work.tokens.train, batch)
        rows.append({"input_ids": laid["input_ids"][0].tolist(), "labels": laid["labels"][0].tolist(),
                     "seq_lengths": [int(work.tokens.train.lengths[index]) for index in batch]})
    return Dataset.from_list(rows)
