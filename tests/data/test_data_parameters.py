"""Parameters of a recipe: a path that is said once, and given otherwise by whoever builds it."""

import json

import pytest
import yaml

from mft.cli.main import main
from mft.data import build, load_recipe
from mft.data.config import RecipeConfig
from mft.errors import ConfigError

RECIPE = """\
name: r
parameters: {rows: here, bench: own}
tasks:
  a: {sources: [{type: jsonl, path: "{rows}/a.jsonl"}]}
  b: {sources: [{type: jsonl, path: "{rows}/b-*.jsonl"}], steps: [{type: decontaminate, problems: ["{bench}/p.jsonl"]}]}
split: {validation: 0, by: id}
"""
PROBLEM = {"task_id": "HumanEval/0", "prompt": "def f(a):\n", "entry_point": "f", "canonical_solution": "    return a * 7 + 11\n",
           "test": "def check(f): pass"}


def lay_out(folder, name, words):
    (folder / name).mkdir(parents=True)
    for file in ("a", "b-1"):
        rows = [{"id": f"{file}-{n}", "prompt": f"{words} {file} {n}", "answer": f"{n}"} for n in range(3)]
        (folder / name / f"{file}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "r.yaml").write_text(RECIPE)
    lay_out(tmp_path, "here", "old")
    lay_out(tmp_path, "there", "other")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "p.jsonl").write_text(json.dumps(PROBLEM) + "\n")
    return tmp_path / "r.yaml"


def problems(path, text, overrides=(), **options):
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_recipe(path, overrides, **options)
    return [problem.removeprefix(f"{path}:") for problem in caught.value.problems]


def asked(result):
    return {row.messages[0].content for row in result.rows["train"]}


def test_a_name_stands_for_its_value_in_paths_of_sources_and_of_problems(recipe):
    loaded = load_recipe(recipe, must_exist=True)
    assert loaded.tasks["a"].sources[0].path == "here/a.jsonl"
    assert loaded.tasks["b"].sources[0].path == "here/b-*.jsonl"
    assert loaded.tasks["b"].steps[0].problems == ("own/p.jsonl",)
    assert loaded.parameters == {}


def test_a_value_that_is_given_stands_above_the_recipes_own(recipe):
    assert load_recipe(recipe, ["parameters.rows=there"]).tasks["a"].sources[0].path == "there/a.jsonl"
    both = load_recipe(recipe, ["parameters.rows=there"], parameters={"rows": "/x"})
    assert both.tasks["a"].sources[0].path == "/x/a.jsonl"
    assert both.tasks["b"].steps[0].problems == ("own/p.jsonl",)


def test_the_command_line_builds_from_another_folder_and_sets_any_key(recipe, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["-q", "--json", "data", "build", str(recipe), "parameters.rows=there", "split.validation=0.5",
              "--out", str(tmp_path / "out")])
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["read"] == 6
    written = yaml.safe_load((tmp_path / "out" / "recipe.yaml").read_text())
    assert "parameters" not in written
    assert written["split"]["validation"] == 0.5
    assert written["tasks"]["a"]["sources"][0]["path"] == (tmp_path / "there" / "a.jsonl").as_posix()
    assert load_recipe(tmp_path / "out" / "recipe.yaml", must_exist=True).name == "r"


def test_the_files_behind_a_parameter_decide_about_the_build_not_where_they_lie(recipe, tmp_path):
    built = build(recipe, tmp_path / "out")
    (tmp_path / "here").rename(tmp_path / "moved")
    again = build(load_recipe(recipe, parameters={"rows": "moved"}), tmp_path / "out")
    assert again.usage == {}   # found finished
    other = build(load_recipe(recipe, parameters={"rows": "there"}))
    assert other.facts["sha256"] != built.facts["sha256"]
    assert asked(other) == {f"other {file} {n}" for file in ("a", "b-1") for n in range(3)}


def test_a_recipe_without_parameters_has_the_job_that_it_had_without_the_key(recipe, tmp_path):
    plain = RECIPE.replace("parameters: {rows: here, bench: own}\n", "").replace("{rows}", "here").replace("{bench}", "own")
    (tmp_path / "plain.yaml").write_text(plain)
    build(recipe, tmp_path / "out")
    assert build(tmp_path / "plain.yaml", tmp_path / "out").usage == {}


@pytest.mark.parametrize(("old", "new", "expected"), [
    ("{rows}/a", "{row}/a", ["4: tasks.a.sources.0.path: the recipe has no parameter 'row'; did you mean 'rows'?"]),
    ("{bench}/p", "{problems}/p", [
        "2: parameters.bench: no path of the recipe holds {bench}; parameters that are used: rows",
        "5: tasks.b.steps.0.problems.0: the recipe has no parameter 'problems'; parameters: rows, bench; braces that belong to the path "
        "are written {{ and }}"]),
    ("{rows}/a", "{rows}/{a,b}", [
        "4: tasks.a.sources.0.path: '{a,b}' is no parameter; braces that belong to the path are written {{ and }}"]),
    ("{rows}/a", "{rows}/a}", ["4: tasks.a.sources.0.path: '}' is no parameter; braces that belong to the path are written {{ and }}"]),
    ("bench: own", "bench: own, tree: x", [
        "2: parameters.tree: no path of the recipe holds {tree}; parameters that are used: bench, rows"]),
    ("rows: here", "rows: [a]", ["2: parameters.rows: expected text, found a list"]),
    ("rows: here", "rows:", ["2: parameters.rows: expected text, found nothing"]),
])
def test_a_mistake_in_parameters_is_named_with_its_line_and_nothing_is_looked_for(recipe, old, new, expected):
    assert sorted(problems(recipe, RECIPE.replace(old, new), must_exist=True)) == expected


def test_a_value_for_a_parameter_that_is_not_used_is_refused_by_its_own_name(recipe):
    assert problems(recipe, RECIPE, ["parameters.row=/x"]) == [
        "override 'parameters.row=/x': parameters.row: no path of the recipe holds {row}; did you mean 'rows'?"]
    assert problems(recipe, RECIPE, parameters={"row": "/x"}) == [
        " parameters.row is given: no path of the recipe holds {row}; did you mean 'rows'?"]


def test_other_mistakes_of_the_recipe_come_in_the_same_message(recipe):
    found = problems(recipe, RECIPE.replace("{rows}/a", "{row}/a").replace("by: id", "by: ids"))
    assert [problem.split(":")[0] for problem in found] == ["4", "6"]


def test_braces_that_belong_to_a_path_are_written_twice_and_survive_the_written_recipe(recipe, tmp_path):
    lay_out(tmp_path, "{odd}", "odd")
    loaded = load_recipe(recipe, parameters={"rows": "{odd}"})
    assert asked(build(loaded, tmp_path / "out")) == {f"odd {file} {n}" for file in ("a", "b-1") for n in range(3)}
    assert load_recipe(tmp_path / "out" / "recipe.yaml", must_exist=True).tasks["a"].sources[0].path == f"{tmp_path}/{{odd}}/a.jsonl"
    recipe.write_text(RECIPE.replace("{rows}/a", "{{odd}}/a"))
    assert load_recipe(recipe, must_exist=True).tasks["a"].sources[0].path == "{odd}/a.jsonl"


def test_a_recipe_made_in_python_says_its_paths_themselves():
    with pytest.raises(ValueError, match="parameters are filled in where a recipe is read from a file"):
        RecipeConfig.model_validate({"name": "r", "parameters": {"a": "b"},
                                     "tasks": {"t": {"sources": [{"type": "jsonl", "path": "{a}"}]}}})
