"""Laws 6 and 7 on several ranks: real processes (torchrun, gloo), every engine."""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from training.test_training_resume import finish, start, write_project

from mft.training.checkpoints import checkpoints

WORKER = Path(__file__).parent / "layout_worker.py"
TESTS = Path(__file__).resolve().parents[1]
ENGINES = {"ddp": ["engine=ddp"], "zero2": ["engine=deepspeed", "zero_stage=2"], "zero3": ["engine=deepspeed", "zero_stage=3"]}
slow = pytest.mark.slow
pytestmark = pytest.mark.law


def options(engine: str, ranks: int) -> list[str]:
    return ["--nproc", str(ranks), *(f"stages.train.distributed.{setting}" for setting in ENGINES.get(engine, []))]


def steps_of(engine: str, ranks: int, folder: Path) -> dict:
    """What tests/training/layout_worker.py wrote: (mode, layout) -> metrics line and gradients."""
    folder.mkdir()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", str(WORKER), engine, str(folder)]
    environment = {**os.environ, "PYTHONPATH": f"{TESTS}:{TESTS.parent}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(folder / "rank0.pt", weights_only=False)


@pytest.fixture(scope="module")
def one_process(tmp_path_factory) -> dict:
    return steps_of("none", 1, tmp_path_factory.mktemp("layouts") / "none")


@pytest.mark.parametrize(("engine", "ranks"), [("ddp", 2), pytest.param("ddp", 3, marks=slow), pytest.param("zero1", 2, marks=slow),
                                               pytest.param("zero2", 2, marks=slow), pytest.param("zero3", 2, marks=slow),
                                               pytest.param("fsdp", 2, marks=slow)])
def test_loss_and_every_gradient_of_a_step_are_those_of_one_process(engine, ranks, one_process, tmp_path):
    found = steps_of(engine, ranks, tmp_path / "steps")
    assert found.keys() == one_process.keys()
    for (mode, layout), result in found.items():
        wanted = one_process[mode, "one by one"]
        assert result["gradients"].keys() == wanted["gradients"].keys()
        assert result["line"]["loss"] == pytest.approx(wanted["line"]["loss"], rel=1e-5), (mode, layout)
        assert result["line"]["grad_norm"] == pytest.approx(wanted["line"]["grad_norm"], rel=1e-5), (mode, layout)
        for task in "abc":
            assert result["line"][f"loss/task/{task}"] == pytest.approx(wanted["line"][f"loss/task/{task}"], rel=1e-5)
            assert result["line"][f"tokens/task/{task}"] == wanted["line"][f"tokens/task/{task}"]
        worst = max(((result["gradients"][name] - gradient).norm() / gradient.norm()).item()
                    for name, gradient in wanted["gradients"].items())
        assert worst <= 1e-5, (mode, layout, worst)


def kill_all(process: subprocess.Popen, run: Path, after: int) -> None:
    """SIGKILL the command and every process it has started, once a checkpoint of step `after` stands and two more steps are done."""
    metrics = run / "metrics.jsonl"
    deadline = time.monotonic() + 300
    while not ([step for step, _ in checkpoints(run)][-1:] >= [after] and metrics.is_file()
               and json.loads(metrics.read_text().splitlines()[-1])["step"] >= after + 2):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    process.communicate()
    psutil.wait_procs(family, timeout=30)


@slow
@pytest.mark.parametrize("engine", list(ENGINES))
def test_killed_and_resumed_on_as_many_ranks_equals_never_killed_to_the_bit(engine, tmp_path):
    """NF4, dropout, two ranks."""
    whole, adapter = finish(write_project(tmp_path / "whole", steps=14, every=5), *options(engine, 2))
    config = write_project(tmp_path / "killed", steps=14, every=5)
    kill_all(start(config, *options(engine, 2)), config.parent / "out" / "train", after=5)
    resumed, after = finish(config, *options(engine, 2))
    assert resumed["resumed_from"].endswith("checkpoint-5")
    assert resumed["loss"] == whole["loss"]
    assert resumed["evaluation"] == whole["evaluation"]
    assert after == adapter


@slow
@pytest.mark.parametrize(("before", "ranks", "after", "ranks_after"), [("zero3", 2, "ddp", 1), ("ddp", 1, "zero2", 2)])
def test_a_run_goes_on_with_another_engine_and_number_of_ranks(before, ranks, after, ranks_after, tmp_path):
    """Without dropout, in float32: the same samples in every step, and the loss that the run would have had."""
    plain = ["stages.train.adapter.dropout=0", "stages.train.quantization.type=none", "stages.train.quantization.compute_dtype=fp32"]
    finish(write_project(tmp_path / "whole", steps=12, every=5), *plain)
    config = write_project(tmp_path / "moved", steps=12, every=5)
    kill_all(start(config, *plain, *options(before, ranks)), config.parent / "out" / "train", after=5)
    moved, _ = finish(config, *plain, *options(after, ranks_after))
    assert moved["resumed_from"].endswith("checkpoint-5")
    lines = [[json.loads(line) for line in (tmp_path / name / "out" / "train" / "metrics.jsonl").read_text().splitlines()]
             for name in ("whole", "moved")]
    for one, two in zip(*lines, strict=True):
        assert one["step"] == two["step"]
        for key in one.keys() - {"seconds", "tokens_per_s", "eval/seconds", "memory_bytes"}:
            assert two[key] == pytest.approx(one[key], rel=1e-4), (one["step"], key)


@slow
def test_rows_at_once_left_to_mft_give_the_losses_of_rows_one_by_one_on_other_ranks(tmp_path):
    """Without dropout, in float32: two ranks agree on the rows of a micro-batch, each recomputes what its own plan says."""
    plain = ["stages.train.adapter.dropout=0", "stages.train.quantization.type=none", "stages.train.quantization.compute_dtype=fp32",
             "stages.train.training.max_steps=6"]
    finish(write_project(tmp_path / "one"), *plain, "stages.train.training.micro_batch_rows=1")
    two, _ = finish(write_project(tmp_path / "two"), *plain, *options("ddp", 2), "stages.train.training.micro_batch_rows=auto",
                    "stages.train.training.recompute=6MB")
    assert two["ranks"] == 2
    assert two["recompute"]
    lines = [[json.loads(line) for line in (tmp_path / name / "out" / "train" / "metrics.jsonl").read_text().splitlines()]
             for name in ("one", "two")]
    for one, other in zip(*lines, strict=True):
        for key in one.keys() - {"seconds", "tokens_per_s", "eval/seconds", "memory_bytes"}:
            assert other[key] == pytest.approx(one[key], rel=1e-4), (one["step"], key)
