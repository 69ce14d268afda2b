"""Law 7: killed and resumed equals never killed, to the bit, with NF4 and dropout; real processes, real signals."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.law

CONFIG = """
name: resume
model: {{base: tiny-code-llama, format: codefuse, context: 128}}
stages:
  - {{kind: data, name: data, recipe: recipe.yaml}}
  - kind: train
    name: train
    data: data
    quantization: {{type: nf4, double_quant: true, compute_dtype: bf16}}
    adapter: {{rank: 8, alpha: 16, dropout: 0.05}}
    training: {{epochs: 3, max_steps: {steps}, global_batch_rows: 4, micro_batch_rows: 2, learning_rate: 1e-3, evaluate_every: 7,
               checkpoint_every: {every}, keep_last: 2, recompute: none}}
"""
RECIPE = """
name: sums
tasks:
  add: {sources: [{type: jsonl, path: add.jsonl}]}
  name: {sources: [{type: jsonl, path: name.jsonl}]}
split: {validation: 0.1, by: id}
"""


def write_project(folder: Path, steps: int = 40, every: int = 20) -> Path:
    folder.mkdir()
    for task, answer in (("add", "def add_{n}(a, b):\n    return a + b + {n}"), ("name", "value_{n}")):
        rows = [{"id": f"{task}-{n}", "chat_rounds": [{"role": "human", "content": f"{task} number {n} " + "please " * (n % 9)},
                                                     {"role": "bot", "content": answer.format(n=n)}]} for n in range(90)]
        (folder / f"{task}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "config.yaml").write_text(CONFIG.format(steps=steps, every=every))
    return folder / "config.yaml"


def start(config: Path, *options: str) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "mft", "-q", "--json", "train", str(config), "--out", str(config.parent / "out"), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True)


def finish(config: Path, *options: str) -> tuple[dict, bytes]:
    process = start(config, *options)
    out, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    return json.loads(out), (config.parent / "out" / "train" / "adapter" / "adapter_model.safetensors").read_bytes()


def stop_when(process: subprocess.Popen, condition, number: int) -> tuple[int, str]:
    """Send the signal once the condition holds; returns the exit code and stdout."""
    deadline = time.monotonic() + 300
    while not condition():
        assert process.poll() is None, f"ended before it could be stopped: {process.communicate()}"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    out, _ = process.communicate(timeout=120)
    return process.returncode, out


def losses(config: Path) -> list[tuple[int, float]]:
    lines = (config.parent / "out" / "train" / "metrics.jsonl").read_text().splitlines()
    return [(line["step"], line["loss"]) for line in map(json.loads, lines) if "loss" in line]


@pytest.fixture(scope="module")
def straight(tiny_base, tmp_path_factory):
    """40 steps without a break: config, result, adapter bytes."""
    config = write_project(tmp_path_factory.mktemp("straight") / "project")
    return config, *finish(config)


@pytest.mark.slow
def test_killed_at_once_and_resumed_gives_the_same_bits(straight, tmp_path):
    config = write_project(tmp_path / "project")
    run = config.parent / "out" / "train"
    code, _ = stop_when(start(config), (run / "checkpoint-20").is_dir, signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert not (run / "adapter").exists()
    result, adapter = finish(config)
    assert result["resumed_from"].endswith("checkpoint-20")
    assert adapter == straight[2]
    assert losses(config) == losses(straight[0])


@pytest.mark.slow
def test_killed_without_recomputation_and_resumed_with_a_part_of_it_gives_the_same_bits(straight, tmp_path):
    config = write_project(tmp_path / "project")
    stop_when(start(config), (config.parent / "out" / "train" / "checkpoint-20").is_dir, signal.SIGKILL)
    result, adapter = finish(config, "stages.train.training.recompute=6MB")
    assert result["resumed_from"].endswith("checkpoint-20")
    assert sum(number for level, number in result["recompute_layers"].items() if level != "keep") > 0
    assert result["recompute_layers"].keys() - {"full"}
    assert adapter == straight[2]
    assert losses(config) == losses(straight[0])


@pytest.mark.slow
def test_killed_and_resumed_with_rows_at_once_left_to_mft_gives_the_same_bits(straight, tmp_path):
    """The run began with `micro_batch_rows: 2`: what `auto` goes on with is what the checkpoint says."""
    config = write_project(tmp_path / "project")
    stop_when(start(config), (config.parent / "out" / "train" / "checkpoint-20").is_dir, signal.SIGKILL)
    result, adapter = finish(config, "stages.train.training.micro_batch_rows=auto")
    assert result["micro_batch_rows"] == 2
    assert adapter == straight[2]


@pytest.mark.slow
def test_terminated_saves_at_the_end_of_the_step_exits_130_and_resumes_to_the_same_bits(straight, tmp_path):
    config = write_project(tmp_path / "project", every=0)
    run = config.parent / "out" / "train"
    metrics = run / "metrics.jsonl"
    code, out = stop_when(start(config), lambda: metrics.is_file() and metrics.read_text().count('"lr"') >= 17, signal.SIGTERM)
    assert code == 130
    assert json.loads(out)["exit_code"] == 130
    saved = [int(path.name.split("-")[1]) for path in run.glob("checkpoint-*")]
    assert len(saved) == 1
    assert 17 <= saved[0] < 40
    result, adapter = finish(config)
    assert result["resumed_from"].endswith(f"checkpoint-{saved[0]}")
    assert adapter == straight[2]
    assert losses(config) == losses(straight[0])


@pytest.mark.slow
def test_a_finished_run_is_not_trained_again_and_a_changed_one_is_refused(straight):
    config, _, adapter = straight
    out = config.parent / "out" / "train"
    before = (out / "adapter" / "adapter_model.safetensors").stat().st_mtime_ns
    assert finish(config)[1] == adapter
    assert (out / "adapter" / "adapter_model.safetensors").stat().st_mtime_ns == before


@pytest.mark.slow
def test_killed_and_resumed_with_compiled_layers_gives_the_same_bits_and_losses_near_those_of_eager_layers(tiny_base, tmp_path):
    compiled = "stages.train.training.kernels.compile=true"
    whole = write_project(tmp_path / "whole", steps=4, every=2)
    result, adapter = finish(whole, compiled)
    assert result["kernels"]["graphs"] > 0
    assert result["kernels"]["graph_breaks"] == 0
    config = write_project(tmp_path / "project", steps=4, every=2)
    run = config.parent / "out" / "train"
    stop_when(start(config, compiled), (run / "checkpoint-2").is_dir, signal.SIGKILL)
    result, resumed = finish(config, compiled)
    assert result["resumed_from"].endswith("checkpoint-2")
    assert resumed == adapter
    assert losses(config) == losses(whole)
    eager = write_project(tmp_path / "eager", steps=4, every=2)
    finish(eager)
    # In float32 the two are equal to the last digit. In bf16 the first loss, 5.256, is 5.258 uncompiled and 5.249 compiled.
    assert [loss for _, loss in losses(whole)] == pytest.approx([loss for _, loss in losses(eager)], rel=2e-2)
