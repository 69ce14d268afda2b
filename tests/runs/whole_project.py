"""A small project with a stage of every kind, run as a real process that tests can kill."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from training.test_training_resume import RECIPE

from mft.files import read_json
from mft.hashes import hash_file

CONFIG = """
name: whole
model: {base: tiny-code-llama, format: codefuse, context: 128}
stages:
  - {kind: data, name: data, recipe: recipe.yaml}
  - kind: train
    name: first
    data: data
    adapter: {rank: 4, alpha: 8, dropout: 0.05}
    training: {max_steps: 12, global_batch_rows: 4, micro_batch_rows: 2, learning_rate: 1e-3, evaluate_every: 0, checkpoint_every: 4,
               recompute: none}
  - {kind: merge, name: merged1, adapter: first, dtype: fp32}
  - kind: train
    name: second
    data: data
    init_from: merged1
    quantization: {type: none, compute_dtype: fp32}
    adapter: {rank: 4, alpha: 8, dropout: 0.05}
    training: {max_steps: 8, global_batch_rows: 4, micro_batch_rows: 2, learning_rate: 5e-4, evaluate_every: 0, checkpoint_every: 3,
               recompute: none}
  - {kind: merge, name: merged2, adapter: second, shard_size: 5MB}
  - {kind: quantize, name: small, model: merged2, jobs: [{method: rtn, bits: 8, group_size: 32}, {method: rtn, bits: 4, group_size: 32}]}
  - {kind: evaluate, name: loss, benchmark: loss, models: [base, second, merged2], generations: 1, max_new_tokens: 8}
  - {kind: release, name: release, model: merged2, licence: apache-2.0}
  - {kind: release, name: release4, model: small/rtn-4bit-32g}
  - {kind: report, name: report}
"""
STAGES = ("data", "first", "merged1", "second", "merged2", "small", "loss", "release", "release4", "report")
WITH_TIMES = {"README.md", "merge.json", "manifest.json", "SHA256SUMS", "MD5SUMS", "quantization.json", "quality.json", "run.json",
              "report.html", "metrics.jsonl", "hashes.json", "comparison.json", "comparison.md", "comparison.png", "trainer_state.json",
              "events.jsonl"}
"""Files that hold times, measurements, or hashes of such."""
DEADLINE_S = 300.0


def write_whole(folder: Path) -> Path:
    """The config of the project, its recipe and its rows."""
    folder.mkdir(parents=True)
    for task, answer in (("add", "def add_{n}(a, b):\n    return a + b + {n}"), ("name", "value_{n}")):
        rows = [{"id": f"{task}-{n}", "chat_rounds": [{"role": "human", "content": f"{task} number {n} " + "please " * (n % 9)},
                                                     {"role": "bot", "content": answer.format(n=n)}]} for n in range(60)]
        (folder / f"{task}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "config.yaml").write_text(CONFIG)
    return folder / "config.yaml"


def start(config: Path, out: Path, *options: str) -> "subprocess.Popen[str]":
    """`mft run` in a process group of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "mft", "--json", "run", str(config), "--out", str(out), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True, start_new_session=True)


def finish(config: Path, out: Path, *options: str) -> dict:
    """Run to the end; returns the JSON."""
    process = start(config, out, *options)
    told, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    return json.loads(told)


def end_when(process: "subprocess.Popen[str]", condition: Callable[[], bool], delay_s: float = 0.0, number: int = signal.SIGKILL) -> bool:
    """Send the whole group a signal `delay_s` after the condition holds; False: the process had ended before."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        if process.poll() is not None:
            return False
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(delay_s)
    if process.poll() is not None:
        return False
    os.killpg(process.pid, number)
    process.wait(timeout=120)
    return True


def stage_record(out: Path, name: str) -> dict:
    """What .stages says of a stage; empty where it says nothing."""
    try:
        return read_json(out / ".stages" / f"{name}.json")
    except (OSError, ValueError):
        return {}


def outcome(out: Path) -> dict[str, dict[str, str]]:
    """The fingerprint of every stage, and the hash of every file that a run of the same settings leaves the same."""
    prints = {name: stage_record(out, name)["fingerprint"] for name in STAGES if name != "report"}
    hashes = {}
    for path in sorted(out.rglob("*")):
        place = path.relative_to(out)
        hidden = place.parts[0].startswith(".") or any(part.startswith("checkpoint-") for part in place.parts)
        if path.is_file() and not hidden and path.name not in WITH_TIMES:
            hashes[place.as_posix()] = hash_file(path)["sha256"]
    return {"fingerprints": prints, "files": hashes}
