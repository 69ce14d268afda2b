"""The stage `synthesize` in a project: run once, skipped when nothing changed, and read by a data stage behind it."""

import json
from pathlib import Path

import pytest
from fake_endpoint import FakeEndpoint
from test_synthesis_over_http import rule

from mft.cli.main import main
from mft.errors import ConfigError
from mft.runs.config import load_project

PROJECT = """name: p
model: {{base: tiny-code-llama, format: codefuse, context: 1024}}
stages:
  - kind: synthesize
    name: made
    seeds: seeds.jsonl
    task: evolved
    client: {{type: endpoint, urls: ['{url}'], model: m}}
    steps: [{{type: evolve, keep_parents: false}}, {{type: answer}}, {{type: compile}}, {{type: unit_tests}}, {{type: tests_pass}}]
  - {{kind: synthesize, name: checked, data: made, steps: [{{type: tests_bite, mutants: {mutants}}}]}}
  - {{kind: data, name: data, recipe: recipe.yaml, parameters: {{rows: {{stage: checked}}}}}}
  - {{kind: report, name: report}}
"""
RECIPE = """name: r
parameters: {rows: rows}
tasks: {evolved: {sources: [{type: jsonl, path: "{rows}/rows.jsonl", converter: alpaca}]}}
steps: [{type: syntax}]
split: {validation: 0}
"""


def write_project(folder: Path, url: str = "http://127.0.0.1:9/v1", mutants: int = 2) -> Path:
    (folder / "seeds.jsonl").write_text("".join(json.dumps({"id": f"s{each}", "instruction": f"Write add, variant {each}."}) + "\n"
                                                for each in range(5)))
    (folder / "recipe.yaml").write_text(RECIPE)
    path = folder / "p.yaml"
    path.write_text(PROJECT.format(url=url, mutants=mutants))
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict:
    with pytest.raises(SystemExit) as ended:
        main(["--json", "run", *map(str, arguments)])
    said = capsys.readouterr()
    assert ended.value.code in (0, None), said
    return json.loads(said.out)


def skipped(said: dict) -> dict[str, bool]:
    return {stage["name"]: stage["skipped"] for stage in said["stages"]}


def test_a_project_makes_rows_checks_them_and_builds_data_of_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "out"
    with FakeEndpoint(rule) as fake:
        config = write_project(tmp_path, fake.url)
        first = run(capsys, config, "--out", out)
        asked = fake.stats()["asked"]
        again = run(capsys, config, "--out", out)
        write_project(tmp_path, fake.url, mutants=3)
        changed = run(capsys, config, "--out", out)
        assert fake.stats()["asked"] == asked == 15      # 5 seeds, each evolved, answered and tested once
    results = {stage["name"]: stage["result"] for stage in first["stages"]}
    assert (results["made"]["made"], results["made"]["kept"], results["checked"]["kept"], results["data"]["kept"]) == (5, 5, 5, 5)
    assert results["data"]["per_task"] == {"evolved": {"train": 5, "validation": 0}}
    assert skipped(again) == {"made": True, "checked": True, "data": True, "report": False}
    assert skipped(changed) == {"made": True, "checked": False, "data": True, "report": False}     # the rows came out the same
    page = (out / "report" / "report.html").read_text() if (out / "report" / "report.html").is_file() else (out / "report.html").read_text()
    assert "Funnel: made" in page
    assert "Funnel: checked" in page


def test_a_dry_run_says_how_much_can_be_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    said = json.dumps(run(capsys, write_project(tmp_path), "--out", tmp_path / "out", "--dry-run"))
    assert "5 seeds; at most 15 requests and 30,720 tokens of answers" in said
    assert not (tmp_path / "out" / "made").exists()


@pytest.mark.parametrize(("line", "message"), [
    ("{kind: synthesize, name: a, steps: [{type: compile}]}", "give one of seeds (a path) and data (an earlier stage)"),
    ("{kind: synthesize, name: a, seeds: s.jsonl, steps: [{type: evolve}]}", "evolve: a language model must answer"),
    ("{kind: synthesize, name: a, data: later, steps: [{type: compile}]}", "'later' is not an earlier data or synthesize stage"),
    ("{kind: synthesize, name: a, seeds: s.jsonl, steps: [{type: compil}]}", "compil"),
])
def test_mistakes_of_the_stage_are_told(line: str, message: str, tmp_path: Path):
    path = tmp_path / "p.yaml"
    path.write_text(f"name: p\nmodel: {{base: tiny-code-llama, format: codefuse, context: 1024}}\nstages:\n  - {line}\n")
    with pytest.raises(ConfigError) as caught:
        load_project(path)
    assert message in str(caught.value)
