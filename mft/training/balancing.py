"""Balances that measure the tasks while training and set their weights: `coba` and `self_paced`.

After each optimizer step that is a multiple of `every`, the trainer scores the validation samples that `probe` names (forward passes
only) and hands the loss of each task to `observe`; from the next step on `weights` enter the `task_token_mean` loss as w_k. The state
belongs into the checkpoint.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from mft.errors import ConfigError
from mft.training.coba import CobaBalancer
from mft.training.config import MEASURED_MODES, CobaConfig, ProbeConfig, SelfPacedConfig, TasksConfig
from mft.training.self_paced import SelfPacedBalancer
from mft.training.slopes import check_measurable


class Balancer(Protocol):
    """What the trainer needs of a measured balance. K tasks, in the order of the run's task names.

    All of it is a function of the calls alone: every rank may hold one, and they agree as long as `observe` gets global losses.
    """

    every: int
    """Optimizer steps between probes."""

    def probe(self, validation_tasks: np.ndarray) -> list[int]:
        """Indices of the validation samples of the next probe, task by task; `validation_tasks` [samples] has each sample's task.

        The same for every number of ranks. Each call moves on in every task's samples, and starts again at their end.

        Raises:
            ConfigError: a task has no validation sample.
        """
        ...

    def observe(self, step: int, losses: Sequence[float | None]) -> None:
        """Take the result of a probe: the loss of each task [K], in nats per trained token over all ranks; None: not measured.

        Raises:
            CheckFailed: a loss is not finite, is below 0, or is 0 from the start.
            ValueError: the step does not grow, or the number of losses is not K.
        """
        ...

    def weights(self) -> list[float]:
        """w_k [K], none below 0, sum 1."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """All of the state, as values that JSON keeps to the bit."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state, exactly as if never stopped.

        Raises:
            CheckpointError: the state is that of another balance, of other tasks or of other settings.
        """
        ...


def balancer_of(tasks: TasksConfig, task_names: Sequence[str]) -> Balancer | None:
    """The balancer of a measured balance; None for the fixed ones."""
    if tasks.balance == "coba":
        return CobaBalancer(tasks.coba or CobaConfig(), task_names)
    if tasks.balance == "self_paced":
        return SelfPacedBalancer(tasks.self_paced or SelfPacedConfig(), task_names)
    return None


def check_balance(tasks: TasksConfig, task_names: Sequence[str], validation_tasks: np.ndarray) -> None:
    """What can be refused before a model is loaded. `validation_tasks` [samples]: each validation sample's task.

    Raises:
        ConfigError: a measured balance, and a task without a validation sample; names all of them.
    """
    if tasks.balance in MEASURED_MODES:
        check_measurable(tasks.balance, task_names, validation_tasks)


def check_balance_acts(tasks: TasksConfig, steps: int) -> None:
    """Refuse a run of so few optimizer steps that no probe could ever change a weight.

    Raises:
        ConfigError: no step follows the first probe that sets weights.
    """
    if tasks.balance not in MEASURED_MODES:
        return
    settings = tasks.coba or tasks.self_paced or ProbeConfig()
    probes, cause, knobs = ((tasks.coba.warmup_probes, "warmup_probes", "warmup_probes or every") if tasks.coba else
                            (2, "the probes that a slope needs", "every"))
    if steps <= (last := probes * settings.every):
        raise ConfigError([
            f"tasks.balance: {tasks.balance} first changes a weight after step {last}, {probes} ({cause}) times {settings.every} (every), "
            f"but the run has {steps} steps: it would never act; lower {knobs}, train longer, or take a fixed balance"])
