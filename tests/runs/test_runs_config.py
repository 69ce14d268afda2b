"""Project configs: every shipped one loads, and mistakes are found all at once with their lines."""

from pathlib import Path

import pytest

from mft.data.config import load_recipe
from mft.errors import ConfigError
from mft.formats import names
from mft.report.page import write_report
from mft.runs.config import DataStage, ProjectConfig, load_project
from mft.runs.kinds.context import StageContext
from mft.runs.kinds.train import train_job

ROOT = Path(__file__).resolve().parents[2]
GOOD = """name: demo
model: {base: tiny-code-llama, format: codefuse, context: 256}
stages:
  - {kind: data, name: data, recipe: recipe.yaml}
  - {kind: train, name: train, data: data}
  - {kind: merge, name: merged, adapter: train}
  - {kind: evaluate, name: loss, benchmark: loss, models: [base, train, merged]}
"""


def problems_of(tmp_path, text, overrides=()):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_project(path, list(overrides))
    return [problem.removeprefix(f"{path}:") for problem in caught.value.problems]


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_config_loads_and_so_do_its_recipes(path):
    config = load_project(path)
    assert config.name == path.stem
    assert config.model.format in names()
    recipes = [path.parent / stage.recipe for stage in config.stages if isinstance(stage, DataStage)]
    assert recipes
    assert all(load_recipe(recipe).tasks for recipe in recipes)


def test_every_mistake_is_named_at_once_with_line_key_and_remedy(tmp_path):
    text = GOOD.replace("context: 256", "contxt: 256").replace("data: data}", "data: data,\n     training: {epochs: two, clip: 0}}")
    assert problems_of(tmp_path, text) == [
        "2: model.contxt: not a known key; did you mean 'context'?",
        "6: stages.train.training.epochs: expected a whole number, found 'two'",
        "6: stages.train.training.clip: expected more than 0, found 0",
    ]


def test_stages_must_name_earlier_stages_of_the_right_kind(tmp_path):
    text = GOOD.replace("adapter: train", "adapter: data").replace("[base, train, merged]", "[base, trian]")
    assert problems_of(tmp_path, text) == [
        "6: stages.merged.adapter: 'data' is not an earlier train stage; allowed: train",
        "7: stages.loss.models: 'trian' is not an earlier merge or train stage; allowed: train, merged",
    ]


def test_two_stages_of_one_name_and_a_merge_of_a_whole_model_are_found_where_they_stand(tmp_path):
    text = GOOD.replace("name: merged", "name: train").replace("data: data}", "data: data, adapter: {type: full}}")
    assert problems_of(tmp_path, text) == [
        "6: stages.train.name: two stages are named 'train'",
        "6: stages.train.adapter: 'train' trains every weight (adapter.type: full), so there is nothing to merge; its folder holds the "
        "whole model",
        "7: stages.loss.models: 'merged' is not an earlier merge or train stage; allowed: train",
    ]


def test_a_config_that_is_not_there_is_answered_with_the_shipped_one_of_that_name(tmp_path):
    with pytest.raises(ConfigError, match=r"ziya-coding-34.yaml: no such file; mft comes with .*/configs/ziya-coding-34b.yaml$"):
        load_project(tmp_path / "ziya-coding-34.yaml")
    with pytest.raises(ConfigError, match=r"unlike-any.yaml: no such file$"):
        load_project(tmp_path / "unlike-any.yaml")


def test_an_unknown_kind_is_named_with_the_allowed_ones(tmp_path):
    [problem] = problems_of(tmp_path, GOOD.replace("kind: merge", "kind: mrege"))
    assert problem.startswith("6: stages.merged")
    assert "'mrege'" in problem
    assert "did you mean 'merge'?" in problem


def test_weights_outside_a_task_mode_and_impossible_batches_are_refused(tmp_path):
    bad = ("stages.train.tasks={balance: token_mean, weights: {a: 2}}", "stages.train.training={global_batch_rows: 8, micro_batch_rows: 3}")
    found = problems_of(tmp_path, GOOD, bad)
    assert any("weights act in task_token_mean and task_sample_mean only" in problem for problem in found)
    assert any("global_batch_rows (8) is not a multiple of micro_batch_rows (3)" in problem for problem in found)


def test_overrides_reach_a_stage_by_name(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(GOOD)
    config = load_project(path, ["stages.train.training.learning_rate=3e-4", "model.context=512", "tracking.wandb=no"])
    assert config.stage("train").training.learning_rate == 3e-4
    assert config.model.context == 512
    assert config.tracking.wandb is False


def test_the_schema_describes_every_stage():
    kinds = {definition["properties"]["kind"]["const"] for definition in ProjectConfig.model_json_schema()["$defs"].values()
             if "kind" in definition.get("properties", {})}
    assert kinds == {"data", "synthesize", "train", "merge", "quantize", "evaluate", "release", "report"}


SECOND = GOOD + """  - kind: train
    name: second
    data: data
    init_from: START
    training: {learning_rate: RATE}
  - {kind: merge, name: released, adapter: second}
"""
ADVICE = "which is not lower and would undo what was learnt there; lower it, or give stage '{0}' allow_higher_learning_rate: true"


def second(start, rate):
    """A project whose first train stage has the rate 1e-4, and whose second one begins where it, or its merge, ended."""
    return SECOND.replace("START", start).replace("RATE", str(rate))


@pytest.mark.parametrize(("start", "way"), [("train", ""), ("merged", ", merged by 'merged'")])
@pytest.mark.parametrize(("rate", "said"), [("1e-4", "0.0001"), ("2e-4", "0.0002")])
def test_a_second_stage_with_a_rate_as_high_as_the_first_is_refused(tmp_path, start, way, rate, said):
    assert problems_of(tmp_path, second(start, rate)) == [
        f"12: stages.second.training.learning_rate: stage 'second' goes on from stage 'train'{way}, whose learning_rate is 0.0001, with "
        f"{said}, {ADVICE.format('second')}"]


@pytest.mark.parametrize("start", ["train", "merged"])
def test_a_lower_rate_is_taken_and_a_higher_one_that_is_meant_too(tmp_path, start):
    path = tmp_path / "config.yaml"
    path.write_text(second(start, "9e-5"))
    assert load_project(path).stage("second").training.learning_rate == 9e-5
    path.write_text(second(start, "2e-4"))
    meant = load_project(path, ["stages.second.allow_higher_learning_rate=true"])
    assert meant.stage("second").allow_higher_learning_rate
    assert meant.stage("second").training.learning_rate == 2e-4


def test_in_a_chain_each_stage_is_held_against_the_one_before_it_through_merges(tmp_path):
    third = "  - {kind: train, name: third, data: data, init_from: released, training: {learning_rate: 6e-5}}\n"
    assert problems_of(tmp_path, second("merged", "5e-5") + third) == [
        "14: stages.third.training.learning_rate: stage 'third' goes on from stage 'second', merged by 'released', whose learning_rate is "
        f"5e-05, with 6e-05, {ADVICE.format('third')}"]
    path = tmp_path / "config.yaml"
    path.write_text(second("merged", "2e-4") + third)
    assert load_project(path, ["stages.second.allow_higher_learning_rate=true"]).stage("third").init_from == "released"


def test_a_rate_that_is_not_written_out_counts_with_its_default_and_an_override_is_named(tmp_path):
    text = second("train", "1e-5").replace("    training: {learning_rate: 1e-5}\n", "")
    [problem] = problems_of(tmp_path, text)
    assert problem.startswith("8: stages.second: stage 'second' goes on from stage 'train', whose learning_rate is 0.0001, with 0.0001,")
    path = tmp_path / "config.yaml"
    path.write_text(second("train", "1e-5"))
    with pytest.raises(ConfigError, match=r"^override 'stages\.second\.training\.learning_rate=1': stages\.second\.training\.learning"):
        load_project(path, ["stages.second.training.learning_rate=1"])


def test_the_permission_without_init_from_would_not_act_and_is_refused(tmp_path):
    text = GOOD.replace("data: data}", "data: data, allow_higher_learning_rate: true}")
    assert problems_of(tmp_path, text) == [
        "5: stages.train.allow_higher_learning_rate: acts with init_from only; this stage starts from the base"]


def test_the_permission_changes_nothing_that_is_trained_so_a_run_goes_on_with_or_without_it(tmp_path, tiny_base):
    path = tmp_path / "config.yaml"
    path.write_text(second("merged", "5e-5"))
    keys = set()
    for permitted in ("true", "false"):
        config = load_project(path, [f"stages.second.allow_higher_learning_rate={permitted}"])
        context = StageContext(config, tmp_path, tmp_path / "out", tmp_path / "out" / "second", overwrite=False, replace=False,
                               record={}, write_report=write_report)
        keys.add(train_job(context, config.stage("second")).key("data", {}))
    assert len(keys) == 1
