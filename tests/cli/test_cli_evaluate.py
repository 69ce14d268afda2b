"""`mft evaluate` as a user meets it: given completions, the benchmark itself, two scores, a model, a server; mistakes are one message."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from mft.sandbox.probe import probe_sandboxes

pytestmark = pytest.mark.skipif(not any(probe.works for probe in probe_sandboxes()), reason="this machine has no sandbox")

PROBLEMS = [
    {"task_id": "HumanEval/0", "prompt": 'def add(a, b):\n    """Sum."""\n', "canonical_solution": "    return a + b\n",
     "entry_point": "add", "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n"},
    {"task_id": "HumanEval/1", "prompt": 'def one():\n    """One."""\n', "canonical_solution": "    return 1\n", "entry_point": "one",
     "test": "def check(candidate):\n    assert candidate() == 1\n"}]


def mft(*arguments: object) -> tuple[int, str, str]:
    process = subprocess.run([sys.executable, "-m", "mft", "-q", *map(str, arguments)], capture_output=True, text=True, timeout=300)
    return process.returncode, process.stdout, process.stderr


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    path = tmp_path / "HumanEval.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in PROBLEMS))
    return path


def samples(folder: Path, name: str, *answers: str) -> Path:
    path = folder / name
    path.write_text("".join(json.dumps({"task_id": row["task_id"], "completion": answer}) + "\n"
                            for row, answer in zip(PROBLEMS, answers, strict=True)))
    return path


def test_given_completions_are_scored_and_compared(tmp_path: Path, problems: Path):
    good = samples(tmp_path, "good.jsonl", "    return a + b\n", "    return 1\n")
    poor = samples(tmp_path, "poor.jsonl", "    return a + b\n", "    return 2\n")
    for name, path in (("a", poor), ("b", good)):
        code, out, _ = mft("--json", "evaluate", "score", "humaneval", "--samples", path, "--protocol", "openai", "--problems", problems,
                           "--out", tmp_path / name)
        assert code == 0
        result = json.loads(out)
        assert {"passed", "total", "pass@1", "ci95", "protocol", "failures"} <= result.keys()
        assert (result["passed"], result["total"]) == (1 if name == "a" else 2, 2)
    code, out, _ = mft("--json", "evaluate", "compare", tmp_path / "a", tmp_path / "b")
    assert (code, json.loads(out)["gained"], json.loads(out)["lost"]) == (0, ["HumanEval/1"], [])
    code, out, _ = mft("evaluate", "score", "humaneval", "--samples", poor, "--protocol", "completion", "--problems", problems,
                       "imports=codefuse")
    assert "humaneval: pass@1 50.0% (1 of 2), 95% interval 9.5% to 90.5% (wilson)" in out
    assert "protocol completion, imports=codefuse (" in out
    assert "  HumanEval/1#0  failed: " in out


@pytest.mark.slow
def test_a_benchmark_checks_itself_and_says_with_exit_code_3_when_it_is_broken(tmp_path: Path, problems: Path):
    code, out, _ = mft("--json", "evaluate", "check", "humaneval", "--protocol", "ziya", "--problems", problems)
    assert (code, json.loads(out)["passed"], json.loads(out)["stubs"]["passed"]) == (0, 2, 0)
    broken = tmp_path / "broken.jsonl"
    broken.write_text(json.dumps({**PROBLEMS[1], "test": "def check(candidate):\n    pass\n"}) + "\n")
    code, out, errors = mft("--json", "evaluate", "check", "humaneval", "--protocol", "openai", "--problems", broken)
    assert (code, json.loads(out)["stubs"]["ids"]) == (3, ["HumanEval/1"])
    assert "a body that does nothing passes 'HumanEval/1'" in errors


@pytest.mark.parametrize(("arguments", "message"), [
    (["--protocol", "opnai"], "'opnai' is not a protocol"),
    (["--protocol", "openai", "--k", "1,5"], "pass@5 cannot be said without bias from 1 sample a problem"),
    (["--protocol", "openai", "--k", "one"], "--k one: expected whole numbers"),
    (["--protocol", "openai", "import=none"], "did you mean 'imports'?"),
    (["--protocol", "openai", "--isolation", "box"], "--isolation box: expected one of auto"),
])
def test_mistakes_are_one_message_and_exit_code_2(tmp_path: Path, problems: Path, arguments: list[str], message: str):
    path = samples(tmp_path, "s.jsonl", "", "")
    code, out, errors = mft("evaluate", "score", "humaneval", "--samples", path, "--problems", problems, *arguments)
    assert (code, out) == (2, "")
    assert message in errors
    assert "Traceback" not in errors


def test_a_benchmark_without_a_file_says_what_to_give():
    code, _, errors = mft("evaluate", "check", "mbpp", "--protocol", "completion")
    assert code == 2
    assert "MBPP comes in no package: give its file, --problems FILE" in errors
    code, _, errors = mft("evaluate", "check", "humanevl", "--protocol", "completion")
    assert "did you mean 'humaneval'?" in errors


@pytest.mark.slow
def test_a_model_writes_and_is_judged_and_ranks_write_the_same(tmp_path: Path, problems: Path, small_llama: Path):
    given = ["--model", small_llama, "--protocol", "openai", "--problems", problems, "--batch-size", 1, "max_new_tokens=8"]
    code, out, errors = mft("--json", "evaluate", "humaneval", *given, "--out", tmp_path / "one")
    assert code == 0, errors
    result = json.loads(out)
    assert (result["total"], result["model"]["kind"], result["generation"]["backend"]) == (2, "model", "transformers")
    assert len(result["model"]["sha256"]) == 64
    code, _, errors = mft("--json", "evaluate", "humaneval", *given, "--out", tmp_path / "two", "--nproc", 2)
    assert code == 0, errors
    assert (tmp_path / "one" / "samples.jsonl").read_text() == (tmp_path / "two" / "samples.jsonl").read_text()
    code, _, errors = mft("evaluate", "humaneval", *given, "--out", tmp_path / "one", "--limit", 1)
    assert code == 2
    assert "holds another job" in errors
    code, out, _ = mft("--json", "evaluate", "score", "humaneval", "--samples", tmp_path / "one" / "samples.jsonl", "--protocol", "openai",
                       "--problems", problems)
    assert json.loads(out)["correct"] == result["correct"]


@pytest.mark.slow
def test_answers_of_a_server_are_judged(tmp_path: Path, problems: Path):
    spec = importlib.util.spec_from_file_location("endpoint", Path(__file__).parents[1] / "generation" / "test_generation_endpoint.py")
    assert spec is not None
    assert spec.loader is not None
    endpoint = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(endpoint)

    def answer(path, body):
        return 200, {"choices": [{"text": "    return a + b\n\ndef more():", "finish_reason": "length"}]}

    with endpoint.server(answer) as (url, asked):
        code, out, errors = mft("--json", "evaluate", "humaneval", "--endpoint", url, "--served-model", "m", "--protocol", "openai",
                                "--problems", problems, "--out", tmp_path / "o")
    assert code == 0, errors
    result = json.loads(out)
    assert (result["correct"], result["model"]["name"]) == ({"HumanEval/0": 1, "HumanEval/1": 0}, "m")
    assert sorted(body["prompt"] for _, body, _ in asked) == sorted(row["prompt"] for row in PROBLEMS)
    rows = [json.loads(line) for line in (tmp_path / "o" / "samples.jsonl").read_text().splitlines()]
    assert {(row["completion"], row["finish_reason"]) for row in rows} == {("    return a + b\n", "stop")}
