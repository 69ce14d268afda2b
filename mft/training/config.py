"""What a YAML says about a fine-tuning run."""

from typing import Literal

from pydantic import Field, model_validator

from mft.config.model import StrictModel

Balance = Literal["token_mean", "sample_mean", "task_token_mean", "task_sample_mean"]
TASK_MODES = ("task_token_mean", "task_sample_mean")


class TasksConfig(StrictModel):
    """How the losses of several tasks become one."""

    balance: Balance = "task_token_mean"
    """`token_mean`: every trained token counts alike. `sample_mean`: every sample. `task_token_mean`: every task, by the
    mean over its tokens. `task_sample_mean`: every task, by the mean over its samples."""

    weights: dict[str, float] = Field(default_factory=dict)
    """Weight of a task in the `task_*` modes; a task that is not named weighs 1."""

    @model_validator(mode="after")
    def _weights_fit_the_mode(self) -> "TasksConfig":
        if self.weights and self.balance not in TASK_MODES:
            raise ValueError(f"weights act in {' and '.join(TASK_MODES)} only; balance is {self.balance}")
        if bad := [name for name, weight in self.weights.items() if weight <= 0]:
            raise ValueError(f"weights must be above 0; found {', '.join(bad)}")
        return self


class TrainingConfig(StrictModel):
    """Steps, rates and habits of a run."""

    epochs: int = Field(1, ge=1)
    max_steps: int | None = Field(None, ge=1)
    """Stop after this many optimizer steps; overrides `epochs`."""

    global_batch_rows: int = Field(8, ge=1)
    """Packed rows of one optimizer step. What is accumulated follows from it."""

    micro_batch_rows: int = Field(1, ge=1)
    """Packed rows that are computed at once, laid side by side as [1, rows * context]."""

    learning_rate: float = Field(1e-4, gt=0)
    min_learning_rate: float = Field(0.0, ge=0)
    """Where a cosine schedule ends."""

    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: float = Field(0.03, ge=0)
    """Below 1: the share of all steps; from 1 on: a number of steps."""

    weight_decay: float = Field(0.1, ge=0)
    clip: float = Field(1.0, gt=0)
    """Largest norm of the whole step's gradient."""

    optimizer: Literal["adamw"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.95)
    seed: int = Field(1234, ge=0)
    recompute: Literal["auto", "full", "none"] = "auto"
    """Recompute the layers' activations in the backward pass: slower, far less memory. `auto`: only where needed."""

    log_every: int = Field(1, ge=1)
    evaluate_every: int = Field(50, ge=0)
    """Steps between validation losses; 0: never."""

    checkpoint_every: int = Field(50, ge=0)
    """Steps between checkpoints; 0: only when stopped by a signal."""

    keep_last: int = Field(2, ge=1)
    """Older checkpoints are removed."""

    @model_validator(mode="after")
    def _values_fit(self) -> "TrainingConfig":
        if self.global_batch_rows % self.micro_batch_rows:
            raise ValueError(
                f"global_batch_rows ({self.global_batch_rows}) is not a multiple of micro_batch_rows ({self.micro_batch_rows})")
        if self.min_learning_rate > self.learning_rate:
            raise ValueError(f"min_learning_rate ({self.min_learning_rate}) is above learning_rate ({self.learning_rate})")
        if self.min_learning_rate and self.schedule != "cosine":
            raise ValueError(f"min_learning_rate acts with schedule: cosine only; schedule is {self.schedule}")
        return self


class DistributedConfig(StrictModel):
    """Which engine spreads a run over processes."""

    engine: Literal["none"] = "none"
    """`none`: one process."""
