"""A whole small project: every stage really runs, unchanged stages are skipped, changed ones are not."""

import json

import pytest
from training.test_training_resume import RECIPE, write_project

from mft.errors import CheckFailed, ConfigError, OutputError
from mft.files import check_manifest, read_json
from mft.report.page import write_report
from mft.runs.config import load_project
from mft.runs.project import Project, run_project

STAGES = """
  - {kind: merge, name: merged, adapter: train, verify: logits}
  - {kind: evaluate, name: loss, benchmark: loss, models: [base, train, merged], generations: 1, max_new_tokens: 8}
  - {kind: report, name: report}
"""


def write_whole_project(folder, steps=6):
    config = write_project(folder, steps=steps, every=0)
    config.write_text(config.read_text() + STAGES)
    return config


def run(config, out, overrides=(), **options):
    return run_project(Project(load_project(config, list(overrides)), config, out, write_report), **options)


def skipped(record):
    return {entry["name"]: entry["skipped"] for entry in record["stages"]}


@pytest.mark.slow
def test_a_project_runs_whole_then_only_what_has_changed(tiny_base, tmp_path):
    config, out = write_whole_project(tmp_path / "project"), tmp_path / "out"
    record = run(config, out)
    assert [entry["name"] for entry in record["stages"]] == ["data", "train", "merged", "loss", "report"]
    assert not any(skipped(record).values())
    assert record["status"] == "done"
    results = {entry["name"]: entry["result"] for entry in record["stages"]}
    assert results["data"]["read"] == results["data"]["kept"] == 180
    assert results["train"]["steps"] == 6
    assert results["merged"]["merged"] == 49
    assert results["merged"]["max_abs_diff"] <= results["merged"]["tolerance"]
    overall = results["loss"]["overall"]["loss"]
    assert overall["train"] < overall["base"]
    check_manifest(out / "merged")
    assert (out / "report.html").read_text().startswith("<!doctype html>")
    assert read_json(out / "run.json") == json.loads(json.dumps(record, default=str))

    again = run(config, out)
    assert skipped(again) == {"data": True, "train": True, "merged": True, "loss": True, "report": False}
    changed = run(config, out, ["stages.merged.dtype=fp32"])
    assert skipped(changed) == {"data": True, "train": True, "merged": False, "loss": False, "report": False}
    assert skipped(run(config, out, ["stages.merged.dtype=fp32"], start="loss", until="loss")) == {
        "data": True, "train": True, "merged": True, "loss": False}
    same_weights = skipped(run(config, out, ["stages.merged.dtype=fp32", "stages.merged.verify=layers"]))
    assert same_weights == {"data": True, "train": True, "merged": False, "loss": True, "report": False}
    (config.parent / "recipe.yaml").write_text(RECIPE.replace("validation: 0.1", "validation: 0.2"))
    assert skipped(run(config, out, ["stages.merged.dtype=fp32"], until="data")) == {"data": False}


@pytest.mark.slow
def test_a_run_that_makes_a_task_worse_fails_its_check_after_the_report_is_written(tiny_base, tmp_path):
    config, out = write_whole_project(tmp_path / "project", steps=2), tmp_path / "out"
    worse = ["stages.train.training.learning_rate=0.5", "stages.train.training.warmup=0", "stages.merged.verify=layers"]
    with pytest.raises(CheckFailed, match=r"did not fall clearly|the loss rose") as caught:
        run(config, out, worse)
    assert caught.value.exit_code == 3
    assert read_json(out / "run.json")["status"] == "check failed"
    assert (out / "report.html").is_file()
    with pytest.raises(CheckFailed):
        run(config, out, worse)


def test_a_folder_of_something_else_is_refused_and_an_unknown_stage_named(tmp_path):
    config, out = write_whole_project(tmp_path / "project"), tmp_path / "out"
    out.mkdir()
    (out / "precious.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds something that is no run of 'resume'"):
        run(config, out)
    with pytest.raises(ConfigError, match="there is no stage 'tarin'; stages: data, train, merged, loss, report"):
        run(config, tmp_path / "other", until="tarin")
    assert [path.name for path in out.iterdir()] == ["precious.txt"]
