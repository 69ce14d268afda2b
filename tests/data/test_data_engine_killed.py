"""A build that is killed again and again ends with the rows of one that was not."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from engine_recipe import BUILD, small_pieces, write_recipe

from mft.data import build
from mft.files import check_manifest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_five_times_at_any_moment_equals_never_killed(tmp_path, monkeypatch, workers):
    recipe = write_recipe(tmp_path / "project")
    small_pieces(monkeypatch)
    started = time.monotonic()
    expected = build(recipe).facts
    seconds = time.monotonic() - started
    script, out = tmp_path / "run.py", tmp_path / "place" / "out"
    script.write_text(BUILD)
    command = [sys.executable, str(script), str(recipe), str(out), str(workers)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    draw, kills, finished = random.Random(workers), 0, []
    while kills < 5:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        _wait_for_work(out, process, len(finished))
        time.sleep(draw.uniform(0, seconds / 4))
        process.kill()
        process.wait()
        kills += 1
        assert not out.exists() or check_manifest(out)      # whole, or not there
        finished.append(len(list(out.parent.glob(".out.work/*.json"))))
    assert finished == sorted(finished) or out.exists()     # nothing that was finished is lost
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [expected["sha256"]]
    assert {key: value for key, value in check_manifest(out).items() if key in expected} == expected
    assert sorted(path.name for path in out.parent.iterdir()) == ["out"]


def _wait_for_work(out, process, kills):
    """Until the process has begun: the first one with the folder, a later one with a shard more or the end."""
    before = len(list(out.parent.glob(".out.work/*.json")))
    for _ in range(600):
        now = len(list(out.parent.glob(".out.work/*.json")))
        if now > before or process.poll() is not None:
            return
        time.sleep(0.02)
