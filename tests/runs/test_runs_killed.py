"""Killed anywhere and run again, a project ends as if it had never been killed: real processes, SIGKILL to the whole group."""

import json
import random
import shutil
import signal
from pathlib import Path

import pytest
from runs.whole_project import STAGES, end_when, finish, outcome, stage_record, start, write_whole

from mft.files import check_manifest, read_json


@pytest.fixture(scope="module")
def whole(tiny_base, tmp_path_factory):
    """The config, the place where every run is made (paths are part of some files), an unbroken run's outcome and its stages' seconds."""
    config = write_whole(tmp_path_factory.mktemp("killed") / "project")
    out = config.parent / "out"
    record = finish(config, out)
    assert [(entry["name"], entry["skipped"]) for entry in record["stages"]] == [(name, False) for name in STAGES]
    unbroken = outcome(out)
    shutil.rmtree(out)
    return config, out, unbroken, {entry["name"]: entry["seconds"] for entry in record["stages"]}


@pytest.fixture
def place(whole):
    """The output folder, empty before and after."""
    yield whole[1]
    shutil.rmtree(whole[1], ignore_errors=True)


def kill_inside(config: Path, out: Path, name: str, delay_s: float) -> bool:
    return end_when(start(config, out), lambda: "begun" in stage_record(out, name), delay_s)


def kill_after(config: Path, out: Path, name: str) -> bool:
    return end_when(start(config, out), lambda: "fingerprint" in stage_record(out, name))


@pytest.mark.slow
def test_killed_inside_each_stage_and_after_each_stage_it_ends_with_the_same_hashes(whole, place):
    config, out, unbroken, seconds = whole
    drawn, killed = random.Random(1234), []
    for name in STAGES[:-1]:
        killed.append(kill_inside(config, out, name, seconds[name] * drawn.uniform(0.1, 0.9)))
        if "fingerprint" not in stage_record(out, name):
            killed.append(kill_after(config, out, name))
    assert sum(killed) >= 2 * len(STAGES) - 6   # the shortest stages may have ended before the signal came
    finish(config, out)
    assert outcome(out) == unbroken
    assert not list(out.rglob(".*.partial"))
    for folder in ("data", "first/adapter", "merged1", "second/adapter", "merged2", "small/main", "release", "release4"):
        check_manifest(out / folder)
    assert [entry["skipped"] for entry in finish(config, out)["stages"]] == [True] * (len(STAGES) - 1) + [False]


@pytest.mark.slow
@pytest.mark.law
def test_killed_in_training_in_a_merge_and_between_two_stages_it_ends_with_the_same_hashes(whole, place):
    config, out, unbroken, seconds = whole
    assert end_when(start(config, out), (out / "first" / "checkpoint-4").is_dir)
    assert kill_inside(config, out, "merged1", seconds["merged1"] * 0.5)
    assert kill_after(config, out, "second")
    finish(config, out)
    assert outcome(out) == unbroken


@pytest.mark.slow
@pytest.mark.parametrize(("name", "number"), [("merged1", signal.SIGTERM), ("first", signal.SIGINT), ("small", signal.SIGINT)])
def test_a_signal_in_a_stage_ends_with_130_and_run_json_says_where(whole, place, name, number):
    config, out, unbroken, seconds = whole
    process = start(config, out)
    assert end_when(process, lambda: "begun" in stage_record(out, name), 0.3 * seconds[name], number)
    told, errors = process.communicate()
    assert process.returncode == 130, errors
    assert json.loads(told)["exit_code"] == 130
    record = read_json(out / "run.json")
    assert (record["status"], record["stage"]) == ("interrupted", name)
    assert [entry["name"] for entry in record["stages"]] == list(STAGES[:STAGES.index(name)])
    finish(config, out)
    assert outcome(out) == unbroken
