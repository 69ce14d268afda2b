"""Containers: what a program gets in one, and that none is left, whoever is killed. Skipped where no engine runs one."""

import os
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import pytest

from mft.sandbox.container import LABEL, find_engine, look
from mft.sandbox.judge import facts, judge
from mft.sandbox.program import Limits, Program, SandboxError


@cache
def why_not() -> str:
    look.cache_clear()
    try:
        look()
    except SandboxError as error:
        return str(error)
    return ""


@pytest.fixture(autouse=True)
def an_engine_works():
    if why_not():
        pytest.skip(why_not())


def program(solution, tests="assert f(1) == 2", **fields):
    return Program(**{"id": "p", "solution": solution, "tests": tests, "entry_point": "f", **fields})


def verdicts(*programs, **options):
    return {result.id: result for result in judge(programs, isolation="container", **options)}


def running():
    """The containers of judges."""
    return set(find_engine().ask("ps", "--all", "--quiet", "--filter", f"label={LABEL}").stdout.split())


def test_verdicts_are_those_of_any_other_sandbox_and_no_container_is_left():
    before = running()
    box = "class Box:\n    value = 1\nassert f(Box()) == 2"
    results = verdicts(
        program("def f(x):\n    return x + 1", id="right"), program("def f(x):\n    return x", id="wrong"),
        program("def f(x):\n    raise KeyError('k')", id="raises"), program("import os\nos._exit(0)", id="ends"),
        program("def f(x):\n    return x.value + 1", box, id="box"), program("def f(x):\n    while True: pass", id="late", timeout_s=0.5),
        program("def f(x):\n    return [x] * 10**6", "assert len(f(1)) == 10**6", id="large"),
        program("def f(g):\n    return sum(g(n) for n in range(200))", "assert f(lambda n: n) == 19900", id="calls_back"), workers=2)
    assert {name: result.status for name, result in results.items()} == {
        "right": "passed", "wrong": "failed", "raises": "error", "ends": "error", "box": "passed", "late": "timeout", "large": "passed",
        "calls_back": "passed"}
    assert results["ends"].detail == "the solution's process ended before it answered"
    assert (results["box"].judged, results["late"].alone) == ("inside", True)
    assert running() <= before


def test_limits_hold_without_the_engines_own():
    big = "def f(x):\n    held = []\n    while True:\n        held.append(bytearray(b'x') * (8 << 20))"
    many = ("import os, time\ndef f(x):\n    for n in range(8):\n        if not os.fork():\n"
            "            held = bytearray(b'x') * (100 << 20)\n            time.sleep(60)\n    time.sleep(60)")
    prints = "def f(x):\n    while True: print('x' * 5000)"
    results = verdicts(program(big, id="big"), program(many, id="many"), program(prints, id="prints"),
                       limits=Limits(memory_bytes=256 << 20, output_bytes=1 << 20, timeout_s=10), workers=2)
    assert {name: result.status for name, result in results.items()} == {
        "big": "out_of_memory", "many": "out_of_memory", "prints": "output_limit"}


def test_a_program_has_no_capability_namespace_or_place_to_write_but_tmp():
    """/dev/shm and /dev/mqueue are of the container alone; the one has the size of /tmp, in the other nothing can be made."""
    solution = """
import ctypes, os
def f(x):
    libc, found = ctypes.CDLL(None), []
    found += ['queue'] if libc.mq_open(b'/a', 0x42, 0o600, None) >= 0 else []
    found += [flag for flag in (0x20000, 0x10000000, 0x20000000, 0x40000000) if libc.unshare(flag) == 0]
    status = dict(line.split(':', 1) for line in open('/proc/self/status').read().splitlines())
    found += [name for name in ('CapPrm', 'CapEff', 'CapInh', 'CapAmb') if int(status[name], 16)]
    for folder, _, _ in os.walk('/'):
        if not folder.startswith(('/proc', '/tmp', '/dev/shm', '/dev/mqueue')) and os.access(folder, os.W_OK):
            found.append(folder)
    return found
"""
    result = verdicts(program(solution, "assert f(1) == []"))["p"]
    assert (result.status, result.detail) == ("passed", "")


def test_facts_are_of_the_image():
    said = facts("container")
    assert said["isolation"] == "container"
    assert said["image"] == find_engine().image
    assert said["python"].startswith("3.")


@pytest.mark.slow
@pytest.mark.law
@pytest.mark.parametrize("whom", ["judge", "worker"])
def test_no_container_outlives_the_process_that_was_killed(tmp_path, whom):
    before = running()
    script = tmp_path / "judge_forever.py"
    script.write_text("from mft.sandbox.judge import judge\nfrom mft.sandbox.program import *\n"
                      "solution = 'def f(x):\\n    while True: pass'\n"
                      "program = Program(id='a', solution=solution, tests='f(1)', entry_point='f', timeout_s=600)\n"
                      "list(judge([program], isolation='container'))")
    process = subprocess.Popen([sys.executable, str(script)], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while len(running() - before) < 2 and time.monotonic() < deadline:
            time.sleep(0.2)
        first = running() - before
        assert len(first) == 2
        worker = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
        os.kill(process.pid if whom == "judge" else worker, signal.SIGKILL)
        while running() & first and time.monotonic() < deadline + 30:
            time.sleep(0.2)
        assert running() & first == set()
    finally:
        process.kill()
        process.wait()
