"""One fine-tuning run: from a built data folder and a base model to an adapter folder."""

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PrinterCallback, ProgressCallback, TrainerCallback
from trl.trainer.utils import add_fused_lm_head

from mft.errors import Interrupted
from mft.files import write_json
from mft.modeling.adapters import AdapterFacts, add_adapter, quantization_of_base
from mft.modeling.added_tokens import added_tokens, original_base
from mft.modeling.base import lasting_name, read_model_config
from mft.modeling.compute import computes_in
from mft.modeling.kernels import FusedKernels
from mft.modeling.load import load_base
from mft.modeling.recompute import Recompute, every
from mft.modeling.recompute_layers import decoder_layers, recompute_all, recompute_layers
from mft.modeling.start import load_start
from mft.tokenization.token_store import lengths_of
from mft.training.arguments import training_arguments
from mft.training.balancing import balancer_of, check_balance, check_balance_acts
from mft.training.callbacks import StopOnSignal, TerminalProgress
from mft.training.early_stopping import BEST_ADAPTER, BestEvaluation
from mft.training.engine_state import trainable_state
from mft.training.health import StepHealth
from mft.training.job import TrainJob, activations_type, attention_weight_of, base_file_hashes, check_job, check_start
from mft.training.memory_use import MemoryUse, planned_job
from mft.training.noise import noisy_embeddings
from mft.training.outcome import last_losses, save_adapter
from mft.training.ranks import is_first_rank, join_ranks, on_first_rank, rank, world_size
from mft.training.rows import PackedRows
from mft.training.starting_point import METRICS, RUN, claim_run
from mft.training.step_plan import StepPlan
from mft.training.tokens import RunTokens
from mft.training.tracking import Tracking, TrackingOptions
from mft.training.trainer import MultiTaskTrainer, seed_rank
from mft.training.utilization import Utilization, flops_per_token, mean_keys, peak_flops
from mft.training.validation import task_sums_of, validation_losses
from mft.training.watchdog import Watchdog

logger = logging.getLogger(__name__)

ADAPTER = "adapter"


def train(job: TrainJob, tokens: RunTokens, out: Path, *, resume: str = "auto", overwrite: bool = False, replace_other: bool = False,
          tracking: TrackingOptions | None = None) -> dict[str, Any]:
    """Fine-tune and write `out/adapter`; returns run.json (`adapter`, `steps`, `loss`, `tasks`, ...). Every rank calls it.

    `resume`: `auto` goes on from the newest checkpoint of the same job, `never` starts anew, a path names a checkpoint of this
    job. `overwrite` empties `out` first, `replace_other` only if it holds another job.

    Raises:
        ConfigError: what does not go together (mft/training/job.py), all at once.
        DataError: no sample is left to train on.
        OutputError: `out` holds another job, and neither `overwrite` nor `replace_other` is given.
        CheckpointError: the checkpoint to go on from is not whole, or is another job's.
        TrainingStopped: a loss or a gradient is not finite.
        Interrupted: a signal came; the state is saved and `resume` goes on from it.
    """
    tracking = tracking or TrackingOptions(job.model.base, out.name)
    check_job(job, tokens, world_size(), tracking.generations)
    check_balance(job.tasks, tokens.task_names, tokens.validation.records["task"])
    join_ranks(job.distributed.timeout_minutes, deepspeed=job.distributed.engine == "deepspeed")
    base_files = on_first_rank(lambda: base_file_hashes(job.base, job.stamps))
    check_start(job, base_files)
    finished, checkpoint = on_first_rank(lambda: claim_run(out, job.key(tokens.sha256, base_files), resume, overwrite, replace_other))
    if finished is not None:
        logger.info("%s: this run is finished; nothing to do", out)
        return finished
    started = time.perf_counter()
    facts = AdapterFacts(lasting_name(job.model.base, original_base(job.base)), base_files, tokens.prompt_format.reference,
                         job.model.context, job.quantization, list(added_tokens(job.base)))
    follow = Tracking(tracking, out, fresh=resume == "never", first_rank=is_first_rank())
    on_first_rank(follow.begin)
    kernels = FusedKernels(compiled=job.training.kernels.compile, liger=job.training.kernels.liger)
    with follow, Watchdog(out, job.training.health.watchdog_minutes * 60, rank()) as watchdog, StopOnSignal() as stop, kernels:
        job, plan = planned_job(job, world_size(), checkpoint)
        memory = MemoryUse(plan.memory if plan else None)
        trainer, recompute = _trainer(job, tokens, out, checkpoint, plan, kernels, watchdog.tick)
        best = _watched(trainer, job, tokens, out, facts, [follow, watchdog])
        trainer.stop_on(stop)
        with noisy_embeddings(trainer.model, job.training.neftune_alpha):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        if stop.agreed and trainer.state.global_step < trainer.state.max_steps:
            raise Interrupted(f"stopped by a signal after step {trainer.state.global_step}; the state is saved in {out}; "
                              "the same command goes on from there")
        weights = trainable_state(trainer)

    def leave() -> dict[str, Any]:
        save_adapter(trainer.model, facts, tokens.tokenizer, tokens.prompt_format, out / ADAPTER, weights)
        record = {
            "kind": "train", "adapter": str(out / ADAPTER), "steps": trainer.state.global_step,
            **last_losses(out / METRICS, trainer.task_names), "seconds": time.perf_counter() - started, "ranks": world_size(),
            "attention": trainer.model.config._attn_implementation, "micro_batch_rows": job.training.rows_at_once,
            "recompute": bool(recompute), "recompute_layers": recompute.counts(), "kernels": kernels.to_json(),
            "compute_dtype": str(computes_in(job.quantization.compute_dtype)).removeprefix("torch."), "memory": memory.to_json(),
            "trainable_parameters": sum(weight.numel() for weight in weights.values()),
            "tokens": tokens.summary(), "samples": tokens.examples(3), "evaluation": trainer.last_evaluation,
            "best": {"step": best.step, "eval/loss": best.loss} if best.step is not None else None, "stopped_early_at": best.stopped_at,
            "resumed_from": str(checkpoint) if checkpoint else None}
        write_json(out / RUN, record)
        return record

    return on_first_rank(leave)


def _watched(trainer: MultiTaskTrainer, job: TrainJob, tokens: RunTokens, out: Path, facts: AdapterFacts,
             followers: Sequence[TrainerCallback]) -> BestEvaluation:
    """Let the run be watched: losses that are not finite, the best evaluation, and those who only follow."""
    def keep(step: int, loss: float) -> None:
        weights = trainable_state(trainer)
        on_first_rank(lambda: save_adapter(trainer.model, facts, tokens.tokenizer, tokens.prompt_format, out / BEST_ADAPTER, weights))

    trainer.watch_steps(StepHealth(job.training.health, out, fp16=job.quantization.compute_dtype == "fp16"))
    best = BestEvaluation(job.training.early_stopping, keep if job.training.keep_best else None)
    for callback in (best, *followers):
        trainer.add_callback(callback)
    return best


def _trainer(job: TrainJob, tokens: RunTokens, out: Path, checkpoint: Path | None, plan: StepPlan | None, kernels: FusedKernels,
             tick: Callable[[str], None]) -> tuple[MultiTaskTrainer, Recompute]:
    settings, ranks = job.training, world_size()
    base_config = read_model_config(job.base)
    # Before the model: under ZeRO-3 the arguments tell transformers to shard the base while it is loaded.
    arguments = training_arguments(job, out, ranks=ranks, evaluates=bool(tokens.validation))
    rows = PackedRows(tokens.train, job.model.context, settings.seed, attention_weight_of(base_config))
    check_balance_acts(job.tasks, settings.max_steps or settings.epochs * -(-len(rows) // settings.global_batch_rows))
    model = _load(job, checkpoint, kernels)
    recompute = _set_recompute(model, job, plan)

    def measure(indices: Sequence[int]) -> torch.Tensor:
        return task_sums_of(model, tokens.validation, indices, num_tasks=len(tokens.task_names), context=job.model.context,
                            ranks=trainer.accelerator, progress=lambda done, of: tick(f"row {done} of {of} of an evaluation ended"))

    trainer = MultiTaskTrainer(
        model=model, args=arguments, train_rows=rows, task_names=tokens.task_names, tasks=job.tasks, training=settings,
        metrics_path=out / METRICS, evaluate_tasks=lambda: validation_losses(measure(range(len(tokens.validation))), tokens.task_names),
        autocast=activations_type(job.quantization), callbacks=[TerminalProgress()], eval_dataset=tokens.validation or None)
    if (balancer := balancer_of(job.tasks, tokens.task_names)) is not None:
        trainer.balance_by(balancer, tokens.validation.records["task"], measure)
    if torch.cuda.is_available():
        trained = sum(getattr(p, "ds_numel", p.numel()) for p in model.parameters() if p.requires_grad)
        trainer.utilization = Utilization(
            flops_per_token(base_config, keys=mean_keys(lengths_of(tokens.train)),
                            adapter_parameters=0 if job.adapter.type == "full" else trained),
            peak_flops(torch.cuda.get_device_name()))
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    if ranks > 1:
        seed_rank(settings.seed, trainer.args.process_index)
    logger.info("%d samples in %d rows of %d tokens, %d rows a step on %d rank%s", len(tokens.train), len(rows), job.model.context,
                settings.global_batch_rows, ranks, "s" if ranks > 1 else "")
    logger.info("%d row%s at once, %s", settings.rows_at_once, "s" * (settings.rows_at_once > 1), recompute)
    return trainer, recompute


def _set_recompute(model: PreTrainedModel | PeftModel, job: TrainJob, plan: StepPlan | None) -> Recompute:
    """As planned; a base of an unknown kind recomputes all of its layers, unless it is told to recompute none."""
    if plan is None:
        return recompute_all(model) if job.training.recompute != "none" else every("keep", len(decoder_layers(model)))
    recompute_layers(model, plan.recompute)
    return plan.recompute


def _load(job: TrainJob, checkpoint: Path | None, kernels: FusedKernels) -> PreTrainedModel | PeftModel:
    model = load_base(job.base, quantization_of_base(job.adapter, job.quantization), sharded=job.distributed.stage == 3,
                      attention=job.model.attention, cache=job.cache)
    kernels.apply(model)
    add_fused_lm_head(model)
    adapted = add_adapter(model, job.adapter, job.training.seed, start=job.start, new_tokens=list(added_tokens(job.base).values()))
    if checkpoint is not None:
        load_start(adapted, checkpoint)
    return adapted
