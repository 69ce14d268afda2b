"""`model.quantized_cache` in a project: where the base is kept, who reads it, and that it decides no result."""

import bitsandbytes
import pytest
from training.test_training_resume import write_project

from mft.cli.main import main
from mft.files import read_json
from mft.modeling.kernels import FusedKernels
from mft.report.page import write_report
from mft.runs.config import load_project
from mft.runs.kinds.evaluate import _model_under_test
from mft.runs.kinds.train import forecast_train, train_job
from mft.runs.planning import PlanOptions, plan_project
from mft.runs.project import Project, key_parts, run_project
from mft.training.run import _load

MORE = """
  - {kind: merge, name: merged, adapter: train}
  - {kind: train, name: same, data: data, init_from: train}
  - {kind: train, name: other, data: data, init_from: merged}
  - {kind: evaluate, name: loss, benchmark: loss, models: [base, train], generations: 0}
"""


def project(folder, *overrides):
    config = folder / "project" / "config.yaml"
    if not config.is_file():
        write_project(folder / "project", steps=2, every=0)
        config.write_text(config.read_text() + MORE)
    return Project(load_project(config, list(overrides)), config, folder / "out", write_report)


def context_of(made, name):
    stage = made.config.stage(name)
    return made.context(stage, read_only=True), stage


@pytest.mark.parametrize(("asked", "place"), [
    ("off", None), ("auto", "out/.quantized"), ("shared", "project/shared"), ("/some/where", "/some/where")])
def test_the_cache_is_off_in_the_output_or_in_a_folder_beside_the_config(tmp_path, asked, place):
    context, stage = context_of(project(tmp_path, f"model.quantized_cache={asked}"), "train")
    cache = train_job(context, stage).cache
    assert (cache and cache.folder) == (place and tmp_path / place)
    assert _model_under_test(context, stage, "base").cache == cache
    assert train_job(context, stage).stamps == tmp_path / "out" / ".stages" / "hashes.json"


def test_what_is_kept_on_disk_changes_no_key(tmp_path):
    keys = []
    for asked in ("off", "auto"):
        made = project(tmp_path, f"model.quantized_cache={asked}")
        context, stage = context_of(made, "train")
        keys.append((key_parts(made, stage, context), train_job(context, stage).key("data", {})))
    assert keys[0] == keys[1]


def test_off_in_yaml_is_a_word(tmp_path):
    made = project(tmp_path)
    made.path.write_text(made.path.read_text().replace("model: {", "model: {quantized_cache: off, "))
    assert load_project(made.path).model.quantized_cache == "off"


def test_the_plan_says_the_disk_that_an_entry_takes_once_for_each_base(tmp_path, tiny_base):
    made = project(tmp_path, "model.quantized_cache=auto")
    plans = {plan.name: plan for plan in plan_project(made.config, made.path.parent, made.out, PlanOptions())}
    context, stage = context_of(made, "train")
    _load(train_job(context, stage), None, FusedKernels(compiled=False))
    [entry] = (tmp_path / "out" / ".quantized").glob("[!.]*")
    taken = sum(path.stat().st_size for path in entry.iterdir())
    assert plans["train"].cache_bytes == pytest.approx(taken, rel=0.03)
    assert (plans["same"].cache_bytes, plans["other"].cache_bytes) == (0, plans["train"].cache_bytes)
    assert plans["train"].to_json()["quantized_cache_bytes"] == plans["train"].cache_bytes
    off = project(tmp_path)
    assert [plan.cache_bytes for plan in plan_project(off.config, off.path.parent, off.out, PlanOptions())] == [0, 0, 0]
    with_cache, without = (forecast_train(*context_of(each, "train"), PlanOptions()).disk_bytes for each in (made, off))
    assert with_cache - without == plans["train"].cache_bytes


@pytest.mark.slow
def test_a_project_quantises_its_base_once_and_trains_the_same_adapter(tmp_path, monkeypatch, tiny_base):
    shapes, own = [], bitsandbytes.functional.quantize_4bit

    def noted(weight, *arguments, **options):
        shapes.append(weight.shape)
        return own(weight, *arguments, **options)

    monkeypatch.setattr("bitsandbytes.functional.quantize_4bit", noted)
    adapters, losses = [], []
    for asked, number in (("auto", 1), ("off", 3)):
        shapes.clear()
        folder = tmp_path / asked
        folder.mkdir()
        config = write_project(folder / "project", steps=2, every=0)
        config.write_text(config.read_text() + MORE.splitlines()[-1] + "\n")
        run_project(Project(load_project(config, [f"model.quantized_cache={asked}"]), config, folder / "out", write_report))
        assert len(shapes) == number * 49       # train, base and train in the evaluation
        adapters.append((folder / "out" / "train" / "adapter" / "adapter_model.safetensors").read_bytes())
        losses.append(read_json(folder / "out" / "loss" / "result.json")["overall"]["loss"])
    assert adapters[0] == adapters[1]
    assert losses[0] == losses[1]


def test_the_plan_for_a_person_names_the_disk(tmp_path, capsys):
    made = project(tmp_path)
    with pytest.raises(SystemExit):
        main(["plan", str(made.path), "--gpu", "H200", "model.quantized_cache=auto"])
    assert capsys.readouterr().out.count("disk: 0.01 GB for the base in NF4 (model.quantized_cache)") == 2
