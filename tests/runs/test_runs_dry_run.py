"""`mft train --dry-run` counts what a run would do and refuses what the run would refuse, without a model."""

import pytest
from training.test_training_resume import write_project

from mft.errors import ConfigError
from mft.report.page import write_report
from mft.runs.config import load_project
from mft.runs.dry_run import plan_training
from mft.runs.project import Project


@pytest.fixture(autouse=True)
def no_weights(monkeypatch):
    monkeypatch.setattr("mft.training.run.load_base", lambda *a, **k: pytest.fail("a weight was loaded"))


def plan(config, *overrides, processes=None):
    project = Project(load_project(config, list(overrides)), config, config.parent / "out", write_report, processes=processes)
    return plan_training(project, "train")


def test_steps_ranks_and_accumulation_are_those_of_the_run(tiny_base, tmp_path):
    config = write_project(tmp_path / "project", steps=12)
    facts = plan(config, "stages.train.distributed.engine=ddp", processes=2)
    assert {key: facts[key] for key in ("samples", "rows", "steps", "tokens_per_step", "ranks", "accumulation")} == {
        "samples": 161, "rows": 80, "steps": 12, "tokens_per_step": 512, "ranks": 2, "accumulation": 1}
    assert plan(config)["accumulation"] == 2


def test_what_could_not_run_is_refused(tiny_base, tmp_path):
    config = write_project(tmp_path / "project")
    with pytest.raises(ConfigError, match=r"global_batch_rows is 4, which 3 ranks with micro_batch_rows 2 cannot share"):
        plan(config, "stages.train.distributed.engine=ddp", processes=3)
    with pytest.raises(ConfigError, match=r"engine is none, which is one process, but 2 were started"):
        plan(config, processes=2)
    with pytest.raises(ConfigError, match=r"tracking\.generations is 2"):
        plan(config, "tracking.generations=2", "stages.train.distributed.engine=deepspeed", "stages.train.distributed.zero_stage=3",
             processes=2)
