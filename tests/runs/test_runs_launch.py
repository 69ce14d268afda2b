"""Starting ranks: how their ends are told as one, and what is left of them when one is lost. No torch in the fast part."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from training.test_training_resume import write_project

import mft.runs.launch as launch
from mft.errors import ContactLost, Interrupted, RanksFailed
from mft.files import read_json
from mft.runs.launch import OUTCOMES, announce_rank, judge, leave_outcome, start_ranks, wait_for_ranks

DONE = {"code": 0, "error": "", "lost_contact": False}


def ended(code, error, lost_contact=False):
    return {"code": code, "error": error, "lost_contact": lost_contact}


def test_all_done_is_no_error():
    assert judge({0: DONE, 1: DONE}, {0, 1}, 2) is None


@pytest.mark.parametrize(("outcomes", "error", "message", "code"), [
    ({0: ended(130, "stopped after step 7"), 1: ended(130, "stopped after step 7")}, Interrupted, "stopped after step 7", 130),
    ({0: ended(2, "no such key"), 1: ended(2, "no such key")}, RanksFailed, "no such key", 2),
    ({0: ended(3, "cannot reach", lost_contact=True), 1: ended(2, "the disk is full")}, RanksFailed, "the disk is full", 2),
    ({0: ended(3, "cannot reach", lost_contact=True), 1: ended(3, "step 4: the loss is not finite")}, RanksFailed,
     "step 4: the loss is not finite", 3),
    ({0: ended(3, "cannot reach", lost_contact=True), 1: ended(1, "KeyError: 'x'")}, RanksFailed,
     "rank 1 failed: KeyError: 'x'; its traceback stands above", 1),
    ({0: ended(3, "cannot reach", lost_contact=True), 1: ended(3, "cannot reach", lost_contact=True)}, RanksFailed, "cannot reach", 3),
    ({0: ended(3, "cannot reach", lost_contact=True)}, RanksFailed,
     "rank 1 of 2 ended without a word: killed, perhaps for memory; the same command goes on from the last checkpoint", 3),
    ({0: ended(1, "RuntimeError: odd")}, RanksFailed,
     "rank 1 of 2 ended without a word: killed, perhaps for memory; the same command goes on from the last checkpoint", 3),
    ({}, RanksFailed,
     "ranks 0, 1 of 2 ended without a word: killed, perhaps for memory; the same command goes on from the last checkpoint", 3)])
def test_the_ends_of_two_ranks_are_told_as_one(outcomes, error, message, code):
    with pytest.raises(error) as caught:
        judge(outcomes, {0, 1}, 2)
    assert (str(caught.value), caught.value.exit_code) == (message, code)


def test_ranks_that_a_signal_ended_while_they_loaded_were_interrupted():
    with pytest.raises(Interrupted, match="stopped by a signal; the same command goes on"):
        judge({}, {0, 1}, 2, asked_to_stop=True)


def test_a_rank_that_had_to_be_killed_is_not_the_one_that_failed():
    with pytest.raises(RanksFailed, match=r"^the disk is full$"):
        judge({0: ended(2, "the disk is full")}, lost={0}, ranks=2)


def test_a_rank_leaves_word_only_for_the_command_that_started_it(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "3")
    monkeypatch.delenv(OUTCOMES, raising=False)
    assert not leave_outcome(2, "a mistake")
    monkeypatch.setenv(OUTCOMES, str(tmp_path))
    assert leave_outcome(3, "gone", lost_contact=True)
    assert read_json(tmp_path / "3.json") == {"code": 3, "error": "gone", "lost_contact": True}


SLEEPER = "import sys, time; time.sleep(float(sys.argv[1]))"
AGENT = f"""
import subprocess, sys
ranks = [subprocess.Popen([sys.executable, '-c', {SLEEPER!r}, seconds]) for seconds in sys.argv[2:]]
for rank, process in enumerate(ranks):
    open(f'{{sys.argv[1]}}/{{rank}}.pid', 'w').write(str(process.pid))
for process in ranks:
    process.wait()
"""


def agent(folder, *seconds):
    """Stands for torchrun: ranks that sleep for so long, whose ends it waits for."""
    process = subprocess.Popen([sys.executable, "-c", AGENT, str(folder), *map(str, seconds)])
    while len(list(folder.glob("*.pid"))) < len(seconds) or not all(path.read_text() for path in folder.glob("*.pid")):
        time.sleep(0.02)
    return process, {int(path.stem): int(path.read_text()) for path in folder.glob("*.pid")}


def test_ranks_that_hang_after_another_was_killed_are_killed_after_the_grace(tmp_path, monkeypatch):
    monkeypatch.setattr(launch, "LOOK_EVERY_S", 0.05)
    process, pids = agent(tmp_path, 100, 100)
    os.kill(pids[0], signal.SIGKILL)
    began = time.monotonic()
    assert wait_for_ranks(process, tmp_path, grace_s=0.5) == {1}
    assert 0.5 <= time.monotonic() - began < 10


def test_ranks_are_left_alone_while_none_has_failed_and_when_one_is_done_or_was_asked_to_stop(tmp_path, monkeypatch):
    monkeypatch.setattr(launch, "LOOK_EVERY_S", 0.05)
    for number, outcome in enumerate((ended(0, ""), ended(130, "stopped"))):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "0.json").write_text(json.dumps(outcome))
        process, _ = agent(folder, 0.1, 1)
        assert wait_for_ranks(process, folder, grace_s=0.1) == set()


def test_a_failed_rank_starts_the_grace_and_a_quick_end_of_the_others_is_no_killing(tmp_path, monkeypatch):
    monkeypatch.setattr(launch, "LOOK_EVERY_S", 0.05)
    (tmp_path / "0.json").write_text(json.dumps(ended(2, "the disk is full")))
    process, _ = agent(tmp_path, 0.1, 0.6)
    assert wait_for_ranks(process, tmp_path, grace_s=5) == set()
    folder = tmp_path / "second"
    folder.mkdir()
    (folder / "0.json").write_text(json.dumps(ended(2, "the disk is full")))
    process, _ = agent(folder, 0.1, 100)
    assert wait_for_ranks(process, folder, grace_s=0.3) == {1}


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_a_rank_gets_sigterm_when_its_parent_is_killed(tmp_path):
    child = ("import os, signal, sys, time\n"
             "from mft.runs.launch import announce_rank\n"
             "def note(*_):\n    open(sys.argv[1] + '/told', 'w').close()\n    sys.exit()\n"
             "signal.signal(signal.SIGTERM, note)\nannounce_rank()\ntime.sleep(60)\n")
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}, sys.argv[1]])"
    process = subprocess.Popen([sys.executable, "-c", parent, str(tmp_path)], env={**os.environ, OUTCOMES: str(tmp_path), "RANK": "0"})
    deadline = time.monotonic() + 30
    while not (tmp_path / "0.pid").is_file():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.wait()
    while not (tmp_path / "told").is_file():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_process_that_was_not_started_by_mft_announces_nothing(tmp_path, monkeypatch):
    monkeypatch.delenv(OUTCOMES, raising=False)
    monkeypatch.chdir(tmp_path)
    announce_rank()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["[/x/gloo/transport/tcp/pair.cc:538] Connection closed by peer [127.0.0.1]:3", "NCCL error: remote"])
def test_an_error_of_a_lost_connection_is_one_message_and_others_pass(text, monkeypatch):
    from mft.training.ranks import contact_loss_named

    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ContactLost, match=r"rank 0 of 2 can no longer reach another rank, .*; the same command goes on"), \
            contact_loss_named():
        raise RuntimeError(text)
    with pytest.raises(RuntimeError, match="shapes do not fit"), contact_loss_named():
        raise RuntimeError("shapes do not fit")


@pytest.mark.slow
def test_a_mistake_that_every_rank_makes_is_the_commands_error(monkeypatch):
    with pytest.raises(RanksFailed, match="'no-such-verb' is not a verb of mft"), contextlib.redirect_stdout(sys.stderr):
        start_ranks(["no-such-verb"], 2, timeout_minutes=1)


@pytest.mark.slow
def test_mft_run_starts_the_ranks_of_a_stage_and_goes_on_in_its_own_process(tiny_base, tmp_path):
    config = write_project(tmp_path / "project", steps=6, every=0)
    config.write_text(config.read_text() + """    distributed: {engine: ddp, processes: 2}
  - {kind: merge, name: merged, adapter: train}
  - {kind: evaluate, name: loss, benchmark: loss, models: [base, train, merged], generations: 1, max_new_tokens: 4}
""")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "mft", "-q", "--json", "run", str(config), "--out", str(tmp_path / "out")]
    for skipped in (False, True):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False)
        assert done.returncode == 0, done.stderr
        stages = json.loads(done.stdout)["stages"]
        assert [(stage["name"], stage["skipped"]) for stage in stages] == [
            ("data", skipped), ("train", skipped), ("merged", skipped), ("loss", skipped)]
        assert (stages[1]["result"]["ranks"], stages[1]["result"]["steps"], stages[1]["result"]["attention"]) == (2, 6, "sdpa")
        assert stages[3]["result"]["overall"]["loss"]["train"] < stages[3]["result"]["overall"]["loss"]["base"]
