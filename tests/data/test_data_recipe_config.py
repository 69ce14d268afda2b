"""A mistake in a recipe is one message with its line (law 12)."""

import pytest

from mft.data.config import load_recipe
from mft.errors import ConfigError

GOOD = """\
name: r
tasks:
  chat:
    sources:
      - {type: jsonl, path: a.jsonl}
  code:
    weight: 2
    sources:
      - {type: python_code, path: stdlib, make: usage, join_below: {rows: 1, files: 1, task: chat}}
"""


def load(tmp_path, text, **options):
    path = tmp_path / "r.yaml"
    path.write_text(text)
    return load_recipe(path, **options)


def problems(tmp_path, text, **options):
    with pytest.raises(ConfigError) as error:
        load(tmp_path, text, **options)
    return [problem.removeprefix(str(tmp_path) + "/") for problem in error.value.problems]


def test_a_recipe_has_the_documented_defaults(tmp_path):
    recipe = load(tmp_path, GOOD)
    assert recipe.seed == 1234
    assert (recipe.split.validation, recipe.split.by) == (0.05, "file")
    assert recipe.mixture.type == "proportional"
    assert recipe.tasks["chat"].weight == 1.0
    assert recipe.tasks["chat"].sources[0].converter == "auto"
    assert recipe.tasks["chat"].sources[0].folder == tmp_path
    assert list(recipe.tasks) == ["chat", "code"]


@pytest.mark.parametrize(("old", "new", "line", "words"), [
    ("name: r", "nmae: r", 1, ["nmae", "not a known key", "did you mean 'name'?"]),
    ("type: jsonl", "type: jsnl", 5, ["tasks.chat.sources.0.type", "'jsnl'", "did you mean 'jsonl'?"]),
    ("path: a.jsonl", "path: a.jsonl, converter: sharegtp", 5, ["tasks.chat.sources.0.converter", "did you mean 'sharegpt'?"]),
    ("path: a.jsonl", "path: a.jsonl, make: usage", 5, ["tasks.chat.sources.0.make", "not a known key"]),
    ("weight: 2", "weight: many", 7, ["tasks.code.weight", "'many'"]),
    ("weight: 2", "weight: 0", 7, ["tasks.code.weight", "0"]),
    ("make: usage", "make: tests", 9, ["tasks.code.sources.0.make", "'tests'", "text2code"]),
    ("task: chat}", "task: chta}", 2, ["tasks", "'code' would join 'chta'", "allowed: chat"]),
    ("name: r", "name: r\nsteps: [{type: lenght}]", 2, ["steps.0", "'lenght'", "did you mean 'length'?"]),
    ("name: r", "name: r\nsteps: [{type: length, min_characters: 9, max_characters: 3}]", 2, ["steps.0", "no row would be left"]),
    ("name: r", "name: r\nsplit: {by: files}", 2, ["split.by", "'files'", "did you mean 'file'?"]),
    ("name: r", "name: r\nsplit: {validation: 1}", 2, ["split.validation", "1"]),
    ("name: r", "name: r\nmixture: {type: temprature, temperature: 2}", 2, ["mixture", "temprature", "temperature"]),
])
def test_a_mistake_is_one_message_with_line_key_and_what_is_allowed(tmp_path, old, new, line, words):
    found = problems(tmp_path, GOOD.replace(old, new))
    about = [problem for problem in found if all(word in problem for word in words)]
    assert len(about) == 1, found
    assert about[0].startswith(f"r.yaml:{line}: ")


def test_all_mistakes_are_reported_at_once(tmp_path):
    assert len(problems(tmp_path, GOOD.replace("weight: 2", "weight: x").replace("type: jsonl", "type: xml") + "seed: now\n")) == 3


def test_files_are_looked_for_only_when_a_build_needs_them(tmp_path):
    load(tmp_path, GOOD)
    assert problems(tmp_path, GOOD, must_exist=True) == [
        f"r.yaml:5: tasks.chat.sources.0.path: {tmp_path}/a.jsonl: no such file"]
    missing_tree = GOOD.replace("path: stdlib", "path: nowhere").replace("a.jsonl", "'*.jsonl'")
    assert problems(tmp_path, missing_tree, must_exist=True) == [
        f"r.yaml:5: tasks.chat.sources.0.path: {tmp_path}/*.jsonl: no file matches",
        f"r.yaml:9: tasks.code.sources.0.path: {tmp_path}/nowhere: no such folder; give a folder relative to the recipe, or 'stdlib'"]


def test_the_sources_of_a_task_must_agree_on_joining(tmp_path):
    text = GOOD + "      - {type: python_code, path: src, make: usage, join_below: {rows: 2, files: 1, task: chat}}\n"
    assert problems(tmp_path, text) == ["r.yaml:2: tasks: the sources of 'code' disagree on join_below; it decides for the whole task"]
