"""What a user says about a Slurm job: `--slurm KEY=VALUE`."""

import re
from collections.abc import Sequence

from pydantic import Field, field_validator

from mft.config.load import validate
from mft.config.model import StrictModel
from mft.config.overrides import apply_override
from mft.config.yaml import Document
from mft.errors import ConfigError

TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<parts>\d+(?::\d+){0,2})")
WORD = r"^[^\s\"'\\]+$"


class SlurmOptions(StrictModel):
    """Each key becomes a line #SBATCH of the script; null: the cluster's default."""

    partition: str | None = Field(None, pattern=WORD)
    account: str | None = Field(None, pattern=WORD)
    qos: str | None = Field(None, pattern=WORD)
    constraint: str | None = Field(None, pattern=WORD)
    reservation: str | None = Field(None, pattern=WORD)
    exclude: str | None = Field(None, pattern=WORD)
    """Nodes not to take."""

    time: str | None = None
    """Longest time of one start, as Slurm writes it: 90 (minutes), 8:00:00, 2-12. A run that needs longer is started again."""

    cpus_per_task: int | None = Field(None, ge=1)
    """Cores of a node."""

    mem: str | None = Field(None, pattern=r"^[0-9]+[KMGT]?$")
    """Memory of a node; 0: all of it."""

    gpus: bool = True
    """Whether to ask Slurm for GPUs; false: on a cluster without any."""

    gpu_type: str | None = Field(None, pattern=r"^[A-Za-z0-9_.-]+$")
    signal_seconds: int = Field(300, ge=30, le=65535)
    """How long before the end of its time a run is told to save. Slurm may do it up to a minute earlier."""

    requeue: bool = True
    """Start again after the end of the time and after the loss of a node."""

    setup: str | None = None
    """A shell command before the run, such as `module load cuda`."""

    @field_validator("time")
    @classmethod
    def _time_is_one(cls, value: str | None) -> str | None:
        if value is not None and not TIME.fullmatch(value):
            raise ValueError(f"expected minutes, hours:minutes:seconds or days-hours, found '{value}'")
        return value

    @property
    def seconds(self) -> int | None:
        """`time` in seconds.

        >>> [SlurmOptions(time=time).seconds for time in ("90", "10:30", "8:00:00", "2-12", "1-0:30", None)]
        [5400, 630, 28800, 216000, 88200, None]
        """
        if self.time is None or (match := TIME.fullmatch(self.time)) is None:
            return None
        parts = [int(part) for part in match["parts"].split(":")]
        if match["days"]:
            hours, minutes, seconds = [*parts, 0, 0][:3]
        elif len(parts) == 1:
            hours, minutes, seconds = 0, parts[0], 0
        else:
            hours, minutes, seconds = ([0] * (3 - len(parts)) + parts)
        return ((int(match["days"] or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


def read_slurm_options(given: Sequence[str]) -> SlurmOptions:
    """`KEY=VALUE`, as often as needed.

    Raises:
        ConfigError: every mistake, one line each.
    """
    document = Document("--slurm", {})
    problems = [problem for text in given if (problem := apply_override(document, text))]
    try:
        options = validate(SlurmOptions, document)
    except ConfigError as error:
        problems += error.problems
    if not problems and options.seconds is not None and options.seconds <= options.signal_seconds + 60:
        problems.append(f"override 'time={options.time}': leaves no time to train before the signal, which comes up to "
                        f"{options.signal_seconds + 60} s before the end (signal_seconds)")
    if problems:
        raise ConfigError([problem.replace("override '", "--slurm '", 1) for problem in problems])
    return options
