"""A data stage gives values to its recipe's parameters: a path beside the config, or what an earlier stage has written."""

import json

import pytest

from mft.cli.main import main
from mft.errors import ConfigError
from mft.report.page import write_report
from mft.runs.config import load_project
from mft.runs.project import Project, run_project

PROJECT = """name: demo
model: {base: tiny-code-llama, format: codefuse, context: 256}
stages:
  - {kind: data, name: first, recipe: recipes/first.yaml, parameters: {rows: {path: ../mine}}}
  - {kind: data, name: second, recipe: recipes/second.yaml, parameters: {built: {stage: first, path: train-*.parquet}}}
"""
FIRST = "name: first\nparameters: {rows: nowhere}\ntasks: {t: {sources: [{type: jsonl, path: '{rows}/*.jsonl'}]}}\nsplit: {by: id}\n"
SECOND = "name: second\nparameters: {built: nowhere}\ntasks: {t: {sources: [{type: parquet, path: '{built}'}]}}\n" \
         "split: {by: id}\n"


@pytest.fixture
def project(tmp_path):
    (tmp_path / "project" / "recipes").mkdir(parents=True)
    (tmp_path / "mine").mkdir()
    rows = [{"id": str(n), "prompt": f"question {n}", "answer": f"answer {n}"} for n in range(40)]
    (tmp_path / "mine" / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "project" / "recipes" / "first.yaml").write_text(FIRST)
    (tmp_path / "project" / "recipes" / "second.yaml").write_text(SECOND)
    (tmp_path / "project" / "p.yaml").write_text(PROJECT)
    return tmp_path / "project" / "p.yaml"


def run(path, out, **options):
    return run_project(Project(load_project(path), path, out, write_report), **options)["stages"]


def test_a_path_is_relative_to_the_config_and_a_stage_is_its_folder(project, tmp_path):
    first, second = run(project, tmp_path / "out")
    assert first["result"]["read"] == 40
    assert second["result"]["read"] == first["result"]["per_task"]["t"]["train"]


def test_a_stage_alone_is_its_whole_folder(project, tmp_path):
    recipe = project.with_name("recipes") / "second.yaml"
    recipe.write_text(SECOND.replace("'{built}'", "'{built}/train-*.parquet'"))
    project.write_text(PROJECT.replace("stage: first, path: train-*.parquet", "stage: first"))
    first, second = run(project, tmp_path / "out")
    assert second["result"]["read"] == first["result"]["per_task"]["t"]["train"]


def test_a_stage_that_reads_another_brings_it_along_and_runs_again_when_that_one_has_changed(project, tmp_path):
    assert [stage["name"] for stage in run(project, tmp_path / "out", only="second")] == ["first", "second"]
    assert [stage["skipped"] for stage in run(project, tmp_path / "out")] == [True, True]
    with (tmp_path / "mine" / "a.jsonl").open("a") as stream:
        stream.write(json.dumps({"id": "40", "prompt": "one more", "answer": "yes"}) + "\n")
    first, second = run(project, tmp_path / "out")
    assert [first["skipped"], second["skipped"]] == [False, False]
    assert second["result"]["read"] == first["result"]["per_task"]["t"]["train"]


@pytest.mark.parametrize(("old", "new", "expected"), [
    ("{path: ../mine}", "{}",
     "4: stages.first.parameters.rows: give a path, a stage or both: {path: ../src}, {stage: NAME} or {stage: NAME, path: rows.jsonl}"),
    ("{path: ../mine}", "{path: mine, stage: first}", "4: stages.first.parameters.rows.stage: 'first' is not an earlier data or synthesize "
     "stage; allowed: none stands before it"),
    ("{path: ../mine}", "../mine", "4: stages.first.parameters.rows: expected keys and values, found '../mine'"),
    ("{path: ../mine}", "{pth: ../mine}", "4: stages.first.parameters.rows.pth: not a known key; did you mean 'path'?"),
    ("{stage: first,", "{stage: frist,", "5: stages.second.parameters.built.stage: 'frist' is not an earlier data or synthesize stage; "
     "allowed: first"),
])
def test_a_value_of_another_form_is_one_message(project, old, new, expected):
    project.write_text(PROJECT.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        load_project(project)
    assert [problem.removeprefix(f"{project}:") for problem in caught.value.problems] == [expected]


def test_a_parameter_that_the_recipe_does_not_have_is_refused_before_a_row_is_read(project, tmp_path):
    project.write_text(PROJECT.replace("parameters: {rows:", "parameters: {row:"))
    with pytest.raises(ConfigError, match=r"first.yaml: parameters.row is given: no path of the recipe holds \{row\}; did you mean 'rows'"):
        run(project, tmp_path / "out")


def test_the_doctor_looks_for_what_a_path_names_and_not_for_what_a_stage_will_write(project, tmp_path, capsys):
    def recipes(*overrides):
        with pytest.raises(SystemExit):
            main(["-q", "--json", "doctor", str(project), *overrides, "--only", "recipes"])
        return next(check for check in json.loads(capsys.readouterr().out)["checks"] if check["name"] == "recipes")

    assert recipes()["state"] == "ok"
    broken = recipes("stages.first.parameters.rows.path=../theirs")
    assert broken["state"] == "fault"
    assert "theirs" in json.dumps(broken)
