"""One fine-tuning run: from a built data folder and a base model to an adapter folder."""

import json
import logging
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import PrinterCallback, ProgressCallback, TrainingArguments
from trl.trainer.utils import add_fused_lm_head

from mft import __version__
from mft.errors import CheckpointError, ConfigError, DataError, Interrupted
from mft.files import atomic_folder, claim_folder, hash_file, job_of, read_json, sha256_json, write_json, write_manifest
from mft.formats.base import PromptFormat
from mft.modeling.adapters import AdapterFacts, add_adapter, write_adapter_facts
from mft.modeling.base import check_context, lasting_name, read_model_config
from mft.modeling.config import AdapterConfig, ModelConfig, QuantizationConfig
from mft.modeling.load import load_base
from mft.modeling.memory import choose_recompute, free_memory_bytes
from mft.process import peak_rss_bytes
from mft.scoring.loss import score_samples, task_losses
from mft.tokenization.encode import TokenizedSample
from mft.tokenization.load import TextTokenizer
from mft.tokenization.release import write_release_tokenizer
from mft.training.callbacks import StopOnSignal, TerminalProgress
from mft.training.checkpoints import check_checkpoint, checkpoints, cut_metrics, sweep_partial
from mft.training.config import TasksConfig, TrainingConfig
from mft.training.rows import PackedRows
from mft.training.tokens import RunTokens
from mft.training.trainer import MultiTaskTrainer

logger = logging.getLogger(__name__)

RUN, METRICS, ADAPTER = "run.json", "metrics.jsonl", "adapter"


@dataclass(frozen=True, slots=True)
class TrainJob:
    """All that decides what a run gives. `base` is the base's folder, `model.base` the name it was given by."""

    base: Path
    model: ModelConfig
    quantization: QuantizationConfig
    adapter: AdapterConfig
    tasks: TasksConfig
    training: TrainingConfig

    def key(self, data_sha256: str, base_files: dict[str, str]) -> str:
        """Hash of everything that changes the weights: two runs with one key give the same adapter."""
        free = {"log_every", "checkpoint_every", "keep_last"}
        return sha256_json({
            "model": self.model.model_dump(exclude={"base"}), "base": base_files, "quantization": self.quantization.model_dump(),
            "adapter": self.adapter.model_dump(), "tasks": self.tasks.model_dump(),
            "training": self.training.model_dump(exclude=free), "data": data_sha256})


def base_file_hashes(base: Path) -> dict[str, str]:
    """sha256 of config.json and of every weights file of a base."""
    return {path.name: hash_file(path)["sha256"] for path in sorted([base / "config.json", *base.glob("*.safetensors")])}


def train(job: TrainJob, tokens: RunTokens, out: Path, *, resume: str = "auto", overwrite: bool = False, replace_other: bool = False,
          report_to: Sequence[str] = ()) -> dict[str, Any]:
    """Fine-tune and write `out/adapter`; returns run.json (`adapter`, `steps`, `loss`, `tasks`, ...).

    `resume`: `auto` goes on from the newest checkpoint of the same job, `never` starts anew, a path names a checkpoint of this
    job. `overwrite` empties `out` first, `replace_other` only if it holds another job.

    Raises:
        ConfigError: more than one process, or a weight for a task that the data does not have.
        DataError: no sample is left to train on.
        OutputError: `out` holds another job, and neither `overwrite` nor `replace_other` is given.
        CheckpointError: the checkpoint to go on from is not whole, or is another job's.
        Interrupted: a signal came; the state is saved and `resume` goes on from it.
    """
    if (processes := int(os.environ.get("WORLD_SIZE", "1"))) > 1:
        raise ConfigError([f"distributed.engine is none, which is one process, but {processes} were started; start it without torchrun"])
    check_context(job.base, job.model.context)
    _check_tasks(job, tokens)
    base_files = base_file_hashes(job.base)
    key = job.key(tokens.sha256, base_files)
    claimed = claim_folder(out, key, overwrite=overwrite, replace_other=replace_other)
    if claimed == "same" and (out / RUN).is_file() and resume == "auto":
        logger.info("%s: this run is finished; nothing to do", out)
        return dict(read_json(out / RUN))
    checkpoint = _starting_point(out, resume, key)
    started = time.perf_counter()
    model = _load(job)
    trainer = _trainer(job, model, tokens, out, report_to)
    with StopOnSignal() as stop:
        trainer.add_callback(stop)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if stop.received is not None and trainer.state.global_step < trainer.state.max_steps:
        raise Interrupted(f"stopped by signal {stop.received} after step {trainer.state.global_step}; the state is saved in {out}; "
                          "the same command goes on from there")
    facts = AdapterFacts(lasting_name(job.model.base, job.base), base_files, tokens.prompt_format.reference, job.model.context,
                         job.quantization)
    save_adapter(model, facts, tokens.tokenizer, tokens.prompt_format, out / ADAPTER)
    record = {
        "kind": "train", "adapter": str(out / ADAPTER), "steps": trainer.state.global_step,
        **last_losses(out / METRICS, trainer.task_names), "seconds": time.perf_counter() - started,
        "memory": {"peak_rss_bytes": peak_rss_bytes(),
                   **({"peak_cuda_bytes": torch.cuda.max_memory_allocated()} if torch.cuda.is_available() else {})},
        "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "tokens": tokens.summary(), "samples": tokens.examples(3), "evaluation": trainer.last_evaluation,
        "resumed_from": str(checkpoint) if checkpoint else None,
    }
    write_json(out / RUN, record)
    return record


def _check_tasks(job: TrainJob, tokens: RunTokens) -> None:
    """What can be refused before gigabytes of weights are read."""
    if unknown := sorted(job.tasks.weights.keys() - set(tokens.task_names)):
        raise ConfigError([f"tasks.weights: {', '.join(unknown)}: not a task of the data; tasks: {', '.join(tokens.task_names)}"])
    if not tokens.train:
        raise DataError("no sample is left to train on; the data's manifest says what was dropped and why")


def _starting_point(out: Path, resume: str, key: str) -> Path | None:
    """The checkpoint to go on from; metrics and checkpoints after it are dropped, they will be made again."""
    sweep_partial(out)
    if resume not in ("auto", "never"):
        chosen: Path | None = Path(resume)
        check_checkpoint(Path(resume))
        if job_of(Path(resume).resolve().parent) != key:
            raise CheckpointError(f"{resume}: is not a checkpoint of this run: its model, data or settings differ, or it does not lie "
                                  "in a run folder of mft")
    else:
        found = checkpoints(out)
        chosen = found[-1][1] if found and resume == "auto" else None
    step = check_checkpoint(chosen) if chosen else 0
    cut_metrics(out / METRICS, step if chosen else -1)
    for later, folder in checkpoints(out):
        if later > step:
            shutil.rmtree(folder)
    if chosen:
        logger.info("going on from %s", chosen)
    return chosen


def _load(job: TrainJob) -> PeftModel:
    model = load_base(job.base, job.quantization)
    add_fused_lm_head(model)
    return add_adapter(model, job.adapter, job.training.seed)


def _trainer(job: TrainJob, model: PeftModel, tokens: RunTokens, out: Path, report_to: Sequence[str]) -> MultiTaskTrainer:
    settings = job.training
    rows = PackedRows(tokens.train, job.model.context, settings.seed)
    arguments = _arguments(job, out, report_to, recompute=choose_recompute(
        settings.recompute, read_model_config(job.base), settings.micro_batch_rows * job.model.context, free_memory_bytes()),
        evaluates=bool(tokens.validation))

    def evaluate_tasks() -> dict[str, float]:
        return validation_losses(model, tokens.validation, tokens.task_names, job.model.context)

    trainer = MultiTaskTrainer(model=model, args=arguments, train_rows=rows, task_names=tokens.task_names, tasks=job.tasks,
                               metrics_path=out / METRICS, evaluate_tasks=evaluate_tasks, callbacks=[TerminalProgress()],
                               eval_dataset=tokens.validation or None)
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    logger.info("%d samples in %d rows of %d tokens, %d rows a step", len(tokens.train), len(rows), job.model.context,
                settings.global_batch_rows)
    return trainer


def _arguments(job: TrainJob, out: Path, report_to: Sequence[str], *, recompute: bool, evaluates: bool) -> TrainingArguments:
    settings = job.training
    schedule = {"cosine": "cosine_with_min_lr", "linear": "linear", "constant": "constant_with_warmup"}[settings.schedule]
    os.environ.setdefault("WANDB_DIR", str(out))
    arguments = TrainingArguments(
        output_dir=str(out), per_device_train_batch_size=settings.micro_batch_rows,
        gradient_accumulation_steps=settings.global_batch_rows // settings.micro_batch_rows,
        num_train_epochs=settings.epochs, max_steps=settings.max_steps or -1, learning_rate=settings.learning_rate,
        lr_scheduler_type=schedule, lr_scheduler_kwargs={"min_lr": settings.min_learning_rate} if settings.schedule == "cosine" else {},
        warmup_steps=settings.warmup, weight_decay=settings.weight_decay, max_grad_norm=settings.clip, optim="adamw_torch",
        adam_beta1=settings.betas[0], adam_beta2=settings.betas[1], seed=settings.seed, data_seed=settings.seed,
        bf16=job.quantization.compute_dtype == "bf16", fp16=job.quantization.compute_dtype == "fp16",
        activation_checkpointing=recompute, activation_checkpointing_kwargs={"use_reentrant": False} if recompute else None,
        logging_strategy="steps", logging_steps=settings.log_every, logging_nan_inf_filter=False,
        eval_strategy="steps" if settings.evaluate_every and evaluates else "no", eval_steps=settings.evaluate_every or None,
        save_strategy="steps" if settings.checkpoint_every else "no", save_steps=settings.checkpoint_every or 500,
        save_total_limit=settings.keep_last, report_to=list(report_to) or "none", disable_tqdm=True,
        remove_unused_columns=False, dataloader_num_workers=0, use_cpu=not torch.cuda.is_available())
    # With several GPUs visible to one process, Trainer would wrap the model in DataParallel, which splits a packed row's batch.
    arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments


def validation_losses(model: PeftModel, samples: Sequence[TokenizedSample], task_names: Sequence[str], context: int) -> dict[str, float]:
    """`eval/loss` (token mean over all tasks) and `eval/loss/task/<t>`, in nats."""
    scores = score_samples(model, samples, context=context)
    by_task = task_losses(scores, len(task_names))
    losses = {"eval/loss": sum(score.nll_sum for score in scores) / sum(score.tokens for score in scores)}
    present = {score.task_id for score in scores}
    return losses | {f"eval/loss/task/{name}": by_task[index] for index, name in enumerate(task_names) if index in present}


def save_adapter(model: PeftModel, facts: AdapterFacts, tokenizer: TextTokenizer, prompt_format: PromptFormat, folder: Path) -> None:
    """Write an adapter folder whole: PEFT's files (float32), `mft.json`, tokenizer, chat template and manifest."""
    with atomic_folder(folder, replace=True) as partial:
        model.save_pretrained(partial)
        write_adapter_facts(partial, facts)
        write_release_tokenizer(tokenizer, prompt_format, partial)
        write_manifest(partial, {"made_by": "mft train", "mft": __version__, **facts.to_json()})


def last_losses(metrics: Path, task_names: Sequence[str]) -> dict[str, Any]:
    """`loss` and `tasks.<t>.loss`: means over the last tenth of the logged steps (tasks: over their tokens there), in nats;
    `tasks.<t>.tokens`: trained tokens of the whole run, the steps before a resumption included.
    """
    lines = [line for line in map(json.loads, metrics.read_text(encoding="utf-8").splitlines()) if "loss" in line]
    tail = lines[-max(1, len(lines) // 10):]
    tasks = {}
    for name in task_names:
        tokens = sum(line[f"tokens/task/{name}"] for line in tail)
        total = sum(line.get(f"loss/task/{name}", 0.0) * line[f"tokens/task/{name}"] for line in tail)
        tasks[name] = {"loss": total / tokens if tokens else None, "tokens": sum(line[f"tokens/task/{name}"] for line in lines)}
    return {"loss": sum(line["loss"] for line in tail) / len(tail), "tasks": tasks}
