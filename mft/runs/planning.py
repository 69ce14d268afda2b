"""`mft plan`: what each train stage of a project would take of a device and of time, before anything is loaded."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

from mft.config.sizes import parse_size
from mft.errors import ConfigError
from mft.files import MANIFEST
from mft.modeling.base import config_of_base
from mft.modeling.devices import Accelerator, accelerator_of, named_accelerator
from mft.modeling.memory import AUTO_MARGIN, MARGIN, StepShape, adapter_parameters, free_memory_bytes, weight_bytes
from mft.modeling.recompute import Recompute
from mft.runs.config import ProjectConfig, TrainStage
from mft.training.config import DistributedConfig
from mft.training.job import TrainJob, config_faults, step_shape
from mft.training.memory_plan import Choice, MemoryPlan, choices, engines_beside
from mft.training.step_plan import StepPlanner
from mft.training.time_plan import TimePlan, Work, bound_tokens_per_s, time_plan

CONTEXTS = (4096, 8192, 16384, 32768)


@dataclass(frozen=True, slots=True)
class Device:
    """Where a run is planned for. `flops`: peak of bf16, None where it is not known."""

    name: str
    kind: Literal["cuda", "cpu"]
    memory_bytes: int
    flops: float | None


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """What the command line says. `tokens`: trained on in an epoch; `tokens_per_s`: of all devices; `price`: of a device for an hour.

    `fetch`: ask the hub for the config.json of a base that is not known here.
    """

    gpu: str | None = None
    gpus: int | None = None
    tokens: int | None = None
    tokens_per_s: float | None = None
    price: float | None = None
    fetch: bool = True


@dataclass(frozen=True, slots=True)
class StagePlan:
    """One train stage on each of `devices` devices. `fits`: with what `recompute` and `micro_batch_rows` say, with a margin of 5%."""

    name: str
    device: Device
    devices: int
    base: str
    attention: str
    recompute: Recompute
    micro_batch_rows: int
    accumulation: int
    context: int
    trained_parameters: int
    memory: MemoryPlan
    cache_bytes: int
    tokens_per_step: int
    generations: int
    work: Work
    time: TimePlan
    others: tuple[Choice, ...]

    @property
    def fits(self) -> bool:
        """Whether the stage can run as it is planned."""
        return self.memory.fits(self.device.memory_bytes)

    def lack(self) -> str:
        """What is missing where it does not fit, and the settings that would help, as a command line takes them."""
        needed, has = self.memory.total * MARGIN / 1e9, self.device.memory_bytes / 1e9
        missing = f"it needs {needed:.1f} GB of the {has:.1f} GB of {self.device.name}"
        fitting = [choice for choice in self.others if choice.memory.fits(self.device.memory_bytes)]
        if not fitting:
            alone = "; over several GPUs deepspeed with zero_stage: 3 shards it" if self.devices == 1 else ""
            return (f"{missing}, {self.memory.held / 1e9:.1f} GB of them before the first row; no micro-batch, no recomputation and no "
                    f"engine helps: give more memory, 4 bits, or a smaller rank{alone}")
        own = self.others[0].distributed
        best = max(fitting, key=lambda choice: (choice.distributed is own, choice.context == self.context, not choice.recompute,
                                                choice.micro_batch_rows))
        return f"{missing}; fits: {' '.join(self._settings(best, own))}"

    def _settings(self, choice: Choice, own: DistributedConfig) -> Iterator[str]:
        stage, engine = f"stages.{self.name}", choice.distributed
        if engine is not own:
            zero = f", zero_stage: {engine.stage}" if engine.stage else ""
            yield f"'{stage}.distributed={{engine: {engine.engine}{zero}, processes: {engine.processes}}}'"
        if self.generations and (engine.stage == 3 or engine.engine == "fsdp"):
            yield "tracking.generations=0"
        yield f"{stage}.training.recompute={'full' if choice.recompute else 'none'}"
        yield f"{stage}.training.micro_batch_rows={choice.micro_batch_rows}"
        if choice.context != self.context:
            yield f"model.context={choice.context}"

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "stage": self.name, "device": self.device.name, "device_memory_bytes": self.device.memory_bytes, "devices": self.devices,
            "base": self.base, "attention": self.attention, "recompute": bool(self.recompute),
            "recompute_layers": self.recompute.counts(), "micro_batch_rows": self.micro_batch_rows,
            "accumulation": self.accumulation, "context": self.context, "trained_parameters": self.trained_parameters,
            "memory_bytes": self.memory.to_json(), "fits": self.fits,
            "quantized_cache_bytes": self.cache_bytes, "tokens_per_step": self.tokens_per_step,
            "rows": self.work.rows, "data": self.work.source, **self.time.to_json(),
            "choices": [{"engine": choice.distributed.engine, "zero_stage": choice.distributed.stage or None,
                         "recompute": bool(choice.recompute), "micro_batch_rows": choice.micro_batch_rows, "context": choice.context,
                         "total_bytes": choice.memory.total, "fits": choice.memory.fits(self.device.memory_bytes)}
                        for choice in self.others]}


def plan_project(config: ProjectConfig, beside: Path, out: Path, options: PlanOptions, stage: str | None = None) -> list[StagePlan]:
    """Plan every train stage, or one.

    Args:
        beside: the config's folder. out: the project's output folder, where data that is encoded already is looked for.

    Raises:
        ConfigError: what does not go together, all at once; a stage or a device that is not known.
        ModelError: the base is nowhere to be found, or of a kind whose memory is not known.
    """
    stages = [each for each in config.stages if isinstance(each, TrainStage)]
    chosen = [each for each in stages if stage in (None, each.name)]
    if not chosen:
        raise ConfigError([f"--stage: train stages of this config: {', '.join(each.name for each in stages) or 'none'}"])
    return [_plan_stage(config, each, beside, out, options) for each in chosen]


def device_named(asked: str | None) -> Device:
    """The accelerator of this name, a size such as `48GiB`, or, where nothing is asked for, this machine's GPU or its memory.

    Raises:
        ConfigError: neither.
    """
    if asked is None:
        return _device_here()
    with contextlib.suppress(ValueError):
        return Device(asked, "cuda", parse_size(asked), None)
    known = named_accelerator(asked)
    return Device(known.name, "cuda", known.memory_bytes, known.flops)


def check_calibration(asked: str | None) -> None:
    """Refuse to take what is measured on this machine for the speed of another device.

    Raises:
        ConfigError: `--gpu` names a device that this machine does not compute on.
    """
    if asked is None:
        return
    here, there = _device_here(), device_named(asked)
    known = accelerator_of(here.name)
    if here.kind != there.kind or (known and there.flops is not None and known.name != there.name):
        raise ConfigError([f"--calibrate: measures {here.name}, and --gpu is {asked}: leave --gpu out, or calibrate where there is one"])


def _device_here() -> Device:
    import torch

    if not torch.cuda.is_available():
        return Device("this machine's CPU", "cpu", free_memory_bytes(), None)
    name = torch.cuda.get_device_name()
    known: Accelerator | None = accelerator_of(name)
    return Device(name, "cuda", int(torch.cuda.get_device_properties(0).total_memory), known.flops if known else None)


def _plan_stage(config: ProjectConfig, stage: TrainStage, beside: Path, out: Path, options: PlanOptions) -> StagePlan:
    device = device_named(options.gpu)
    ranks = options.gpus or stage.distributed.processes or 1
    base_config, found = config_of_base(config.model.base, beside, fetch=options.fetch)
    job = TrainJob(Path(found), config.model, stage.quantization, stage.adapter, stage.tasks, stage.training, stage.distributed,
                   beside=beside)
    faults = [*_context_faults(config, base_config), *config_faults(job, base_config, ranks, config.tracking.generations)]
    if faults:
        raise ConfigError([f"stage '{stage.name}': {fault}" for fault in faults])
    attention = config.model.attention if config.model.attention != "auto" else _usual_attention(device)
    row = step_shape(job, base_config, attention=attention, device=device.kind)
    rows = bool(config.model.add_tokens) and not row.full
    try:
        step = StepPlanner(row, stage.training, stage.distributed, ranks, trains_rows=rows,
                           fits=lambda memory: memory.total * AUTO_MARGIN <= device.memory_bytes).plan()
    except ConfigError as error:
        raise ConfigError([f"stage '{stage.name}': {fault}" for fault in error.problems]) from error
    longest = int(base_config.get("max_position_embeddings", config.model.context))
    tokens_per_step = stage.training.global_batch_rows * config.model.context
    work = _work(options, out, stage, config.model.context)
    trained = adapter_parameters(row)
    engines = [stage.distributed, *_other_engines(job, base_config, ranks)]
    bound = None if device.flops is None else bound_tokens_per_s(
        base_config, context=config.model.context, adapter_parameters=0 if row.full else trained, again=step.again,
        flops_per_s=device.flops, devices=ranks)
    return StagePlan(
        stage.name, device, ranks, found, attention, step.recompute, step.micro_batch_rows,
        stage.training.global_batch_rows // (ranks * step.micro_batch_rows), config.model.context, trained, step.memory,
        _cache_bytes(config, stage, row), tokens_per_step, config.tracking.generations, work,
        time_plan(work.steps(stage.training), tokens_per_step, ranks, tokens_per_s=options.tokens_per_s, bound=bound,
                  price_per_hour=options.price),
        tuple(choices(row, stage.training, engines, ranks, context=config.model.context, micro_batch_rows=step.micro_batch_rows,
                      contexts=tuple(length for length in CONTEXTS if length <= longest), trains_rows=rows)))


def _other_engines(job: TrainJob, base_config: dict[str, Any], ranks: int) -> list[DistributedConfig]:
    """Those that the run could have instead. Answers of a model in training are no reason against one: they can be switched off."""
    rows = bool(job.model.add_tokens) and job.adapter.type != "full"   # PEFT does not train single rows of a sharded embedding
    return [engine for engine in engines_beside(job.distributed, ranks)
            if not (rows and (engine.stage == 3 or engine.engine == "fsdp"))
            and not config_faults(replace(job, distributed=engine), base_config, ranks)]


def _cache_bytes(config: ProjectConfig, stage: TrainStage, row: StepShape) -> int:
    """Disk that `model.quantized_cache` takes for a stage's base; 0 where an earlier stage keeps the same."""
    if config.model.quantized_cache == "off" or stage.quantization.type != "nf4":
        return 0
    earlier = takewhile(lambda each: each.name != stage.name, config.stages)
    kept = any(isinstance(each, TrainStage) and each.quantization == stage.quantization
               and _starts_from(config, each) == _starts_from(config, stage) for each in earlier)
    return 0 if kept else weight_bytes(row)


def _starts_from(config: ProjectConfig, stage: TrainStage) -> str | None:
    """The merge stage whose model a train stage leaves as it is; None for the project's base."""
    if stage.init_from is None:
        return None
    start = config.stage(stage.init_from)
    return _starts_from(config, start) if isinstance(start, TrainStage) else start.name


def _usual_attention(device: Device) -> str:
    """What `attention: auto` finds where its package is installed. A GPU without flash attention holds masks besides."""
    return "flash_attention_2" if device.kind == "cuda" else "sdpa"


def _context_faults(config: ProjectConfig, base_config: dict[str, Any]) -> list[str]:
    longest = base_config.get("max_position_embeddings")
    if longest is None or config.model.context <= longest:
        return []
    return [f"model.context is {config.model.context}, but {config.model.base} was made for at most {longest} tokens "
            "(max_position_embeddings)"]


def _work(options: PlanOptions, out: Path, stage: TrainStage, context: int) -> Work:
    """How much there is to train on: what the command line says, else what an earlier dry run or run encoded."""
    if options.tokens is not None:
        return Work(math.ceil(options.tokens / context), options.tokens, "--tokens")
    record = out / ".tokens" / stage.name / "train" / MANIFEST
    if record.is_file():
        return _encoded(record.parent, context)
    return Work(None, None, "not encoded yet: `mft train CONFIG --dry-run` does it, or give --tokens")


def _encoded(folder: Path, context: int) -> Work:
    from mft.tokenization.store import read_tokens, statistics

    counts = statistics(read_tokens(folder, context))
    return Work(counts["rows"], counts["tokens"], str(folder))


def summary(plans: Sequence[StagePlan]) -> dict[str, Any]:
    """The project as `--json` prints it: the stage that takes the most memory, sums of steps, hours and cost, and all `stages`."""
    def total(name: str) -> float | None:
        values = [getattr(plan.time, name) for plan in plans]
        return None if None in values else sum(values)

    largest = max(plans, key=lambda plan: plan.memory.total)
    top = ("device", "device_memory_bytes", "devices", "memory_bytes", "tokens_per_step")
    facts = largest.to_json()
    return {**{key: facts[key] for key in top}, "fits": all(plan.fits for plan in plans), "margin": MARGIN,
            **{name: total(name) for name in ("steps", "tokens", "hours", "hours_at_the_bound", "device_hours", "cost")},
            "stages": [plan.to_json() for plan in plans]}
