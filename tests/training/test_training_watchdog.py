"""A process in which no step ends is ended, with its stacks written down; one that works is left alone."""

import ctypes
import multiprocessing
import os
import sys
import time
from types import SimpleNamespace

import pytest

from mft.log import configure_logging
from mft.training.watchdog import Watchdog


def hang_in_the_collective(how):
    if how == "asleep":
        time.sleep(600)
    elif how == "in_c_with_the_lock":
        ctypes.PyDLL(None).sleep(600)


def work(how, watchdog):
    for step in range(1, 9):
        time.sleep(0.25)
        if how == "evaluates":
            watchdog.tick("part of an evaluation")
        else:
            watchdog.on_step_end(None, SimpleNamespace(global_step=step), None)


def child(how, folder, output):
    """What a rank does, with stdout and stderr in one file."""
    stream = (output / "output").open("w", buffering=1, encoding="utf-8")
    os.dup2(stream.fileno(), 2)
    sys.stdout = sys.stderr = stream
    configure_logging()
    with Watchdog(folder, 1.0, rank=3) as watchdog:
        if how in ("works", "evaluates"):
            work(how, watchdog)
        else:
            watchdog.on_step_end(None, SimpleNamespace(global_step=41), None)
            print("before")
            hang_in_the_collective(how)
    print("after")
    time.sleep(2.5 if how == "works" else 0)   # the timers are off
    print("end")


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    """how -> (exit code, output, run folder), of four processes that run side by side; a fork spares them the imports."""
    running = {}
    for how in ("asleep", "in_c_with_the_lock", "works", "evaluates"):
        folder, output = tmp_path_factory.mktemp(how), tmp_path_factory.mktemp(f"{how}-output")
        process = multiprocessing.get_context("fork").Process(target=child, args=(how, folder, output))
        process.start()
        running[how] = (process, folder, output)
    for process, _, _ in running.values():
        process.join(120)
        if process.is_alive():
            process.kill()
            process.join()
    return {how: (process.exitcode, (output / "output").read_text(), folder) for how, (process, folder, output) in running.items()}


def test_a_process_that_hangs_ends_with_code_3_one_message_and_its_stacks(ends):
    code, output, folder = ends["asleep"]
    assert code == 3
    assert output == ("before\nrank 3: step 41 ended, and nothing since for 1 s (training.health.watchdog_minutes); the process ends here, "
                      f"its stacks are in {folder}/stacks-rank3.txt; the same command goes on from the last checkpoint\n")
    stacks = (folder / "stacks-rank3.txt").read_text()
    assert stacks.startswith("rank 3: nothing ended for 1 s after this: step 41 ended\n")
    assert "in hang_in_the_collective" in stacks


def test_a_c_call_that_holds_pythons_lock_does_not_keep_the_process_alive(ends):
    code, output, folder = ends["in_c_with_the_lock"]
    assert (code, output) == (1, "before\n")
    stacks = (folder / "stacks-rank3.txt").read_text()
    assert stacks.startswith("Timeout (0:00:02")
    assert "in hang_in_the_collective" in stacks


@pytest.mark.parametrize("how", ["works", "evaluates"])
def test_a_process_whose_steps_or_rows_end_in_time_is_left_alone_and_leaves_no_file(ends, how):
    code, output, folder = ends[how]
    assert (code, output) == (0, "after\nend\n")
    assert list(folder.iterdir()) == []


def test_a_limit_of_zero_watches_nothing(tmp_path):
    with Watchdog(tmp_path, 0) as watchdog:
        watchdog.tick("anything")
        assert watchdog._thread is None
    assert list(tmp_path.iterdir()) == []
