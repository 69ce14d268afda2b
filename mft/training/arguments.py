"""A run config as transformers' TrainingArguments, for every engine."""

from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from mft.training.config import DistributedConfig, TrainingConfig
from mft.training.deepspeed_config import deepspeed_config
from mft.training.job import TrainJob


def training_arguments(job: TrainJob, out: Path, *, ranks: int, evaluates: bool) -> TrainingArguments:
    """The arguments of a run on this many processes.

    Neither `bf16` nor DeepSpeed's own types are on: the trainer casts activations by autocast under every engine, so that the same
    numbers come out and the adapter's weights stay float32. (fp16 needs accelerate's loss scaler.) Optimizer and schedule are not
    here either: mft/training/optimizers.py makes them.

    Raises:
        ConfigError: the user's DeepSpeed JSON contradicts the run config.
    """
    settings = job.training
    arguments = TrainingArguments(
        output_dir=str(out), per_device_train_batch_size=settings.rows_at_once,
        gradient_accumulation_steps=settings.global_batch_rows // (settings.rows_at_once * ranks),
        num_train_epochs=settings.epochs, max_steps=settings.max_steps or -1, learning_rate=settings.learning_rate,
        max_grad_norm=settings.clip, seed=settings.seed, data_seed=settings.seed,
        fp16=job.quantization.compute_dtype == "fp16",
        logging_strategy="steps", logging_steps=settings.log_every, logging_nan_inf_filter=False,
        eval_strategy="steps" if settings.evaluate_every and evaluates else "no", eval_steps=settings.evaluate_every or None,
        save_strategy="steps" if settings.checkpoint_every else "no", save_steps=settings.checkpoint_every or 500,
        save_total_limit=settings.keep_last, report_to="none", disable_tqdm=True,
        remove_unused_columns=False, dataloader_num_workers=0, use_cpu=not torch.cuda.is_available(),
        ddp_timeout=int(job.distributed.timeout_minutes * 60), **engine_arguments(job.distributed, settings, ranks, job.beside))
    # With several GPUs visible to one process, Trainer would wrap the model in DataParallel, which splits a packed row's batch.
    arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments


def engine_arguments(distributed: DistributedConfig, training: TrainingConfig, ranks: int, beside: Path = Path()) -> dict[str, Any]:
    """The arguments that choose an engine.

    Raises:
        ConfigError: the user's DeepSpeed JSON contradicts the run config.
    """
    if distributed.engine == "deepspeed":
        return {"deepspeed": deepspeed_config(distributed, training, ranks=ranks, pin_memory=torch.cuda.is_available(), beside=beside)}
    if distributed.engine == "fsdp":
        return {"fsdp": True, "fsdp_config": {"fsdp_version": 2, "reshard_after_forward": True, "state_dict_type": "SHARDED_STATE_DICT",
                                              "auto_wrap_policy": "TRANSFORMER_BASED_WRAP"}}
    return {"ddp_find_unused_parameters": False}
