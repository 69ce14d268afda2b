"""`mft run --dry-run`: what each stage would do and take, with nothing loaded, written or fetched."""

import json
import shutil

import pytest
from training.test_training_resume import write_project

from mft.cli.main import main
from mft.errors import ConfigError
from mft.report.page import write_report
from mft.runs.config import load_project
from mft.runs.foresee import faults_of, foresee, summary
from mft.runs.foreseen_text import lines
from mft.runs.planning import PlanOptions
from mft.runs.project import Project, run_project
from mft.runs.shipped import shipped_config

STAGES = """
  - {kind: merge, name: merged, adapter: train, dtype: bf16}
  - {kind: quantize, name: small, model: merged, jobs: [{method: rtn, bits: 4, group_size: 32}]}
  - {kind: evaluate, name: loss, benchmark: loss, models: [base, merged]}
  - {kind: release, name: release, model: small/main}
  - {kind: report, name: report}
"""


@pytest.fixture(autouse=True)
def nothing_happens(monkeypatch, request):
    if "runs_first" not in request.fixturenames:
        for place in ("mft.training.run.load_base", "mft.evaluation.models.load_base", "huggingface_hub.snapshot_download"):
            monkeypatch.setattr(place, lambda *a, **k: pytest.fail("a model was loaded or asked for"))


@pytest.fixture
def config(tmp_path):
    path = write_project(tmp_path / "project", steps=12, every=0)
    path.write_text(path.read_text() + STAGES)
    return path


def project(config, *overrides, **options):
    return Project(load_project(config, list(overrides)), config, config.parent / "out", write_report, **options)


def states(found):
    return {each.name: each.state for each in found}


def test_before_anything_has_run_every_stage_runs_and_is_measured(config, tiny_base):
    found = foresee(project(config), PlanOptions("H200", tokens_per_s=5000, price=3.0))
    facts = summary(project(config), found)
    assert states(found) == dict.fromkeys(["data", "train", "merged", "small", "loss", "release", "report"], "runs")
    told = {stage["name"]: stage for stage in facts["stages"]}
    assert told["data"]["files"] == 2
    assert told["data"]["missing"] == []
    assert told["train"]["steps"] == 12
    assert told["train"]["hours"] == pytest.approx(12 * 4 * 128 / 5000 / 3600)
    assert told["merged"]["disk_bytes"] == 14523904      # 7,261,952 weights in bf16
    assert told["loss"]["models"] == 2
    assert facts["cost"] == pytest.approx(3 * told["train"]["hours"])
    assert facts["not_counted"] == ["small", "loss"]
    assert facts["fits"]
    assert not (config.parent / "out").exists()


def test_sources_that_are_not_there_are_named_and_break_nothing(config, tiny_base):
    (config.parent / "name.jsonl").unlink()
    told = {each.name: each for each in foresee(project(config), PlanOptions("H200"))}
    assert told["data"].forecast.facts["files"] == 1
    [missing] = told["data"].forecast.facts["missing"]
    assert missing.startswith(str(config.parent / "name.jsonl"))
    assert told["train"].forecast.hours is None


def test_a_base_that_is_not_here_and_not_known_leaves_its_sizes_open(config, monkeypatch):
    told = {each.name: each for each in foresee(project(config, "model.base=acme/unheard-7b"), PlanOptions("H200"))}
    for name in ("train", "merged"):
        assert told[name].forecast.text.startswith("not known: acme/unheard-7b: neither the base nor its config.json is on this machine")
    assert told["train"].forecast.disk_bytes is None


def test_contradictions_of_all_stages_come_at_once_as_in_a_plan(config, tiny_base):
    with pytest.raises(ConfigError) as caught:
        foresee(project(config, "model.context=5000", "stages.small.jobs=[{method: rtn, bits: 4, group_size: 1024}]"), PlanOptions("H200"))
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["stage 'train'", "jobs.0"]


@pytest.fixture
def runs_first(config, tiny_base):
    run_project(project(config), until="small")
    return config


@pytest.mark.slow
def test_what_is_unchanged_is_told_from_what_runs_and_what_depends(runs_first):
    config, out = runs_first, runs_first.parent / "out"
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    found = foresee(project(config), PlanOptions("H200"))
    assert states(found) == {"data": "unchanged", "train": "unchanged", "merged": "unchanged", "small": "unchanged", "loss": "runs",
                             "release": "runs", "report": "runs"}
    assert {each.name: each.why for each in found if each.state == "runs"} == {
        "loss": "not run yet", "release": "not run yet", "report": "always written"}
    changed = foresee(project(config, "stages.merged.dtype=fp32"), PlanOptions("H200"), until="loss")
    assert states(changed) == {"data": "unchanged", "train": "unchanged", "merged": "runs", "small": "depends", "loss": "runs",
                               "release": "left out", "report": "left out"}
    assert {each.name: each.why for each in changed}["merged"] == "its settings changed"
    assert states(foresee(project(config), PlanOptions("H200"), start="merged", until="small")) == {
        "data": "unchanged", "train": "unchanged", "merged": "runs", "small": "runs", "loss": "left out", "release": "left out",
        "report": "left out"}
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    shutil.rmtree(out / "train" / "adapter")
    gone = {each.name: each for each in foresee(project(config), PlanOptions("H200"))}
    assert gone["train"].state == "runs"
    assert "is gone" in gone["train"].why
    assert gone["merged"].state == "depends"


def test_the_command_prints_one_object_and_ends_with_3_where_a_stage_does_not_fit(config, tiny_base, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--json", "run", str(config), "--dry-run", "--gpu", "0.1GB", "--out", str(config.parent / "out")])
    assert ended.value.code == 3
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert not told["fits"]
    assert [stage["name"] for stage in told["stages"]][:2] == ["data", "train"]


def test_options_of_a_dry_run_are_refused_without_one(config, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["run", str(config), "--price", "3"])
    assert ended.value.code == 2
    assert "--price: only with --dry-run" in capsys.readouterr().err


GPUS = {"codefuse-codellama-34b-4k": "A100-80G", "codefuse-codellama-34b-16k": "A100-80G",
        "codefuse-codellama-34b-mftcoder-v05": "A100-80G", "ziya-coding-34b": "A100-80G", "codellama-70b-instruct-domain": "A100-80G",
        "deepseek-coder-33b": "RTX4090", "qwen2.5-coder-7b-1gpu": "RTX4090", "codefuse-codellama-34b-4bits": "RTX4090",
        "codellama-70b-gptq-matrix": "RTX4090"}


@pytest.mark.parametrize("name", GPUS)
def test_each_shipped_project_of_a_large_model_goes_down_to_a_release_and_is_foreseen_without_base_or_data(name, tmp_path):
    path = shipped_config(f"{name}.yaml")
    large = Project(load_project(path), path, tmp_path / "out", write_report)
    found = foresee(large, PlanOptions(GPUS[name], tokens_per_s=5000))
    assert [each.kind for each in found][-2:] == ["release", "report"]
    assert not faults_of(found)
    told = {each.kind: each.forecast for each in found}
    assert not [each.name for each in found if each.forecast and each.forecast.text.startswith("not known")]
    assert told["release"].facts["bytes"] > 14e9
    assert not (tmp_path / "out").exists()


def test_what_is_missing_for_the_hours_is_said(config, tiny_base):
    def last(*overrides, speed=None):
        large = project(config, *overrides)
        return lines(summary(large, foresee(large, PlanOptions("H200", tokens_per_s=speed))))[-1]

    out = config.parent / "out"
    assert last().startswith("7 of 7 stages run. Hours are not known without --tokens-per-second, which `mft plan CONFIG --calibrate`")
    assert last(speed=0.5).startswith("7 of 7 stages run. Training: 3.4 hours; not counted is the time of small, loss. Disk: ")
    assert last(speed=0.5).endswith(f" and what 1 more will take, in {out}")
    assert "not known before data is encoded: `mft train CONFIG --stage train --dry-run`" in last("stages.train.training.max_steps=null")
