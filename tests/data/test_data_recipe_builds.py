"""The shipped recipes over public files: laid out as each recipe says, hub sources and benchmarks swapped for local files."""

import shutil
from pathlib import Path

import pytest
import yaml

from mft.data import build, load_recipe
from mft.data.source_config import HubSource
from mft.errors import DataError

RECIPES = Path(__file__).resolve().parents[2] / "data_recipes"
NEW = ("codefuse-600k", "ziya-stage1", "ziya-stage2", "evol-instruct-code", "my-repository", "my-repository-functions",
       "my-repository-taught")


def copied(name, folder, shared_data, *, hub=None, **changes):
    """The recipe in `folder`, its benchmark the public HumanEval, its hub sources these local ones (none: left out)."""
    written = load_recipe(RECIPES / f"{name}.yaml").model_dump(mode="json")
    for task in written["tasks"].values():
        local = [{**(hub or {})[source["name"]], "license": source["license"], "origin": source["origin"]}
                 if source["type"] == "hub" else source for source in task["sources"] if source["type"] != "hub" or hub]
        task["sources"] = local
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**written, **changes}, sort_keys=False).replace("humaneval", "HumanEval.jsonl.gz"))
    shutil.copy(shared_data / "humaneval" / "HumanEval.jsonl.gz", folder)
    return path


def adds_up(facts):
    assert all(step["read"] == step["kept"] + sum(step["dropped"].values()) for step in facts["steps"])
    assert facts["read"] == facts["kept"] + sum(facts["dropped"].values())
    return facts


@pytest.mark.parametrize("name", NEW)
def test_every_source_says_licence_and_origin(name):
    recipe = load_recipe(RECIPES / f"{name}.yaml")
    assert all(source.license and source.origin for task in recipe.tasks.values() for source in task.sources)


@pytest.mark.parametrize("name", ["codefuse-600k", "evol-instruct-code"])
def test_hub_sources_are_pinned_to_commits(name):
    sources = [source for task in load_recipe(RECIPES / f"{name}.yaml").tasks.values() for source in task.sources]
    hub = [source for source in sources if isinstance(source, HubSource)]
    assert hub
    assert all(source.commit == source.revision for source in hub)


@pytest.mark.parametrize(("name", "value", "why"), [
    ("HF_HUB_OFFLINE", True, r"offline mode is set \(HF_HUB_OFFLINE\)"),
    ("ENDPOINT", "http://127.0.0.1:9", "Connection refused"),
])
def test_a_hub_recipe_that_cannot_be_reached_is_one_clear_error(shared_data, tmp_path, monkeypatch, name, value, why):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, name, value)
    text = (RECIPES / "evol-instruct-code.yaml").read_text(encoding="utf-8").replace("humaneval", "HumanEval.jsonl.gz")
    (tmp_path / "evol-instruct-code.yaml").write_text(text)
    shutil.copy(shared_data / "humaneval" / "HumanEval.jsonl.gz", tmp_path)
    with pytest.raises(DataError, match=rf"data set 'nickrosh/Evol-Instruct-Code-80k-v1' cannot be reached: .*{why}"):
        build(tmp_path / "evol-instruct-code.yaml", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_nine_tasks_build_from_local_files(shared_data, tmp_path):
    (tmp_path / "codefuse-600k").mkdir()
    for path in (shared_data / "mft").glob("*.jsonl.gz"):
        shutil.copy(path, tmp_path / "codefuse-600k")
    facts = adds_up(build(copied("codefuse-600k", tmp_path, shared_data)).facts)
    assert facts["read"] == 13356
    files = {"code_completion": 600, "code_repair": 2000, "code_translation": 1000, "docstring_gen": 1387, "multi_turn_chat": 696,
             "python_code_gen": 1599, "text2sql": 700, "unit_test_gen": 374, "zh_text2code": 5000}
    kept = {task: sum(parts.values()) for task, parts in facts["per_task"].items()}
    assert kept.keys() == files.keys()
    assert all(0.97 * files[task] <= kept[task] <= files[task] for task in files)   # clean files: the steps take few rows
    assert all(parts["validation"] >= 20 for parts in facts["per_task"].values())
    assert facts["dropped"]["duplicate"] == 23


def test_evol_instruct_code_builds_from_a_local_file(shared_data, tmp_path):
    shutil.copy(shared_data / "instruct" / "evol_instruct_code_1.jsonl.gz", tmp_path)
    local = {"type": "jsonl", "path": "evol_instruct_code_1.jsonl.gz", "converter": "alpaca"}
    recipe = copied("evol-instruct-code", tmp_path, shared_data, hub={"nickrosh/Evol-Instruct-Code-80k-v1": local})
    facts = adds_up(build(recipe).facts)
    assert facts["read"] == 1966
    assert 1940 <= facts["kept"] < 1966
    assert facts["dropped"]["syntax_error"] > 0
    assert set(facts["dropped"]) <= {"syntax_error", "unclosed_fence", "near_duplicate", "contaminated_ngrams", "contaminated_structure"}


def ziya_files(shared_data, tmp_path):
    """A small Chinese file and two English ones of the public data."""
    for language, names in (("zh", ["alpaca_gpt4_zh_0_799"]), ("en", ["code_alpaca_2k_0_1599", "identity"])):
        (tmp_path / "ziya-stage1" / language).mkdir(parents=True)
        for name in names:
            shutil.copy(shared_data / "instruct" / f"{name}.jsonl.gz", tmp_path / "ziya-stage1" / language)


def test_stage_1_takes_its_quotas_to_the_row(shared_data, tmp_path):
    ziya_files(shared_data, tmp_path)
    smaller = {"type": "quotas", "quotas": {"zh": 500, "en": 1200}, "max_epochs": 1}
    facts = adds_up(build(copied("ziya-stage1", tmp_path, shared_data, mixture=smaller)).facts)
    assert {task: parts["train"] for task, parts in facts["per_task"].items()} == {"zh": 500, "en": 1200}
    assert facts["mixture"]["shortfall"] == 0
    assert facts["dropped"]["over_quota"] > 0


def test_stage_1_says_what_is_missing_where_there_are_too_few_rows(shared_data, tmp_path, caplog):
    ziya_files(shared_data, tmp_path)
    facts = adds_up(build(copied("ziya-stage1", tmp_path, shared_data)).facts)
    tasks = facts["mixture"]["tasks"]
    assert (tasks["zh"]["requested"], tasks["en"]["requested"]) == (100_000, 350_000)
    assert all(task["shortfall"] == task["requested"] - task["available"] > 0 for task in tasks.values())
    assert "task 'zh' was asked for 100000 training rows" in caplog.text


def test_stage_2_builds_from_evolved_rows(shared_data, tmp_path):
    (tmp_path / "ziya-stage2").mkdir()
    shutil.copy(shared_data / "instruct" / "evol_instruct_code_1.jsonl.gz", tmp_path / "ziya-stage2" / "rows.jsonl.gz")
    facts = adds_up(build(copied("ziya-stage2", tmp_path, shared_data)).facts)
    assert facts["read"] == 1966
    assert facts["per_task"]["evolved"]["train"] > 1500
    assert facts["mixture"]["tasks"]["evolved"]["shortfall"] == 46_000 - facts["mixture"]["tasks"]["evolved"]["available"]


def test_my_repository_builds_from_a_source_tree(shared_data, tmp_path):
    shutil.copytree(RECIPES.parent / "mft", tmp_path / "my-repository", ignore=shutil.ignore_patterns("assets", "__pycache__"))
    (tmp_path / "my-repository" / "tests").mkdir()
    (tmp_path / "my-repository" / "tests" / "test_x.py").write_text("def broken(:\n")
    (tmp_path / "my-repository" / "leak.py").write_text(
        'def connect(host):\n    """Open the connection to the store of the backups."""\n    key = "AKIA' + "IOSFODNN7" + 'QWERTYU"\n'
        '    region = "eu-west-1"\n    session = open_session(host)\n    return session, key, region\n')
    result = build(copied("my-repository", tmp_path, shared_data))
    facts = adds_up(result.facts)
    assert "does_not_parse" not in facts["dropped"]                     # the tests are left out
    assert facts["dropped"]["secret"] == 3                              # one function, as a row of three tasks
    assert facts["joined"]["usage"]["into"] == "docstring"
    files = [{row.split_key for row in result.rows[part]} for part in ("train", "validation")]
    assert not files[0] & files[1]
    assert set(facts["per_task"]) == {"text2code", "docstring", "completion"}
