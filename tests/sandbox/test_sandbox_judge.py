"""Verdicts: what passes, what fails and why, in which process the tests ran."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mft.errors import MftError
from mft.sandbox.judge import choose, facts, judge
from mft.sandbox.program import ExecutionResult, Limits, Program, SandboxError

HELPERS = {"HumanEval/32", "HumanEval/38", "HumanEval/50"}
"""Problems whose tests use a function of the prompt."""


def run(*programs: Program, **options: object) -> dict[str, ExecutionResult]:
    try:
        return {result.id: result for result in judge(programs, **options)}  # type: ignore[arg-type]
    except SandboxError as error:
        pytest.skip(str(error))


def program(solution: str, tests: str, **fields: object) -> Program:
    return Program(**{"id": "p", "solution": solution, "tests": tests, "entry_point": "f", **fields})  # type: ignore[arg-type]


def human_eval(shared_data: Path) -> list[dict[str, str]]:
    with gzip.open(shared_data / "humaneval" / "HumanEval.jsonl.gz", "rt") as file:
        return [json.loads(line) for line in file]


def problem(row: dict[str, str], body: str) -> Program:
    return Program(id=row["task_id"], solution=row["prompt"] + body, tests=row["test"], entry_point=row["entry_point"],
                   call=f"check({row['entry_point']})",
                   trusted_prefix=row["prompt"] + row["canonical_solution"] if row["task_id"] in HELPERS else "")


@pytest.mark.slow
@pytest.mark.law
@pytest.mark.parametrize("mode", ["separate", "inside"])
def test_canonical_solutions_pass_and_empty_bodies_fail(shared_data: Path, mode: str):
    rows = human_eval(shared_data)
    canonical = run(*[problem(row, row["canonical_solution"]) for row in rows], mode=mode)
    empty = run(*[problem(row, "    pass\n") for row in rows], mode=mode)
    assert [name for name, result in canonical.items() if not result.passed] == []
    assert [name for name, result in empty.items() if result.passed] == []
    assert {result.judged for result in [*canonical.values(), *empty.values()]} == {mode}
    assert len(canonical) == len(empty) == 164


@pytest.mark.slow
def test_canonical_solutions_of_mbpp_are_all_judged_separately(shared_data: Path):
    with gzip.open(shared_data / "mbpp" / "mbpp.jsonl.gz", "rt") as file:
        rows = [json.loads(line.replace("\\r\\n", "\\n")) for line in file][:200]
    programs = [Program(id=str(row["task_id"]), solution=row["code"], tests="\n".join([row["test_setup_code"], *row["test_list"]]),
                        entry_point=row["test_list"][0].split("(")[0].split()[-1], timeout_s=10) for row in rows]
    results = run(*programs)
    assert [(name, result.detail) for name, result in results.items() if not result.passed or result.judged != "separate"] == []


def test_the_first_assertion_that_fails_is_the_detail():
    tests = "def check(c):\n    assert c(1) == 1\n    assert c(2) == 3, 'two'\n"
    result = run(program("def f(x):\n    return x", tests, call="check(f)"))["p"]
    assert (result.status, result.detail) == ("failed", "assert c(2) == 3, 'two'  # two")
    assert (result.judged, result.why_inside) == ("separate", "")


@pytest.mark.parametrize("mode", ["separate", "inside"])
@pytest.mark.parametrize(("solution", "status", "detail"), [
    ("def f(x):\n    return x + 1", "passed", ""),
    ("def f(x) return x", "error", "SyntaxError"),
    ("def g(x):\n    return x + 1", "error", "NameError: name 'f' is not defined"),
    ("def f(x):\n    return 1 / 0", "error", "ZeroDivisionError: division by zero"),
    ("raise ValueError('at import')\ndef f(x):\n    return x + 1", "error", "ValueError: at import"),
    ("def f(x):\n    assert x > 5\n    return x + 1", "error", ""),
    ("def f(x):\n    raise MemoryError", "out_of_memory", "MemoryError"),
    ("if __name__ == '__main__':\n    raise ValueError\ndef f(x):\n    return x + 1", "passed", ""),
    ("def f(x):\n    print('\\x1b[2J' + 'passed')\n    return x + 1", "passed", ""),
    ("def f(x):\n    raise ValueError('\\x1b[31m')", "error", "ValueError:  [31m"),
    ("import sys\ndef f(x):\n    return x + (sys.stdin.read() == '')", "passed", ""),
    ("from dataclasses import dataclass\n@dataclass\nclass A:\n    b: int\ndef f(x):\n    return A(x + 1).b", "passed", ""),
])
def test_a_program_ends_with_the_status_of_what_it_did(solution: str, status: str, detail: str, mode: str):
    result = run(program(solution, "assert f(1) == 2"), mode=mode)["p"]
    if mode == "inside" and "assert" in solution:
        status = "failed"       # within one process the tests' assertions and the solution's are one kind
    assert result.status == status
    assert detail in result.detail
    assert result.judged == mode


def test_helpers_of_the_prompt_are_the_tests_own():
    solution = "def helper(x):\n    return 0\ndef f(x):\n    return x + 1"
    tests = "assert helper(f(1)) == 4"
    assert run(program(solution, tests, trusted_prefix="def helper(x):\n    return x * 2"))["p"].status == "passed"
    assert run(program(solution, tests))["p"].status == "failed"


def test_a_module_that_the_tests_name_is_the_tests_own():
    solution = "class math:\n    @staticmethod\n    def isclose(a, b):\n        return True\ndef f(x):\n    return 99"
    assert run(program(solution, "assert math.isclose(f(1), 2)"))["p"].status == "failed"
    assert run(program("def f(x):\n    return x + 1", "assert math.isclose(f(1), 2)"))["p"].status == "passed"


def test_classes_of_the_solution_that_the_tests_name_are_used_where_they_are():
    solution = ("class Pair:\n    def __init__(self, a, b):\n        self.a, self.b = a, b\n"
                "def f(pairs):\n    return sum(p.b - p.a for p in pairs)")
    result = run(program(solution, "p = Pair(1, 2)\np.b = 5\nassert f([p, Pair(1, 2)]) == 5\nassert p.a == 1"))["p"]
    assert (result.status, result.judged) == ("passed", "separate")


def test_what_a_separate_judge_cannot_do_is_judged_inside_with_the_reason():
    tests = "class Box:\n    value = 1\nassert f(Box()) == 2"
    results = run(program("def f(x):\n    return x.value + 1", tests, id="good"), program("def f(x):\n    return 1", tests, id="bad"))
    assert {name: result.status for name, result in results.items()} == {"good": "passed", "bad": "failed"}
    assert {(result.judged, result.why_inside) for result in results.values()} == {("inside", "a test hands over an object of class Box")}


def test_a_solution_cannot_choose_to_be_judged_inside():
    solution = "class Box:\n    def __eq__(self, other):\n        return True\ndef f(x):\n    return Box()"
    result = run(program(solution, "assert f(1) == 2\n"))["p"]
    assert (result.status, result.judged) == ("failed", "separate")


def test_what_is_late_is_run_again_alone_before_it_counts():
    solution = "import time\ndef f(x):\n    time.sleep(30)"
    result = run(program(solution, "assert f(1) == 2", timeout_s=0.3))["p"]
    assert (result.status, result.alone) == ("timeout", True)
    assert result.detail == "no verdict within 0.3 s"


def test_results_come_as_they_are_ready():
    slow = program("import time\ntime.sleep(1.5)\ndef f(x):\n    return 2", "assert f(1) == 2", id="slow")
    quick = program("def f(x):\n    return 2", "assert f(1) == 2", id="quick")
    assert list(run(slow, quick, workers=2)) == ["quick", "slow"]
    assert list(run()) == []


def test_what_a_program_prints_past_the_limit_ends_it():
    result = run(program("print('x' * 5000)\ndef f(x):\n    return 2", "assert f(1) == 2"), limits=Limits(output_bytes=1000))["p"]
    assert result.status in ("output_limit", "passed")
    endless = program("def f(x):\n    while True:\n        print('x' * 5000)", "assert f(1) == 2")
    assert run(endless, limits=Limits(output_bytes=1000))["p"].status == "output_limit"


def test_programs_of_one_worker_do_not_see_each_others_files_or_changes():
    writes = "import json\nopen('/tmp/a', 'w').write('x')\njson.loads = None\ndef f(x):\n    return 2"
    looks = "import json, os\ndef f(x):\n    return 2 if os.listdir('/tmp') == [] and json.loads('1') else 0"
    pairs = [program(text, "assert f(1) == 2", id=f"{name}{n}") for n in range(3) for name, text in (("w", writes), ("l", looks))]
    results = run(*pairs, workers=1)
    assert {result.status for result in results.values()} == {"passed"}


def test_what_tests_leave_is_gone_for_the_next_program():
    """Tests of one worker run in the same walls one after the other; a file or a process of theirs outlives none of them."""
    file = "import os\nopen('/tmp/left', 'w').write('x')\nos.makedirs('/tmp/a/b')\nassert f(1) == 2"
    process = "import subprocess\nsubprocess.Popen(['sleep', '60'], start_new_session=True)\nassert f(1) == 2"
    looks = ("import glob, os\nassert os.listdir('/tmp') == []\n"
             "assert not [name for name in glob.glob('/proc/[0-9]*/cmdline') if b'sleep' in open(name, 'rb').read()]\nassert f(1) == 2")
    texts = (looks, file, looks, process, looks, process, file, looks)
    pairs = [program("def f(x):\n    return x + 1", text, id=str(n)) for n, text in enumerate(texts)]
    assert {result.status for result in run(*pairs, workers=1).values()} == {"passed"}


def test_tests_can_neither_read_nor_trace_their_worker():
    tests = ("import ctypes, os\nparent = os.getppid()\nfor name in ('mem', 'maps', 'environ'):\n    try:\n"
             "        open(f'/proc/{parent}/{name}', 'rb')\n        raise SystemExit(name)\n    except PermissionError:\n        pass\n"
             "assert ctypes.CDLL(None).ptrace(16, parent, None, None) == -1\nassert f(1) == 2")
    result = run(program("def f(x):\n    return x + 1", tests))["p"]
    assert (result.status, result.detail) == ("passed", "")


def test_sets_are_in_the_same_order_in_every_run():
    solution = "def f(x):\n    raise ValueError(str(list({'a', 'b', 'c', 'd', 'e'})))"
    first, second = (run(program(solution, "f(1)"))["p"].detail for _ in range(2))
    assert first == second


def test_random_numbers_differ_between_programs():
    solution = "import random\ndef f(x):\n    raise ValueError(str(random.random()))"
    results = run(program(solution, "f(1)", id="a"), program(solution, "f(1)", id="b"), workers=1)
    assert results["a"].detail != results["b"].detail


def test_facts_name_what_a_score_depends_on():
    try:
        said = facts(limits=Limits(timeout_s=7))
    except SandboxError as error:
        pytest.skip(str(error))
    assert said["isolation"] in ("bubblewrap", "unshare", "container")
    assert said["limits"]["timeout_s"] == 7
    assert {"kernel", "python", "packages", "hash_seed"} <= said.keys()


def test_limits_and_kinds_that_cannot_be_are_refused():
    with pytest.raises(MftError, match="memory_bytes=0, processes=-1"):
        Limits(memory_bytes=0, processes=-1)
    with pytest.raises(MftError, match="cannot run cobol; what can be run: python, cpp"):
        list(judge([program("", "", language="cobol")]))
    with pytest.raises(MftError, match="isolation 'jail'; expected auto, bubblewrap, unshare, container or unsafe"):
        choose("jail")  # type: ignore[arg-type]


def test_nothing_is_left_where_the_judges_process_is_killed(tmp_path: Path):
    script = tmp_path / "judge_forever.py"
    script.write_text("from mft.sandbox.judge import judge\nfrom mft.sandbox.program import *\n"
                      "solution = 'def f(x):\\n    while True: pass'\n"
                      "list(judge([Program(id='a', solution=solution, tests='f(1)', entry_point='f', timeout_s=600)]))")
    run(program("def f(x):\n    return 2", "assert f(1) == 2"))
    process = subprocess.Popen([sys.executable, str(script)])
    try:
        deadline = time.monotonic() + 20
        while len(descendants(process.pid)) < 4 and time.monotonic() < deadline:
            time.sleep(0.05)
        family = descendants(process.pid)
        assert len(family) >= 4
        process.send_signal(signal.SIGKILL)
        process.wait()
        while any(map(alive, family)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert [pid for pid in family if alive(pid)] == []
    finally:
        process.kill()
        process.wait()


def descendants(pid: int) -> list[int]:
    family = [pid]
    for each in family:
        try:
            family += map(int, Path(f"/proc/{each}/task/{each}/children").read_text().split())
        except OSError:
            continue
    return family[1:]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_many_workers_on_few_cores_flip_no_verdict():
    """Each right program needs a third of its time of a core for itself; 32 at once have a sixteenth of one each."""
    right = "import time\ndef f(x):\n    end = time.process_time() + 0.2\n    while time.process_time() < end:\n        pass\n    return 2"
    wrong, endless = "def f(x):\n    return 1", "def f(x):\n    while True:\n        pass"
    texts = {f"{name}{n}": text for n in range(32) for name, text in (("right", right), ("wrong", wrong))} | {"endless": endless}
    results = run(*[program(text, "assert f(1) == 2", id=name) for name, text in texts.items()], workers=32, limits=Limits(timeout_s=0.6))
    assert {name: result.status for name, result in results.items()} == {
        name: "timeout" if name == "endless" else "passed" if name.startswith("right") else "failed" for name in texts}
    assert os.cpu_count() is not None
