"""What a run refuses before it loads a model, and how it finds the checkpoint to go on from."""

import json
import shutil

import pytest
from training.test_training_resume import write_project

from mft.errors import CheckFailed, CheckpointError, ConfigError, ModelError
from mft.report.page import write_report
from mft.runs.config import load_project
from mft.runs.project import Project, run_project
from mft.training.checkpoints import NEEDED, WEIGHTS, check_checkpoint, checkpoints, cut_metrics, sweep_partial, whole_checkpoint


def run(config, *overrides):
    return run_project(Project(load_project(config, list(overrides)), config, config.parent / "out", write_report), only="train")


def test_several_processes_are_refused_by_name(tiny_base, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"distributed\.engine is none.*2 were started"):
        run(write_project(tmp_path / "project"))


def test_a_context_longer_than_the_base_and_a_weight_for_an_unknown_task_are_refused(tiny_base, tmp_path):
    config = write_project(tmp_path / "project")
    with pytest.raises(ModelError, match="at most 2048 tokens"):
        run(config, "model.context=4096")
    with pytest.raises(ConfigError, match=r"tasks\.weights: sub: not a task of the data; tasks: add, name"):
        run(config, "stages.train.tasks.weights.sub=2")


class Killed(Exception):
    pass


@pytest.mark.slow
def test_a_run_with_changed_settings_replaces_the_finished_one_but_its_own_half_is_resumed(tiny_base, tmp_path, monkeypatch):
    config = write_project(tmp_path / "project", steps=4, every=2)
    out = config.parent / "out" / "train"
    run(config)
    finished = (out / "adapter" / "adapter_model.safetensors").read_bytes()

    def killed(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("mft.training.run.save_adapter", killed)
        with pytest.raises(Killed):
            run(config, "stages.train.training.seed=2")
    assert not (out / "adapter").exists()
    result = run(config, "stages.train.training.seed=2")["stages"][-1]["result"]
    assert result["resumed_from"].endswith("checkpoint-4")
    assert (out / "adapter" / "adapter_model.safetensors").read_bytes() != finished


@pytest.mark.slow
def test_resume_by_path_and_never_are_obeyed_after_the_run_has_finished(tiny_base, tmp_path):
    config = write_project(tmp_path / "project", steps=4, every=2)
    out = config.parent / "out" / "train"
    run(config)
    finished = (out / "adapter" / "adapter_model.safetensors").read_bytes()

    def again(resume):
        project = Project(load_project(config), config, config.parent / "out", write_report, resume=resume)
        return run_project(project, only="train")["stages"][-1]["result"]

    assert again(str(out / "checkpoint-2"))["resumed_from"].endswith("checkpoint-2")
    assert again("never")["resumed_from"] is None
    assert (out / "adapter" / "adapter_model.safetensors").read_bytes() == finished
    shutil.copytree(out / "checkpoint-2", tmp_path / "elsewhere" / "checkpoint-2")
    with pytest.raises(CheckpointError, match="is not a checkpoint of this run"):
        again(str(tmp_path / "elsewhere" / "checkpoint-2"))


class OneProcess:
    is_main_process = True

    def wait_for_everyone(self):
        pass


def write_checkpoint(run, step, keep=2):
    with whole_checkpoint(run, step, keep, OneProcess()) as partial:
        folder = partial / f"checkpoint-{step}"
        folder.mkdir()
        for name in (*NEEDED, WEIGHTS[0], "rng_state.pth"):
            (folder / name).write_text(json.dumps({"global_step": step}))


def fail_half_way(run):
    with whole_checkpoint(run, 110, 2, OneProcess()) as partial:
        (partial / "checkpoint-110").mkdir()
        raise RuntimeError("disk full")


def test_checkpoints_are_whole_or_absent_and_old_ones_go(tmp_path):
    for step in (10, 20, 100):
        write_checkpoint(tmp_path, step)
    assert [step for step, _ in checkpoints(tmp_path)] == [20, 100]
    with pytest.raises(RuntimeError, match="disk full"):
        fail_half_way(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-100", "checkpoint-20"]
    (tmp_path / ".checkpoint-120.partial").mkdir()
    sweep_partial(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-100", "checkpoint-20"]


def test_without_a_limit_every_checkpoint_stays(tmp_path):
    for step in (1, 2, 3):
        write_checkpoint(tmp_path, step, keep=None)
    assert [step for step, _ in checkpoints(tmp_path)] == [1, 2, 3]


def test_a_damaged_checkpoint_is_refused_and_what_it_lacks_is_named(tmp_path):
    write_checkpoint(tmp_path, 7)
    assert check_checkpoint(tmp_path / "checkpoint-7") == 7
    (tmp_path / "checkpoint-7" / "optimizer.pt").unlink()
    with pytest.raises(CheckpointError, match=r"lacks optimizer\.pt"):
        check_checkpoint(tmp_path / "checkpoint-7")
    write_checkpoint(tmp_path, 9)
    (tmp_path / "checkpoint-9" / "scheduler.pt").write_text("torn")
    with pytest.raises(CheckFailed, match=r"scheduler\.pt: changed"):
        check_checkpoint(tmp_path / "checkpoint-9")
    with pytest.raises(CheckpointError, match="no such checkpoint folder"):
        check_checkpoint(tmp_path / "checkpoint-8")


def test_metrics_after_the_checkpoint_and_a_torn_line_are_cut(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 3}\n{"step": 2, "loss": 2}\n{"step": 3, "loss": 1}\n{"step": 4, "lo')
    cut_metrics(path, 2)
    assert path.read_text() == '{"step": 1, "loss": 3}\n{"step": 2, "loss": 2}\n'
