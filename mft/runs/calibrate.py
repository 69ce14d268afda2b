"""`mft plan --calibrate`: a few real steps of a train stage on this machine, for its speed and its memory."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mft.errors import ConfigError
from mft.files import read_json
from mft.runs.config import TrainStage
from mft.runs.dry_run import plan_training
from mft.runs.kinds.train import encode_stage, train_job
from mft.runs.project import Project
from mft.training.config import MEASURED_MODES, DistributedConfig, TasksConfig
from mft.training.memory_use import planned_job
from mft.training.run import METRICS, RUN, train

STEPS, WARM_UP = 6, 2
MOST_MICRO_BATCHES = 4


def calibrate_stages(project: Project, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Build the data of each train stage, train a few steps, and return what was measured, by stage.

    Raises:
        ConfigError: a stage goes on from another one, which would have to be trained first.
    """
    measured = {}
    for name in names:
        stage = project.config.stage(name)
        assert isinstance(stage, TrainStage)
        if stage.init_from is not None:
            raise ConfigError([f"--calibrate: stage '{name}' goes on from '{stage.init_from}', which has to be trained first; its steps "
                               "are as fast as that one's with the same settings: give --stage"])
        plan_training(project, name)
        measured[name] = asdict(calibrate(project, stage))
    return measured


@dataclass(frozen=True, slots=True)
class Calibration:
    """Measured on one device: `tokens_per_s` is the median of the steps after the warm-up; bytes as in run.json of a run."""

    tokens_per_s: float
    steps: int
    measured_bytes: int
    predicted_bytes: int | None


def calibrate(project: Project, stage: TrainStage) -> Calibration:
    """Train a few steps in one process, as the stage would, on its own rows, and throw the result away.

    The data stage must have been built (`plan_training`). A step is at most four micro-batches; nothing is evaluated or saved, and a
    measured balance of the tasks is replaced by its plain mode. Communication of several ranks is not measured.
    """
    context = project.context(stage, resume="never")
    tokens = encode_stage(context, stage)
    job, _ = planned_job(replace(train_job(context, stage), distributed=DistributedConfig(), start=None), 1, None)
    settings = job.training
    rows = settings.rows_at_once * min(MOST_MICRO_BATCHES, settings.global_batch_rows // settings.rows_at_once)
    short = settings.model_copy(update={
        "max_steps": STEPS, "global_batch_rows": rows, "log_every": 1, "evaluate_every": 0, "checkpoint_every": 0, "keep_best": False,
        "early_stopping": None})
    tasks = stage.tasks if stage.tasks.balance not in MEASURED_MODES else TasksConfig(balance="task_token_mean")
    job = replace(job, training=short, tasks=tasks)
    with TemporaryDirectory(prefix=".calibration-", dir=project.out) as folder:
        train(job, tokens, Path(folder) / "run")
        lines = map(json.loads, (Path(folder) / "run" / METRICS).read_text(encoding="utf-8").splitlines())
        rates = [line["tokens_per_s"] for line in lines if "tokens_per_s" in line]
        memory = read_json(Path(folder) / "run" / RUN)["memory"]
    return Calibration(statistics.median(rates[WARM_UP:]), len(rates), memory["measured_bytes"], memory["predicted_bytes"])
