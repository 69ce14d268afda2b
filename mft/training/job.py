"""What decides what a run gives, and every reason to refuse it before a weight is loaded."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from mft.errors import ConfigError, DataError
from mft.hashes import hash_file, sha256_json, sha256_of
from mft.modeling.added_tokens import added_tokens
from mft.modeling.base import base_files, check_context, read_model_config
from mft.modeling.compute import computes_in, device
from mft.modeling.config import AdapterConfig, ModelConfig, QuantizationConfig, adapter_faults
from mft.modeling.kernels import kernel_faults
from mft.modeling.memory import Attention, StepShape
from mft.modeling.quantized_cache import QuantizedCache
from mft.modeling.shape import shape_of
from mft.modeling.stamps import stamped_hashes
from mft.modeling.start import start_faults
from mft.modeling.targets import base_layers, target_faults, targeted_modules
from mft.tokenization.dealing import attention_weight
from mft.training.config import DistributedConfig, TasksConfig, TrainingConfig
from mft.training.health import health_faults
from mft.training.optimizers import machine_faults, optimizer_faults
from mft.training.tokens import RunTokens
from mft.training.tracking import tracking_faults

FREE = {"log_every", "checkpoint_every", "keep_last", "micro_batch_rows", "recompute", "kernels", "health"}
"""Settings of `training` that may change when a run goes on: they do not change what is trained, but for rounding."""

NOT_TRAINED = {"base", "attention", "quantized_cache"}
"""Settings of `model` that do not change what is trained; the base counts by its files."""


@dataclass(frozen=True, slots=True)
class TrainJob:
    """All that decides what a run gives. `base` is the base's folder, `model.base` the name it was given by.

    `start`: the folder of an adapter that goes on training. `beside`: the folder of the config, where relative names start.
    `stamps`: where hashes of large files are kept between commands. `cache`: where the base is kept in NF4.
    """

    base: Path
    model: ModelConfig
    quantization: QuantizationConfig
    adapter: AdapterConfig
    tasks: TasksConfig
    training: TrainingConfig
    distributed: DistributedConfig = field(default_factory=DistributedConfig)
    start: Path | None = None
    beside: Path = Path()
    stamps: Path | None = None
    cache: QuantizedCache | None = None

    def key(self, data_sha256: str, base_files: dict[str, str]) -> str:
        """Hash of everything that changes what is trained. The engine and the number of ranks do not: a run may go on with others."""
        return sha256_json({
            "model": self.model.model_dump(exclude=NOT_TRAINED), "base": base_files,
            "quantization": self.quantization.model_dump(), "adapter": self.adapter.model_dump(), "tasks": self.tasks.model_dump(),
            "training": self.training.model_dump(exclude=FREE), "data": data_sha256,
            "start": hash_file(self.start / "adapter_model.safetensors")["sha256"] if self.start else None})


def base_file_hashes(base: Path, stamps: Path | None = None) -> dict[str, str]:
    """sha256 of config.json and of every weights file of a base; a file that is as it was is read once in a process.

    `stamps`: where hashes are kept between processes.
    """
    files = base_files(base)
    return stamped_hashes(files, stamps) if stamps else {path.name: sha256_of(path) for path in files}


def check_job(job: TrainJob, tokens: RunTokens, ranks: int, generations: int = 0) -> None:
    """Refuse, all at once, what cannot run on this many processes with this data. No weights file is read.

    `generations`: prompts that are to be answered at each evaluation.

    Raises:
        ConfigError: every contradiction, one line each. DataError: no sample is left to train on. ModelError: the context is longer
        than the base's.
    """
    check_context(job.base, job.model.context)
    base_config = read_model_config(job.base)
    faults = [*config_faults(job, base_config, ranks, generations), *_data_faults(job, tokens), *machine_faults(job.training.optimizer),
              *kernel_faults(job.training.kernels.liger, base_config, device().type),
              *_row_faults(job, base_config), *(start_faults(job.start, job.adapter, base_config) if job.start else ())]
    if faults:
        raise ConfigError(faults)
    if not tokens.train:
        raise DataError("no sample is left to train on; the data's manifest says what was dropped and why")


def config_faults(job: TrainJob, base_config: dict[str, Any], ranks: int, generations: int = 0) -> list[str]:
    """What of the config does not go together, with a base of this config.json on this many processes; no file is read."""
    return [*stage_faults(job, ranks, generations), *target_faults(base_config, job.adapter)]


def stage_faults(job: TrainJob, ranks: int, generations: int = 0) -> list[str]:
    """What of the config does not go together on this many processes, whatever the base; `job.base` is not looked at."""
    return [*job_faults(job, ranks), *adapter_faults(job.adapter, job.quantization), *optimizer_faults(job.training, job.adapter),
            *health_faults(job.training.health, job.distributed.engine),
            *tracking_faults(generations, engine=job.distributed.engine, zero_stage=job.distributed.stage,
                             evaluate_every=job.training.evaluate_every)]


def check_start(job: TrainJob, base_files: dict[str, str]) -> None:
    """Refuse an adapter to go on with that was trained on another base. `base_files`: as `base_file_hashes` gives them.

    Raises:
        ConfigError: each file that differs.
    """
    if job.start and (faults := start_faults(job.start, job.adapter, read_model_config(job.base), base_files)):
        raise ConfigError(faults)


def job_faults(job: TrainJob, ranks: int) -> list[str]:
    """What of the config does not go together, or not with this many processes."""
    training, engine = job.training, job.distributed.engine
    faults = []
    if engine == "none" and ranks > 1:
        faults.append(f"distributed.engine is none, which is one process, but {ranks} were started; set engine: ddp, deepspeed or fsdp")
    least = 1 if training.micro_batch_rows == "auto" else training.micro_batch_rows
    if training.global_batch_rows % (ranks * least):
        faults.append(f"training.global_batch_rows is {training.global_batch_rows}, which {ranks} ranks with micro_batch_rows "
                      f"{training.micro_batch_rows} cannot share; give a multiple of {ranks * least}")
    if engine == "fsdp" and job.quantization.type != "none":
        faults.append(f"quantization.type is {job.quantization.type} with distributed.engine fsdp: sharded 4-bit weights have been "
                      "reported to be silently wrong (bitsandbytes issue 1945); use ddp or deepspeed, or quantization: {type: none}")
    if job.distributed.stage == 3 and job.quantization.type == "nf4" and job.model.quantized_cache != "off":
        faults.append(f"model.quantized_cache is {job.model.quantized_cache} with zero_stage 3, where no rank holds the whole base that "
                      "would be kept; set it to off, or use ddp or deepspeed with zero_stage 1 or 2")
    if engine in ("deepspeed", "fsdp") and job.quantization.compute_dtype == "fp16":
        faults.append(f"quantization.compute_dtype fp16 needs a loss scaler, which distributed.engine {engine} does not get; use bf16")
    if engine in ("deepspeed", "fsdp") and training.optimizer != "adamw":
        faults.append(f"training.optimizer is {training.optimizer}, whose state {engine} cannot shard; use adamw, or engine ddp")
    if engine == "fsdp" and job.adapter.type == "full":
        faults.append("adapter.type is full with distributed.engine fsdp, which is not supported; use deepspeed with zero_stage: 3")
    if training.kernels.compile and (engine == "fsdp" or job.distributed.stage == 3):
        named = "fsdp" if engine == "fsdp" else "deepspeed with zero_stage 3"
        faults.append(f"training.kernels.compile with distributed.engine {named}: weights that are gathered layer by layer are not in a "
                      "compiled layer's graph; use ddp or deepspeed with zero_stage 1 or 2")
    return faults


def _row_faults(job: TrainJob, base_config: dict[str, Any]) -> list[str]:
    """What does not go with the trained rows of `model.add_tokens`."""
    if job.adapter.type == "full" or not added_tokens(job.base):
        return []
    faults = []
    if job.distributed.engine == "fsdp" or job.distributed.stage == 3:
        named = "fsdp" if job.distributed.engine == "fsdp" else "deepspeed with zero_stage 3"
        faults.append(f"model.add_tokens with distributed.engine {named}: PEFT does not train single rows of an embedding that is sharded; "
                      "use ddp or deepspeed with zero_stage 1 or 2")
    layers = base_layers(base_config)
    if layers.head in targeted_modules(layers, job.adapter):
        faults.append(f"adapter.targets: '{layers.head}': with model.add_tokens its new rows are trained by themselves, and a LoRA pair on "
                      "the whole of it would change them too; leave it out")
    return faults


def _data_faults(job: TrainJob, tokens: RunTokens) -> list[str]:
    faults = []
    if unknown := sorted(job.tasks.weights.keys() - set(tokens.task_names)):
        faults.append(f"tasks.weights: {', '.join(unknown)}: not a task of the data; tasks: {', '.join(tokens.task_names)}")
    if job.training.evaluate_every and not tokens.validation:
        faults.append(f"training.evaluate_every is {job.training.evaluate_every}, but the data holds no validation sample; set "
                      "evaluate_every: 0, or split.validation above 0 in the recipe")
    return faults


KERNELS: dict[str, Attention] = {"sdpa": "sdpa", "eager": "eager"}
"""What holds a mask of T^2 numbers; every other implementation of attention keeps as much as flash attention."""


def step_shape(job: TrainJob, base_config: dict[str, Any], *, attention: str, device: Literal["cuda", "cpu"]) -> StepShape:
    """A micro-batch of one row, as the arithmetic of its memory takes it. `attention`: as transformers names it.

    Raises:
        ModelError: the base is of a kind whose memory is not known beforehand.
    """
    quantization = job.quantization
    if device == "cpu" and computes_in(quantization.compute_dtype, torch.device("cpu")) == torch.float32:
        quantization = quantization.model_copy(update={"compute_dtype": "fp32"})
    return StepShape(shape_of(base_config), quantization, job.adapter, job.model.context,
                     KERNELS.get(attention, "flash"), device)


def activations_type(quantization: QuantizationConfig) -> torch.dtype | None:
    """What autocast casts activations to; None where they have the weights' type, or where a loss scaler does it (fp16)."""
    return torch.bfloat16 if computes_in(quantization.compute_dtype) == torch.bfloat16 else None


def attention_weight_of(base_config: dict[str, Any]) -> float:
    """Cost of a squared token of a base of Llama's shape, in tokens (mft/tokenization/dealing.py)."""
    layers, width, inner = (int(base_config[key]) for key in ("num_hidden_layers", "hidden_size", "intermediate_size"))
    heads = int(base_config["num_attention_heads"])
    shared = int(base_config.get("num_key_value_heads") or heads) / heads
    return attention_weight(layers * (2 * width * width * (1 + shared) + 3 * width * inner), layers, width)
