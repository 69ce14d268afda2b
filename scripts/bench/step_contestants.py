"""One process of scripts/bench/step.py: an eager reference, mft's trainer or TRL's, on the same step, made `steps` times.

    python step_contestants.py SPEC.json OUT.json        SPEC: see `Spec`
"""

import hashlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.update({"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"})

import torch
from datasets import Dataset
from peft.tuners.lora import LoraLayer
from step_work import StepWork, gradients, make_model, tiny_tokenizer_folder
from torch.optim.optimizer import register_optimizer_step_post_hook
from transformers import AutoTokenizer, PreTrainedModel, PrinterCallback, ProgressCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer
from trl.trainer.utils import add_fused_lm_head

from mft.errors import MftError
from mft.modeling.attention import choose_attention
from mft.modeling.compute import DTYPES
from mft.modeling.config import ModelConfig
from mft.modeling.kernels import FusedKernels
from mft.modeling.memory import AUTO_MARGIN, free_memory_bytes
from mft.modeling.modes import uncast_inputs
from mft.modeling.recompute import every
from mft.modeling.recompute_layers import recompute_layers
from mft.process import peak_rss_bytes, reset_peak_rss
from mft.training.arguments import training_arguments
from mft.training.config import TasksConfig, TrainingConfig
from mft.training.job import TrainJob, activations_type, attention_weight_of, step_shape
from mft.training.rows import PackedRows
from mft.training.step_plan import StepPlanner
from mft.training.trainer import MultiTaskTrainer

RATE = 1e-3
LARGE_NORM = 1e9
"""Nothing is clipped: gradients are compared as they are."""

Prepare = Callable[[torch.nn.Module], None]


@dataclass(frozen=True, slots=True)
class Spec:
    """`kind`: reference, mft, or trl; `settings`: of mft's `training`, or of TRL's SFTConfig with `packed`.

    `gradients`: the file that the first step's are written to. `room`: memory that mft plans for; `limit`: address space of the process.
    """

    kind: str
    work: str
    steps: int
    settings: dict[str, Any] = field(default_factory=dict)
    gradients: str | None = None
    room: int | None = None
    limit: int | None = None


@dataclass
class Seen:
    """What was seen of a contestant. `ids`: sha256 of the sorted ids of each step.

    `clock`, `cpu`: wall and CPU seconds when the first step begins and at the end of each.
    """

    losses: list[float] = field(default_factory=list)
    clock: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    chosen: str = ""
    gemm_flops: float = 0.0

    def seconds(self) -> list[float]:
        """Of each step."""
        return [end - begin for begin, end in pairwise(self.clock)]

    def cpu_seconds(self) -> list[float]:
        """Of each step, of all threads."""
        return [end - begin for begin, end in pairwise(self.cpu)]


class Watch(TrainerCallback):
    """Notes the gradients of the first step, which nothing has clipped."""

    def __init__(self) -> None:
        self.gradients: dict[str, torch.Tensor] = {}

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if not self.gradients:
            self.gradients = gradients(model)


@contextmanager
def watched(model: torch.nn.Module) -> Iterator[Seen]:
    """Note, step by step, which ids the model was given without padding, and when an optimizer was done."""
    seen, ids = Seen(), []

    def before_forward(module: Any, arguments: Any, options: dict[str, Any]) -> None:
        given, mask = options["input_ids"], options.get("attention_mask")
        if module.training and torch.is_grad_enabled():
            ids.append((given if mask is None else given[mask.bool()]).flatten().cpu())

    def after_step(*_: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seen.clock.append(time.perf_counter())
        seen.cpu.append(time.process_time())
        step = torch.cat(ids).sort().values
        seen.tokens.append(len(step))
        seen.ids.append(hashlib.sha256(step.numpy().tobytes()).hexdigest())
        ids.clear()

    hooks = [model.register_forward_pre_hook(before_forward, with_kwargs=True), register_optimizer_step_post_hook(after_step)]
    reset_peak_rss()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    seen.clock.append(time.perf_counter())
    seen.cpu.append(time.process_time())
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
    seen.peak_bytes = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else peak_rss_bytes()


def run_mft(spec: Spec, work: StepWork, prepare: Prepare | None = None) -> tuple[Seen, dict[str, torch.Tensor]]:
    """mft's own trainer with a plan made as a run makes it. `prepare` may break the model, in tests."""
    device = torch.device(work.device)
    attention = choose_attention(work.config, device, DTYPES[work.quantization.compute_dtype])
    training = TrainingConfig(**{
        "max_steps": spec.steps, "global_batch_rows": len(work.rows), "micro_batch_rows": 1, "learning_rate": RATE, "schedule": "constant",
        "warmup": 0, "weight_decay": 0.0, "clip": LARGE_NORM, "evaluate_every": 0, "checkpoint_every": 0, **spec.settings})
    job = TrainJob(Path(), ModelConfig(base="random", format="codefuse", context=work.context), work.quantization, work.adapter,
                   TasksConfig(balance="token_mean"), training)
    room = spec.room or free_memory_bytes()
    row = step_shape(job, work.config, attention=attention, device=device.type)
    plan = StepPlanner(row, training, job.distributed, 1, fits=lambda memory: AUTO_MARGIN * memory.tensors <= room).plan()
    training = training.model_copy(update={"micro_batch_rows": plan.micro_batch_rows})
    kernels = FusedKernels(compiled=training.kernels.compile, liger=training.kernels.liger)

    def fused(bare: PreTrainedModel) -> None:
        kernels.apply(bare)
        add_fused_lm_head(bare)

    model = make_model(work, attention, before=fused)
    recompute_layers(model, plan.recompute)
    if prepare is not None:
        prepare(model)
    rows = PackedRows(work.tokenized(), work.context, 0, attention_weight_of(work.config))
    rows.rows = work.rows
    with TemporaryDirectory() as folder:
        out = Path(folder)
        arguments = training_arguments(TrainJob(job.base, job.model, job.quantization, job.adapter, job.tasks, training), out, ranks=1,
                                       evaluates=False)
        trainer = MultiTaskTrainer(
            model=model, args=arguments, train_rows=rows, task_names=["all"], tasks=job.tasks, training=training,
            metrics_path=out / "metrics.jsonl", evaluate_tasks=dict, autocast=activations_type(work.quantization))
        seen, found = _run(trainer, model)
        seen.losses = [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    seen.chosen = f"{plan.micro_batch_rows} row{'s' * (plan.micro_batch_rows > 1)} at once, {plan.recompute}, {attention}"
    if kernels.compiled:
        seen.chosen += ", {graphs} graphs, {graph_breaks} graph breaks".format(**kernels.to_json())
    return seen, found


def run_trl(spec: Spec, work: StepWork, prepare: Prepare | None = None) -> tuple[Seen, dict[str, torch.Tensor]]:
    """SFTTrainer. `packed`: the packed rows one by one, padding-free, with the best attention; else its default, padded samples."""
    settings = dict(spec.settings)
    packed = settings.pop("packed", False)
    attention = choose_attention(work.config, torch.device(work.device), DTYPES[work.quantization.compute_dtype]) if packed else "sdpa"
    model = make_model(work, attention)
    if prepare is not None:
        prepare(model)
    each = 1 if packed else min(8, len(work.samples))
    items = len(work.rows) if packed else len(work.samples)
    with TemporaryDirectory() as folder:
        arguments = SFTConfig(
            output_dir=folder, per_device_train_batch_size=each, gradient_accumulation_steps=-(-items // each), max_steps=spec.steps,
            learning_rate=RATE, lr_scheduler_type="constant", weight_decay=0.0, adam_beta1=0.9, adam_beta2=0.95, max_grad_norm=LARGE_NORM,
            bf16=work.bf16, padding_free=packed, max_length=None, dataset_kwargs={"skip_prepare_dataset": True},
            train_sampling_strategy="sequential", logging_steps=1, save_strategy="no", report_to="none", disable_tqdm=True,
            use_cpu=work.device == "cpu", **settings)
        trainer = SFTTrainer(model=model, args=arguments, train_dataset=_dataset(work, packed=packed),
                             processing_class=AutoTokenizer.from_pretrained(tiny_tokenizer_folder()))
        seen, found = _run(trainer, model)
    seen.losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    seen.chosen = f"{'packed, padding-free' if packed else f'{each} padded samples at once'}, {attention}"
    return seen, found


def _run(trainer: Any, model: torch.nn.Module) -> tuple[Seen, dict[str, torch.Tensor]]:
    watch = Watch()
    trainer.add_callback(watch)
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    with watched(model) as seen:
        trainer.train()
    return seen, watch.gradients


def _dataset(work: StepWork, *, packed: bool) -> Dataset:
    if not packed:
        return Dataset.from_list([{"input_ids": ids, "labels": labels} for ids, labels in work.samples])
    return Dataset.from_list([{
        "input_ids": [token for index in row for token in work.samples[index][0]],
        "labels": [label for index in row for label in work.samples[index][1]],
        "seq_lengths": [len(work.samples[index][0]) for index in row]} for row in work.rows])


def run_reference(spec: Spec, work: StepWork, prepare: Prepare | None = None) -> tuple[Seen, dict[str, torch.Tensor]]:
    """One step in plain transformers: each sample alone, eager attention, all logits, the mean over the trained tokens.

    Layers are recomputed, since a long sample's attention would not fit otherwise.
    """
    model = make_model(work, "eager").train()
    recompute_layers(model, every("full", work.config["num_hidden_layers"]))
    layers = [layer for layer in model.modules() if isinstance(layer, LoraLayer)]
    total = 0.0
    with uncast_inputs(layers) if work.bf16 else nullcontext():
        for ids, labels in work.samples:
            given, wanted = (torch.tensor([values], device=work.device) for values in (ids, labels))
            with torch.autocast(work.device, dtype=torch.bfloat16, enabled=work.bf16):
                logits = model(input_ids=given, use_cache=False).logits
            loss = torch.nn.functional.cross_entropy(logits[0, :-1].float(), wanted[0, 1:], ignore_index=-100, reduction="sum")
            (loss / work.trained_tokens).backward()
            total += loss.item()
    return Seen(losses=[total / work.trained_tokens]), gradients(model)


def gemm_rate(work: StepWork) -> float:
    """FLOP/s of the MLP's product for a row of tokens in the type that is computed in: the best of ten."""
    tokens, hidden, inner = work.context, work.config["hidden_size"], work.config["intermediate_size"]
    dtype = torch.bfloat16 if work.bf16 else torch.float32
    left, right = (torch.randn(shape, device=work.device, dtype=dtype) for shape in ((tokens, hidden), (hidden, inner)))
    best = float("inf")
    for _ in range(10):
        if work.device == "cuda":
            torch.cuda.synchronize()
        begin = time.perf_counter()
        left @ right
        if work.device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - begin)
    return 2 * tokens * hidden * inner / best


KINDS = {"mft": run_mft, "trl": run_trl, "reference": run_reference}


def out_of_memory(error: BaseException) -> bool:
    """Whether an allocator refused; the CPU's says so in words alone."""
    words = ("can't allocate memory", "cannot allocate memory", "out of memory", "bad_alloc")
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(word in str(error).lower() for word in words)


def main(spec_path: Path, out: Path) -> int:
    """Run what the spec says; `{"oom": true}` where memory did not suffice."""
    spec = Spec(**json.loads(spec_path.read_text(encoding="utf-8")))
    if spec.limit:
        resource.setrlimit(resource.RLIMIT_AS, (spec.limit, spec.limit))
    try:
        work = StepWork.load(Path(spec.work))
        seen, found = KINDS[spec.kind](spec, work)
        seen.gemm_flops = gemm_rate(work)
    except (RuntimeError, MemoryError, OSError, MftError) as error:
        if not out_of_memory(error):
            raise
        out.write_text(json.dumps({"oom": True}), encoding="utf-8")
        return 0
    if spec.gradients:
        torch.save(found, spec.gradients)
    out.write_text(json.dumps(asdict(seen)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
