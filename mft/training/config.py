"""What a YAML says about a fine-tuning run."""

from typing import Annotated, Any, Literal, cast

from pydantic import Field, field_validator, model_validator

from mft.config.model import StrictModel
from mft.config.problems import did_you_mean
from mft.config.sizes import parse_size

LossMode = Literal["token_mean", "sample_mean", "task_token_mean", "task_sample_mean"]
Balance = Literal[LossMode, "coba", "self_paced"]
TASK_MODES = ("task_token_mean", "task_sample_mean")
"""Losses that are a weighed mean over tasks; here, and only here, a user may set `weights`."""

MEASURED_MODES = ("coba", "self_paced")
"""Balances that set the tasks' weights themselves, from validation losses measured while training."""

WEIGHED_MODES = (*TASK_MODES, *MEASURED_MODES)
"""Balances in which a task has a weight, which is logged."""

RECOMPUTE = ("auto", "full", "none")
"""Words that `training.recompute` may be; else it is a size."""


def loss_mode(balance: Balance) -> LossMode:
    """Which of the four losses a balance computes: the measured ones are `task_token_mean` under weights that change."""
    return "task_token_mean" if balance in MEASURED_MODES else cast(LossMode, balance)


class ProbeConfig(StrictModel):
    """What the measured balances have in common: a small validation pass, a probe, every few steps."""

    every: int = Field(1, ge=1)
    """Optimizer steps between probes. MFTCoder's `coba_update_interval` and `selfpaced_interval`, 1 as there. The cost of the probes
    falls in proportion; slopes are taken over real step numbers, so that they mean the same at any value."""

    validation_rows: int = Field(4, ge=1)
    """Validation samples of each task in a probe, other ones each time, all of them in turn. MFTCoder takes one batch of mixed
    tasks on each rank (`coba_sample_valid_num: 1`). More: steadier slopes, dearer probes."""

    history_probes: int = Field(200, ge=2)
    """Probes of a task through which its slope is fitted."""


class CobaConfig(ProbeConfig):
    """CoBa, arXiv:2410.06741: weight goes to tasks that converge slowly, and away from those whose loss begins to rise."""

    warmup_probes: int = Field(100, ge=2)
    """W: tasks weigh the same before this many probes. Paper and MFTCoder (`coba_warmup_steps`): 100; advised there: as many as
    the validation set has batches."""

    history_probes: int = Field(200, ge=2)
    """N: probes of a task through which its slope is fitted. Paper and MFTCoder (`coba_history_length`): 200; advised there:
    between 2 W and 5 W. Longer: weights change less."""

    tau: float = Field(5.0, gt=0)
    """Temperature of the divergence factor, which decides between "slower tasks get more" and "rising tasks get less". Paper and
    MFTCoder (`coba_tau`): 5. The factor is kept within [0, 1] as in the paper; MFTCoder's code lets it grow beyond 1, where the
    second score counts negatively."""

    variant: Literal["code", "paper"] = "code"
    """`code`: as MFTCoder computes it, with a softmax over K times the mixed scores, no task below 1/(10 K), and the divergence
    factor from the slope of the largest loss ratio. `paper`: the mixed scores are the weights, and the divergence factor comes
    from the largest slope; weights differ less."""


class SelfPacedConfig(ProbeConfig):
    """The self-paced weights of MFTCoder v0.4.3, offered to repeat old runs only."""

    history_probes: int = Field(100, ge=2)
    """Probes of a task through which its slope is fitted. MFTCoder: `selfpaced_history_length`, 100."""

    scale: float = Field(50.0, gt=0)
    """The scores are multiplied by this before the last softmax. MFTCoder: `selfpaced_scale_factor`, 50."""


class TasksConfig(StrictModel):
    """How the losses of several tasks become one."""

    balance: Balance = "task_token_mean"
    """`token_mean`: every trained token counts alike. `sample_mean`: every sample. `task_token_mean`: every task, by the
    mean over its tokens. `task_sample_mean`: every task, by the mean over its samples. `coba`, `self_paced`: as `task_token_mean`,
    with weights that follow the tasks' validation losses."""

    weights: dict[str, float] = Field(default_factory=dict)
    """Weight of a task in the `task_*` modes; a task that is not named weighs 1."""

    coba: CobaConfig | None = None
    """Settings of `balance: coba`, and of no other balance."""

    self_paced: SelfPacedConfig | None = None
    """Settings of `balance: self_paced`, and of no other balance."""

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_measured_modes(cls, given: Any) -> Any:
        """A measured balance always has its block, so that a resolved config shows what was used."""
        if not isinstance(given, dict) or given.get("balance") not in MEASURED_MODES or given.get(given["balance"]) is not None:
            return given
        return {**given, given["balance"]: {}}

    @model_validator(mode="after")
    def _settings_fit_the_mode(self) -> "TasksConfig":
        if idle := [name for name in MEASURED_MODES if name != self.balance and getattr(self, name) is not None]:
            raise ValueError(f"the block {' and the block '.join(idle)} would not act: balance is {self.balance}; "
                             f"set balance: {idle[0]}, or take the block out")
        return self

    @model_validator(mode="after")
    def _weights_fit_the_mode(self) -> "TasksConfig":
        if self.weights and self.balance not in TASK_MODES:
            raise ValueError(f"weights act in {' and '.join(TASK_MODES)} only; balance is {self.balance}")
        if bad := [name for name, weight in self.weights.items() if weight <= 0]:
            raise ValueError(f"weights must be above 0; found {', '.join(bad)}")
        return self


class HealthConfig(StrictModel):
    """What a run that nobody watches does when something is wrong."""

    on_nonfinite: Literal["stop", "skip"] = "stop"
    """A loss or gradient that is NaN or infinite. `stop`: every rank stops, the ids of the step's rows are in `nonfinite.json`.
    `skip`: the rows' ids are written down and the step changes neither weights nor Adam state; ten in a row stop the run anyway."""

    spike_factor: float = Field(3.0, ge=0)
    """A logged loss above this many times the median of the 50 before it gives one warning with the ids of its rows. 0: none."""

    watchdog_minutes: float = Field(30.0, ge=0)
    """When for so long no optimizer step, checkpoint or part of an evaluation ends, the Python stacks of the process are written
    to `stacks-rankR.txt` and the process ends. 0: never."""

    @model_validator(mode="after")
    def _factor_is_above_one(self) -> "HealthConfig":
        if 0 < self.spike_factor <= 1:
            raise ValueError(f"spike_factor is {self.spike_factor}: every second loss is above its median; give more than 1, or 0 for none")
        return self


class EarlyStoppingConfig(StrictModel):
    """Stop when the validation loss no longer falls."""

    patience: int = Field(ge=1)
    """Evaluations in a row without a new best loss after which training stops."""

    min_delta: float = Field(0.0, ge=0)
    """How much lower than the best, in nats, a validation loss must be to count as a new best."""


class KernelsConfig(StrictModel):
    """Fused operations in place of those of transformers. None is on unless it is asked for; results differ by rounding alone."""

    compile: bool = False
    """`torch.compile` of the layers of the model, one by one: several graphs of about 10 s on a CPU when a run begins, faster steps
    afterwards. A layer is then recomputed whole or not at all. Not where an engine gathers sharded weights (`zero_stage: 3`, `fsdp`)."""

    norms: Literal["torch", "liger"] = "torch"
    """`liger`: the RMS norms by a Triton kernel of the package liger-kernel; CUDA only, as are the two below."""

    rope: Literal["torch", "liger"] = "torch"
    """The rotation of queries and keys by their positions."""

    mlp: Literal["torch", "liger"] = "torch"
    """SwiGLU: silu(gate) * up in one pass, which keeps less."""

    @property
    def liger(self) -> tuple[str, ...]:
        """The parts that Liger computes, by their names here."""
        return tuple(name for name in ("norms", "rope", "mlp") if getattr(self, name) == "liger")

    @model_validator(mode="after")
    def _one_of_both(self) -> "KernelsConfig":
        if self.compile and self.liger:
            raise ValueError(f"compile fuses norms, rotation and SwiGLU itself, so that {', '.join(self.liger)}: liger would stand in its "
                             "way; take one of the two")
        return self


class TrainingConfig(StrictModel):
    """Steps, rates and habits of a run."""

    epochs: int = Field(1, ge=1)
    max_steps: int | None = Field(None, ge=1)
    """Stop after this many optimizer steps; overrides `epochs`."""

    global_batch_rows: int = Field(8, ge=1)
    """Packed rows of one optimizer step. What is accumulated follows from it."""

    micro_batch_rows: Annotated[int, Field(ge=1)] | Literal["auto"] = 1
    """Packed rows that are computed at once, laid side by side as [1, rows * context]. `auto`: as many as fit, where that is faster;
    a run that goes on keeps what it began with."""

    learning_rate: float = Field(1e-4, gt=0)
    min_learning_rate: float = Field(0.0, ge=0)
    """Where a cosine schedule ends."""

    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: float = Field(0.03, ge=0)
    """Below 1: the share of all steps; from 1 on: a number of steps."""

    weight_decay: float = Field(0.1, ge=0)
    clip: float = Field(1.0, gt=0)
    """Largest norm of the whole step's gradient."""

    optimizer: Literal["adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit"] = "adamw"
    """`adamw`: torch's, 8 bytes of state a trained weight. `adamw_8bit`: bitsandbytes' (arXiv:2110.02861), 2 bytes in blocks of 256,
    for type: full. `paged_*`: the state moves to the host's memory when the GPU's is full; CUDA only."""

    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.95)
    lora_plus_ratio: float | None = Field(None, ge=1)
    """LoRA+ (arXiv:2402.12354): matrices B learn this many times faster than A; the paper advises about 16, with a lower
    learning_rate. null: all alike."""

    neftune_alpha: float = Field(0.0, ge=0)
    """NEFTune (arXiv:2310.05914): noise on the embeddings while training, up to alpha / sqrt(tokens of the sample * hidden size); the
    paper tries 5, 10 and 15. 0: none."""

    seed: int = Field(1234, ge=0)
    recompute: str = "auto"
    """Recompute the layers' activations in the backward pass: slower, far less memory. `auto`: of as few layers, and as little of them,
    as free memory asks for; `full`: of all layers; `none`; or a size such as `40GB`, which what is kept never exceeds. The gradients are
    the same."""

    kernels: KernelsConfig = Field(default_factory=KernelsConfig)

    log_every: int = Field(1, ge=1)
    evaluate_every: int = Field(50, ge=0)
    """Steps between validation losses; 0: never."""

    checkpoint_every: int = Field(50, ge=0)
    """Steps between checkpoints; 0: only when stopped by a signal."""

    keep_last: int = Field(2, ge=1)
    """Older checkpoints are removed."""

    keep_best: bool = False
    """Write the adapter of the lowest validation loss to `adapter-best/`, beside `adapter/`, the last one."""

    early_stopping: EarlyStoppingConfig | None = None
    """Stop when the validation loss no longer falls; null: train to the end."""

    health: HealthConfig = Field(default_factory=HealthConfig)

    @field_validator("recompute")
    @classmethod
    def _is_a_choice_or_a_size(cls, given: str) -> str:
        if given not in RECOMPUTE:
            try:
                parse_size(given)
            except ValueError as error:
                hint = did_you_mean(given, RECOMPUTE)
                raise ValueError(f"expected {', '.join(RECOMPUTE)} or the size of what may be kept, such as 40GB; found {given!r}{hint}"
                                 ) from error
        return given

    @property
    def rows_at_once(self) -> int:
        """`micro_batch_rows` as a number: after `auto` has been resolved (mft/training/step_plan.py)."""
        assert self.micro_batch_rows != "auto"
        return self.micro_batch_rows

    @model_validator(mode="after")
    def _values_fit(self) -> "TrainingConfig":
        if self.micro_batch_rows != "auto" and self.global_batch_rows % self.micro_batch_rows:
            raise ValueError(
                f"global_batch_rows ({self.global_batch_rows}) is not a multiple of micro_batch_rows ({self.micro_batch_rows})")
        if self.min_learning_rate > self.learning_rate:
            raise ValueError(f"min_learning_rate ({self.min_learning_rate}) is above learning_rate ({self.learning_rate})")
        if not self.evaluate_every and (self.keep_best or self.early_stopping):
            raise ValueError(f"{'keep_best' if self.keep_best else 'early_stopping'} needs validation losses, but evaluate_every is 0")
        if self.min_learning_rate and self.schedule != "cosine":
            raise ValueError(f"min_learning_rate acts with schedule: cosine only; schedule is {self.schedule}")
        return self


class DistributedConfig(StrictModel):
    """Which engine spreads a run over processes, and how."""

    engine: Literal["none", "ddp", "deepspeed", "fsdp"] = "none"
    """`none`: one process. `ddp`: every rank holds the whole base; the fastest where it fits. `deepspeed`: ZeRO, see `zero_stage`.
    `fsdp`: FSDP2, base and adapter sharded; not with a 4-bit base."""

    zero_stage: Literal[1, 2, 3] | None = None
    """Only with `deepspeed`, where it is 2 unless given. 1: optimizer states are sharded; 2: gradients too; 3: the base too, 4-bit
    weights included, gathered layer by layer."""

    offload: Literal["none", "optimizer", "all"] = "none"
    """Only with `deepspeed`: optimizer states live in the host's memory, with `all` the sharded weights too (zero_stage: 3)."""

    deepspeed_config: str | None = None
    """A DeepSpeed JSON of one's own, relative to this config; what it leaves out is filled in, and a value that contradicts this
    config is an error."""

    processes: int | None = Field(None, ge=1)
    """Ranks that `mft train` starts on this machine when it is not started by torchrun; default: one for each GPU, or one."""

    timeout_minutes: float = Field(30, gt=0)
    """A rank that waits longer than this for the others ends the run."""

    sequence_parallel: int = Field(1, ge=1)
    """Only 1: over several ranks transformers takes the model's own loss, which knows no tasks."""

    @model_validator(mode="after")
    def _fits_the_engine(self) -> "DistributedConfig":
        if self.sequence_parallel != 1:
            raise ValueError("sequence_parallel must be 1: with sequences split over ranks, transformers and trl take the model's own mean "
                             "loss, which is not the loss of `tasks`; rows of 16k tokens fit with training.recompute: full")
        if self.engine != "deepspeed":
            given = {"zero_stage": self.zero_stage is not None, "offload": self.offload != "none",
                     "deepspeed_config": self.deepspeed_config is not None}
            if idle := [name for name, is_set in given.items() if is_set]:
                raise ValueError(f"{', '.join(idle)}: only with engine: deepspeed; engine is {self.engine}")
        elif self.offload == "all" and self.stage != 3:
            raise ValueError(f"offload: all moves sharded weights to the host, which needs zero_stage: 3; zero_stage is {self.stage}")
        if self.engine == "none" and (self.processes or 1) > 1:
            raise ValueError(f"processes is {self.processes}, but engine: none is one process; set engine: ddp, deepspeed or fsdp")
        return self

    @property
    def stage(self) -> int:
        """The ZeRO stage in force; 0 for other engines."""
        return 0 if self.engine != "deepspeed" else self.zero_stage or 2
