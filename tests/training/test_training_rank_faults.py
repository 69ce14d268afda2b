"""Ranks in trouble: signals, a killed rank, a killed command, a full disk, mistakes of the user; real processes over gloo."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from training.test_training_resume import finish, start, stop_when, write_project

from mft.training.checkpoints import checkpoints

DDP = ("--nproc", "2", "stages.train.distributed.engine=ddp")
STEPS = 24
slow = pytest.mark.slow


def torchrun(config: Path, *options: str, site: Path | None = None) -> subprocess.Popen:
    """`mft --json train` started by torchrun itself; `site`: a folder whose sitecustomize.py each rank imports."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    if site:
        environment["PYTHONPATH"] = f"{site}:{environment.get('PYTHONPATH', '')}"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "mft", "-q", "--json",
               "train", str(config), "--out", str(config.parent / "out"), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True)


def steps_logged(config: Path, number: int):
    """A condition: so many steps are in metrics.jsonl."""
    metrics = config.parent / "out" / "train" / "metrics.jsonl"
    return lambda: metrics.is_file() and metrics.read_text().count('"lr"') >= number


def wait_until(condition, process: subprocess.Popen, timeout_s: float = 300) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert process.poll() is None, f"ended too early: {process.communicate()}"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ranks_of(process: subprocess.Popen) -> dict[str, psutil.Process]:
    """RANK -> the process."""
    family = psutil.Process(process.pid).children(recursive=True)
    return {member.environ()["RANK"]: member for member in family if "RANK" in member.environ()}


def gone(family: list[psutil.Process], timeout_s: float) -> bool:
    return not psutil.wait_procs(family, timeout=timeout_s)[1]


def saved_steps(config: Path) -> list[int]:
    return [step for step, _ in checkpoints(config.parent / "out" / "train")]


@pytest.fixture(scope="module")
def straight(tmp_path_factory) -> tuple[dict, bytes]:
    """Two ranks that nobody disturbs: the record and the adapter."""
    return finish(write_project(tmp_path_factory.mktemp("straight") / "project", steps=STEPS, every=0), *DDP)


@slow
def test_sigterm_to_the_command_saves_after_one_step_exits_130_and_goes_on_to_the_same_bits(straight, tmp_path):
    config = write_project(tmp_path / "project", steps=STEPS, every=0)
    process = start(config, *DDP)
    code, out = stop_when(process, steps_logged(config, 7), signal.SIGTERM)
    assert (code, json.loads(out)["exit_code"]) == (130, 130)
    (step,) = saved_steps(config)
    assert 7 <= step < STEPS
    assert f"after step {step}" in json.loads(out)["error"]
    random_numbers = sorted(path.name for path in (tmp_path / "project/out/train" / f"checkpoint-{step}").glob("rng_state*"))
    assert random_numbers == ["rng_state_0.pth", "rng_state_1.pth"]
    result, adapter = finish(config, *DDP)
    assert result["resumed_from"].endswith(f"checkpoint-{step}")
    assert adapter == straight[1]
    assert result["loss"] == straight[0]["loss"]


@slow
def test_sigterm_while_the_ranks_still_load_exits_130_too(tmp_path):
    config = write_project(tmp_path / "project", steps=4, every=0)
    process = start(config, *DDP)
    code, out = stop_when(process, lambda: len(ranks_of(process)) == 2, signal.SIGTERM)
    assert (code, json.loads(out)["exit_code"]) == (130, 130)
    assert saved_steps(config) == []


@slow
def test_sigterm_to_one_rank_under_torchrun_stops_both_after_the_same_step(straight, tmp_path):
    config = write_project(tmp_path / "project", steps=STEPS, every=0)
    process = torchrun(config, DDP[-1])
    wait_until(steps_logged(config, 5), process)
    ranks_of(process)["1"].send_signal(signal.SIGTERM)
    out, errors = process.communicate(timeout=120)
    assert json.loads(out)["exit_code"] == 130, errors
    (step,) = saved_steps(config)
    assert 5 <= step < STEPS
    assert finish(config, *DDP)[1] == straight[1]


@slow
@pytest.mark.parametrize("victim", ["0", "1"])
def test_a_killed_rank_ends_the_command_soon_with_one_message_and_no_orphan(victim, tmp_path):
    config = write_project(tmp_path / "project", steps=200, every=5)
    process = start(config, *DDP)
    wait_until(lambda: saved_steps(config), process)
    family = psutil.Process(process.pid).children(recursive=True)
    ranks_of(process)[victim].kill()
    out, errors = process.communicate(timeout=45)
    assert process.returncode == 3, errors
    assert json.loads(out)["error"] == (f"rank {victim} of 2 ended without a word: killed, perhaps for memory; the same command goes on "
                                        "from the last checkpoint")
    assert errors.count("mft: ") == 1
    assert "Traceback" not in errors
    assert gone(family, 5)


@slow
def test_ranks_save_and_stop_by_themselves_when_the_command_is_killed(tmp_path):
    config = write_project(tmp_path / "project", steps=200, every=0)
    process = start(config, *DDP)
    wait_until(steps_logged(config, 3), process)
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    assert gone(family, 60)
    (step,) = saved_steps(config)
    assert 3 <= step < 200


@slow
def test_ranks_stop_by_themselves_when_torchrun_is_killed(tmp_path):
    config = write_project(tmp_path / "project", steps=200, every=0)
    process = start(config, *DDP)
    wait_until(steps_logged(config, 3), process)
    family = psutil.Process(process.pid).children(recursive=True)
    family[0].kill()
    out, _ = process.communicate(timeout=60)
    assert gone(family, 60)
    assert json.loads(out)["exit_code"] in (3, 130)
    assert len(saved_steps(config)) == 1


@slow
def test_a_killed_rank_under_torchrun_is_one_sentence_of_the_other(tmp_path):
    config = write_project(tmp_path / "project", steps=200, every=5)
    process = torchrun(config, DDP[-1])
    wait_until(lambda: saved_steps(config), process)
    ranks_of(process)["0"].kill()
    out, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert out == ""
    (line,) = [line for line in errors.splitlines() if line.startswith("mft: ")]
    assert line.startswith("mft: rank 1 of 2 can no longer reach another rank, which has failed or was killed (")
    assert line.endswith("the same command goes on from the last checkpoint")


@slow
def test_a_mistake_of_the_user_under_torchrun_is_said_once(tmp_path):
    config = write_project(tmp_path / "project", steps=4, every=0)
    process = torchrun(config, DDP[-1], "stages.train.training.global_batch_rows=6")
    out, errors = process.communicate(timeout=200)
    assert process.returncode != 0
    message = "training.global_batch_rows is 6, which 2 ranks with micro_batch_rows 2 cannot share; give a multiple of 4"
    assert json.loads(out) == {"ok": False, "error": message, "exit_code": 2}
    assert errors.count(f"mft: {message}") == 1
    assert "in check_job" not in errors


def test_a_mistake_of_the_user_with_nproc_is_said_once_and_starts_no_rank(tmp_path):
    config = write_project(tmp_path / "project", steps=4, every=0)
    process = start(config, *DDP, "stages.train.training.global_batch_rows=6")
    out, errors = process.communicate(timeout=200)
    message = "training.global_batch_rows is 6, which 2 ranks with micro_batch_rows 2 cannot share; give a multiple of 4"
    assert process.returncode == 2
    assert json.loads(out) == {"ok": False, "error": message, "exit_code": 2}
    assert errors.count("global_batch_rows") == 1


@slow
def test_stdout_under_torchrun_is_one_json_object(tmp_path):
    config = write_project(tmp_path / "project", steps=4, every=0)
    process = torchrun(config, DDP[-1])
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert json.loads(out)["steps"] == 4


FULL_DISK = '''
import os
if os.environ.get("RANK") == "0":
    import errno
    import torch
    save = torch.save
    def full(state, path, *args, **options):
        if "checkpoint-10" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return save(state, path, *args, **options)
    torch.save = full
'''


@slow
def test_a_full_disk_on_the_first_rank_ends_all_with_its_message(tmp_path, monkeypatch):
    """The other rank waits in the next reduction; it must not do so until the time limit of half an hour."""
    (tmp_path / "sitecustomize.py").write_text(FULL_DISK)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    config = write_project(tmp_path / "project", steps=24, every=5)
    process = start(config, *DDP)
    wait_until(lambda: saved_steps(config), process)
    out, errors = process.communicate(timeout=90)
    assert process.returncode == 2, errors
    assert json.loads(out)["error"].startswith(f"{config.parent / 'out' / 'train'}: the disk is full, checkpoint-10 could not be written")
    assert errors.count("mft: ") == 1
    assert saved_steps(config) == [5]
    assert not list((config.parent / "out" / "train").glob(".checkpoint-*"))


POISON = '''
import os
if os.environ.get("RANK") == "1":
    import mft.training.trainer as trainer
    right, calls = trainer.task_loss, []
    def poisoned(*args, **options):
        calls.append(1)
        loss = right(*args, **options)
        return loss * float("nan") if len(calls) == 3 else loss
    trainer.task_loss = poisoned
'''


@slow
@pytest.mark.parametrize("engine", [["engine=ddp"], ["engine=deepspeed", "zero_stage=2"]])
def test_a_nan_on_one_rank_stops_both_and_names_the_rows(engine, tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(POISON)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    config = write_project(tmp_path / "project", steps=6, every=2)
    process = start(config, "--nproc", "2", *(f"stages.train.distributed.{setting}" for setting in engine))
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 3, errors
    assert json.loads(out)["error"].startswith("step 3: the loss is not finite (rank 1 micro-batch 0: nan); losses by task: ")
    (event,) = json.loads((config.parent / "out" / "train" / "nonfinite.json").read_text())["steps"]
    assert [(batch["rank"], batch["loss"] == "nan") for batch in event["micro_batches"]] == [(0, False), (1, True)]
    assert all(name.split("-")[0] in ("add", "name") for batch in event["micro_batches"] for name in batch["rows"])
    assert all(batch["rows"] for batch in event["micro_batches"])
    assert saved_steps(config) == [2]
