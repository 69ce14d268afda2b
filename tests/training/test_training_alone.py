"""A whole run as a project describes it: followed, watched, stopped early, its best adapter kept; a planted NaN stops it."""

import json
from importlib.util import find_spec

import pytest
from training.test_training_resume import write_project
from training.wandb_file import finished_run

from mft.errors import TrainingStopped
from mft.files import check_manifest
from mft.report.page import write_report
from mft.runs.config import load_project
from mft.runs.project import Project, run_project

BASE = ("model.context=128", "stages.train.quantization.type=none", "stages.train.quantization.compute_dtype=fp32")


def run(config, *overrides, resume="auto"):
    project = Project(load_project(config, [*BASE, *overrides]), config, config.parent / "out", write_report, resume=resume)
    return run_project(project, only="train")["stages"][-1]["result"]


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_run_is_followed_stopped_early_and_its_best_adapter_kept(tiny_base, tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    config = write_project(tmp_path / "project", steps=8, every=0)
    folder = config.parent / "out" / "train"
    tensorboard = find_spec("tensorboard") is not None   # an extra; wandb is a dependency
    result = run(config, "tracking.wandb=true", f"tracking.tensorboard={str(tensorboard).lower()}", "tracking.generations=2",
                 "stages.train.training.keep_best=true", "stages.train.training.early_stopping.patience=1",
                 "stages.train.training.early_stopping.min_delta=5",
                 "stages.train.training.evaluate_every=2")
    assert result["steps"] == 4   # the first evaluation is the best so far, the second is not 5 nats better
    check_manifest(folder / "adapter-best")
    (path,) = (folder / "wandb").glob("offline-run-*/*.wandb")
    told = finished_run(path)
    assert (told["project"], told["name"], told["exit_code"]) == ("resume", "train", 0)
    written = {name for line in lines(folder) for name in line if name != "step"}
    assert {name for line in told["history"] for name in line if not name.startswith(("_", "generations"))} == written
    assert {"loss/task/add", "loss/task/name", "eval/loss/task/add"} <= written
    for name in ("loss", "loss/task/add", "eval/loss"):
        assert [(line["_step"], pytest.approx(line[name])) for line in told["history"] if name in line] == [
            (line["step"], line[name]) for line in lines(folder) if name in line]
    answers = [json.loads(line) for line in (folder / "generations.jsonl").read_text().splitlines()]
    assert [(line["step"], line["task"]) for line in answers] == [(2, "add"), (2, "name"), (4, "add"), (4, "name")]
    assert (folder / "tensorboard").is_dir() == tensorboard
    assert not list(folder.glob("stacks-*"))


def test_a_planted_nan_stops_the_run_and_names_its_rows(tiny_base, tmp_path, monkeypatch):
    import mft.training.trainer as trainer
    config = write_project(tmp_path / "project", steps=6, every=2)
    folder = config.parent / "out" / "train"
    calls = []

    def poisoned(*args, **options):
        calls.append(1)
        loss = right(*args, **options)
        return loss * float("nan") if len(calls) == 6 else loss   # step 3, second of two micro-batches

    right = trainer.task_loss
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "task_loss", poisoned)
        with pytest.raises(TrainingStopped, match=r"step 3: the loss is not finite \(rank 0 micro-batch 1: nan\); losses by task: add "):
            run(config)
    (event,) = json.loads((folder / "nonfinite.json").read_text())["steps"]
    rows = [name for batch in event["micro_batches"] for name in batch["rows"]]
    assert len(rows) >= 4
    assert all(name.split("-")[0] in ("add", "name") for name in rows)
    assert run(config)["steps"] == 6   # goes on from checkpoint-2


def test_a_run_resumed_at_its_last_checkpoint_makes_no_further_step(tiny_base, tmp_path, monkeypatch):
    config = write_project(tmp_path / "project", steps=4, every=2)
    folder = config.parent / "out" / "train"
    rates = ("stages.train.training.schedule=constant",)
    run(config, *rates)
    finished = (folder / "adapter" / "adapter_model.safetensors").read_bytes()
    assert run(config, *rates, resume=str(folder / "checkpoint-4"))["steps"] == 4
    assert (folder / "adapter" / "adapter_model.safetensors").read_bytes() == finished
