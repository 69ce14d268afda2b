"""Project configs: every shipped one loads, and mistakes are found all at once with their lines."""

from pathlib import Path

import pytest

from mft.data.config import load_recipe
from mft.errors import ConfigError
from mft.formats import names
from mft.runs.config import DataStage, ProjectConfig, load_project

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
    [problem] = problems_of(tmp_path, text)
    assert "stage 'merged': adapter: 'data' is not an earlier train stage; allowed: train" in problem
    assert "stage 'loss': models: 'trian' is not an earlier merge or train stage; allowed: train, merged" in problem


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
    assert kinds == {"data", "train", "merge", "evaluate", "report"}
