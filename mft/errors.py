"""The exceptions a user can meet.

    MftError                     exit 2: a mistake in what was given, printed as a message without a traceback
    +-- ConfigError              a YAML file or an override; carries every problem at once
    +-- DataError                rows, sources, recipes
    +-- FormatError              a prompt format and what it is asked to render
    +-- TokenizerError           a tokenizer that would not give the right ids
    +-- ModelError               a base model or an adapter that cannot be used
    +-- OutputError              an output folder that holds something else
    +-- CheckpointError          a checkpoint that does not belong to this run
    +-- DependencyError          a package of an extra that is not installed
    +-- CheckFailed              exit 3: a check ran and found a fault
    +-- TrainingStopped          exit 3: a run stopped itself: a loss or gradient that is not finite, no step for too long
    +-- ContactLost              exit 3: another process of the run is gone
    +-- RanksFailed              the processes of a run, with the exit code of the one that failed
    +-- Interrupted              exit 130: stopped by a signal, state saved

Anything else that reaches the command line is a bug and keeps its traceback (exit 1).
"""

from collections.abc import Sequence
from typing import Any


class MftError(Exception):
    """A message for the user. `exit_code` is what the command line returns."""

    exit_code = 2


class ConfigError(MftError):
    """One or more mistakes in a config, a recipe or an override; `problems` has one line each."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


class DataError(MftError):
    """Input rows, a source or a built data folder that cannot be used."""


class FormatError(MftError):
    """A prompt format that does not exist, or a conversation that it cannot render."""


class TokenizerError(MftError):
    """A tokenizer that cannot be loaded, or that failed the parity gate."""


class ModelError(MftError):
    """A model or adapter folder that cannot be used as asked."""


class OutputError(MftError):
    """An output folder that already holds something else."""


class CheckpointError(MftError):
    """A checkpoint that is damaged or belongs to another run."""


class DependencyError(MftError):
    """A package that this feature needs and that is not installed."""


class CheckFailed(MftError):
    """A check ran to its end and found a fault. `result` is what it found, for --json."""

    exit_code = 3
    result: dict[str, Any] | None = None


class TrainingStopped(MftError):
    """A run stopped itself, because one of the checks it makes while training found a fault: hence the code of a failed check."""

    exit_code = 3


class ContactLost(MftError):
    """A process of a run can go no further because another one is gone."""

    exit_code = 3


class RanksFailed(MftError):
    """The processes of a run ended; `exit_code` is that of the one which failed first."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message, exit_code)
        self.exit_code = exit_code

    def __str__(self) -> str:
        return str(self.args[0])


class Interrupted(MftError):
    """The work was stopped by a signal after its state had been saved."""

    exit_code = 130
