"""What is launched: one train stage of a project, refused before anything starts where its config cannot run on so many ranks."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mft.errors import ConfigError
from mft.files import read_json
from mft.runs.config import ProjectConfig, TrainStage
from mft.training.job import TrainJob, stage_faults
from mft.training.run import RUN


@dataclass(frozen=True, slots=True)
class LaunchJob:
    """A train stage of a project, and where the project's stages write: a folder that all nodes see under this path."""

    config: Path
    project: ProjectConfig
    stage: TrainStage
    out: Path
    overrides: tuple[str, ...] = ()

    @property
    def train_command(self) -> list[str]:
        """Arguments of `mft` for one rank. Paths are absolute, for other nodes. It goes on from the newest checkpoint, whenever it is
        started again."""
        quiet = [] if logging.getLogger("mft").isEnabledFor(logging.INFO) else ["-q"]
        return [*quiet, "train", str(self.config.resolve()), *self.overrides, "--stage", self.stage.name, "--out", str(self.out.resolve())]

    @property
    def folder(self) -> Path:
        """Where a script or a hostfile is written: beside the output, which must hold nothing but the project's stages."""
        out = self.out.resolve()
        return out.with_name(f"{out.name}.launch")

    def result(self) -> dict[str, Any]:
        """run.json of the stage."""
        return dict(read_json(self.out / self.stage.name / RUN))


def check_ranks(job: LaunchJob, ranks: int) -> None:
    """Refuse what the config alone shows cannot run on this many ranks.

    Raises:
        ConfigError: every contradiction, one line each.
    """
    stage, tracking = job.stage, job.project.tracking
    as_train_job = TrainJob(Path(), job.project.model, stage.quantization, stage.adapter, stage.tasks, stage.training, stage.distributed)
    if faults := stage_faults(as_train_job, ranks, tracking.generations):
        raise ConfigError(faults)
