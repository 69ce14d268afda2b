"""What wandb and TensorBoard are told, read back from their own files: one run over a resumption, names as in metrics.jsonl."""

import json
import os
import subprocess
import sys

import pytest
from training.linear_trainer import LinearTrainer
from training.wandb_file import finished_run

from mft.errors import TrainingStopped
from mft.training.tracking import Tracking, TrackingOptions, tracking_faults

CONFIG = {"name": "team", "model": {"base": "tiny", "context": 128}}
MANIFEST = {"name": "data", "sha256": "abc", "read": 12, "kept": 10, "dropped": {"empty": 2}, "files": {"train-0.parquet": {"bytes": 1}},
            "per_task": {"a": {"train": 5, "validation": 1}, "b": {"train": 3, "validation": 1}}}


def answers(model):
    return [{"task": "a", "id": "a-1", "prompt": "2+2?", "reference": "4", "completion": f"about {model.weight.item():.1f}"},
            {"task": "b", "id": "b-1", "prompt": "def f", "reference": "pass", "completion": "pass\n# end"}]


class TaskTrainer(LinearTrainer):
    """Logs as MultiTaskTrainer does."""

    def log(self, logs, start_time=None):
        if "loss" in logs:
            logs = {"loss": logs["loss"], "loss/task/a": logs["loss"] / 2, "tokens/task/a": 7, "lr": logs["learning_rate"],
                    "tokens_per_s": 1000.0}
        super().log(logs, start_time)

    def evaluate(self, *args, **options):
        metrics = {"eval/loss": 1.0 / self.state.global_step, "eval/loss/task/a": 0.5}
        super().log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def train(folder, options, *, steps, resume=None, fresh=False, failure=None):
    with Tracking(options, folder, fresh=fresh) as tracking:
        trainer = TaskTrainer(folder, steps=steps, callbacks=[tracking], eval_strategy="steps", eval_steps=2, save_strategy="steps",
                              save_steps=2)
        trainer.train(resume_from_checkpoint=resume)
        if failure:
            raise failure


@pytest.fixture
def offline(monkeypatch):
    """wandb without a network; what a user's shell says of wandb does not count."""
    pytest.importorskip("wandb", reason="wandb is not installed")
    for name in ("WANDB_PROJECT", "WANDB_RUN_ID", "WANDB_DIR", "WANDB_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")


def runs(folder):
    paths = sorted((folder / "wandb").glob("offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns)
    return [finished_run(path) for path in paths]


def series(run, name):
    return [(line["_step"], line[name]) for line in run["history"] if name in line]


def test_wandb_offline_is_one_run_over_a_resumption_with_the_series_of_each_task(offline, tmp_path):
    options = TrackingOptions("team", "train", wandb=True, config=CONFIG, data=MANIFEST, sampler=answers)
    train(tmp_path, options, steps=4)
    train(tmp_path, options, steps=6, resume=str(tmp_path / "checkpoint-4"))
    first, second = runs(tmp_path)
    assert first["id"] == second["id"] == json.loads((tmp_path / "wandb.json").read_text())["id"]
    assert (first["project"], first["name"], first["exit_code"]) == ("team", "train", 0)
    assert first["config"]["config"] == CONFIG
    assert first["config"]["data"] == {key: value for key, value in MANIFEST.items() if key not in ("files", "name")}
    steps = [step for run in (first, second) for step, _ in series(run, "loss/task/a")]
    assert steps == [1, 2, 3, 4, 5, 6]
    names = {name for line in first["history"] for name in line if not name.startswith(("_", "generations"))}
    assert names == {"loss", "loss/task/a", "tokens/task/a", "lr", "tokens_per_s", "eval/loss", "eval/loss/task/a"}
    assert series(second, "eval/loss") == [(6, pytest.approx(1 / 6))]
    assert series(first, "tokens/task/a") == [(step, 7) for step in (1, 2, 3, 4)]


def test_wandb_gets_a_table_of_answers_at_each_evaluation(offline, tmp_path):
    train(tmp_path, TrackingOptions("team", "train", wandb=True, sampler=answers), steps=4)
    (run,) = runs(tmp_path)
    shown = [(line["_step"], line["generations/path"]) for line in run["history"] if "generations/path" in line]
    assert [step for step, _ in shown] == [2, 4]
    (files,) = (tmp_path / "wandb").glob("offline-run-*/files")
    table = json.loads((files / shown[1][1]).read_text())
    assert table["columns"] == ["task", "id", "prompt", "reference", "completion"]
    assert table["data"][1] == ["b", "b-1", "def f", "pass", "pass\n# end"]


def test_a_new_start_is_a_run_of_its_own_and_a_failure_is_told(offline, tmp_path):
    options = TrackingOptions("team", "train", wandb=True)
    with pytest.raises(TrainingStopped):
        train(tmp_path, options, steps=2, failure=TrainingStopped("the loss is not finite"))
    train(tmp_path, options, steps=2, fresh=True)
    first, second = runs(tmp_path)
    assert first["id"] != second["id"]
    assert (first["exit_code"], second["exit_code"]) == (3, 0)


def test_without_a_login_the_message_says_what_to_do(offline, tmp_path):
    # A process of its own: wandb reads its variables once.
    program = """
import sys
from pathlib import Path
from mft.errors import ConfigError
from mft.training.wandb_run import WandbRun
try:
    WandbRun(Path(sys.argv[1]), "team", "train", {}, fresh=False)
except ConfigError as error:
    print(error)
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], env={**environment, "HOME": str(tmp_path), "WANDB_SILENT": "true",
                          "NETRC": str(tmp_path / "none")}, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("tracking.wandb: no run could be begun: No API key configured")
    assert done.stdout.endswith("run `wandb login`, or set WANDB_MODE=offline\n")


def events(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder / "tensorboard"))
    found.Reload()
    return found


def test_tensorboard_has_the_same_names_the_config_and_the_answers_and_a_resumption_replaces_later_points(tmp_path):
    pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")
    options = TrackingOptions("team", "train", tensorboard=True, config=CONFIG, data=MANIFEST, sampler=answers)
    train(tmp_path, options, steps=4)
    train(tmp_path, options, steps=4, resume=str(tmp_path / "checkpoint-2"))
    found = events(tmp_path)
    assert sorted(found.Tags()["scalars"]) == [
        "eval/loss", "eval/loss/task/a", "loss", "loss/task/a", "lr", "tokens/task/a", "tokens_per_s"]
    assert [event.step for event in found.Scalars("loss/task/a")] == [1, 2, 3, 4]
    texts = {tag: found.Tensors(tag)[-1].tensor_proto.string_val[0].decode() for tag in found.Tags()["tensors"]}
    assert sorted(texts) == ["config/text_summary", "data/text_summary", "generations/0/text_summary", "generations/1/text_summary"]
    assert '"sha256": "abc"' in texts["data/text_summary"]
    assert "**completion**\n\n    pass\n    # end" in texts["generations/1/text_summary"]


def test_answers_are_kept_in_the_run_folder_once_for_each_step(tmp_path):
    options = TrackingOptions("team", "train", sampler=answers)
    train(tmp_path, options, steps=4)
    train(tmp_path, options, steps=4, resume=str(tmp_path / "checkpoint-2"))
    lines = [json.loads(line) for line in (tmp_path / "generations.jsonl").read_text().splitlines()]
    assert [(line["step"], line["task"], line["prompt"]) for line in lines] == [
        (2, "a", "2+2?"), (2, "b", "def f"), (4, "a", "2+2?"), (4, "b", "def f")]


def test_other_ranks_write_nothing(tmp_path):
    with Tracking(TrackingOptions("team", "train", wandb=True, tensorboard=True, sampler=answers), tmp_path, first_rank=False) as tracking:
        TaskTrainer(tmp_path, steps=2, callbacks=[tracking], eval_strategy="steps", eval_steps=1).train()
    assert list(tmp_path.iterdir()) == []


def test_answers_where_no_rank_holds_the_model_or_nothing_is_evaluated_are_refused():
    assert tracking_faults(0, engine="fsdp", zero_stage=None, evaluate_every=0) == []
    assert tracking_faults(3, engine="deepspeed", zero_stage=2, evaluate_every=10) == []
    assert "deepspeed with zero_stage 3 no rank holds" in tracking_faults(3, engine="deepspeed", zero_stage=3, evaluate_every=10)[0]
    both = tracking_faults(3, engine="fsdp", zero_stage=None, evaluate_every=0)
    assert [("fsdp no rank" in both[0]), ("evaluate_every is 0" in both[1])] == [True, True]
