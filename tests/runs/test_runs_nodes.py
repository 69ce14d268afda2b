"""Two nodes on this machine: two agents that meet on the loopback interface, one rank each, over gloo; law 7 when one is lost."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from training.test_training_resume import losses, write_project

from mft.training.checkpoints import checkpoints

STEPS = 12
slow = pytest.mark.slow


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Node:
    """`mft launch` of one of two nodes; its output is kept."""

    def __init__(self, config: Path, port: int, name: str, *options: str) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, "-m", "mft", "-q", "--json", "launch", str(config), "--on", "torchrun", "--nodes", "2", "--gpus", "1",
                   "--out", str(config.parent / "out"), "--rendezvous", f"127.0.0.1:{port}", "--rendezvous-id", "test",
                   "--wait-minutes", "3", "stages.train.distributed.engine=ddp", *options]
        self.errors = (config.parent / f"{name}.err").open("a+")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.errors, text=True, env=environment)

    def end(self, timeout_s: float = 600) -> tuple[int, dict, str]:
        """Exit code, JSON, stderr."""
        out, _ = self.process.communicate(timeout=timeout_s)
        self.errors.seek(0)
        return self.process.returncode, json.loads(out or "{}"), self.errors.read()

    def kill(self) -> None:
        """SIGKILL to the command, its agent and its ranks."""
        family = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        for member in family:
            member.suspend()
        for member in family:
            member.kill()
        self.process.communicate()


def wait_until(condition, *running: Node, timeout_s: float = 600) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert all(node.process.poll() is None for node in running), [node.end() for node in running]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def logged(config: Path) -> int:
    metrics = config.parent / "out" / "train" / "metrics.jsonl"
    return metrics.read_text().count('"lr"') if metrics.is_file() else 0


def saved(config: Path) -> list[int]:
    return [step for step, _ in checkpoints(config.parent / "out" / "train")]


def adapter(config: Path) -> bytes:
    return (config.parent / "out" / "train" / "adapter" / "adapter_model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def straight(tmp_path_factory) -> Path:
    """A run of two nodes that nobody disturbs."""
    config, port = write_project(tmp_path_factory.mktemp("straight") / "project", steps=STEPS, every=4), free_port()
    pair = [Node(config, port, name) for name in "ab"]
    ends = [node.end() for node in pair]
    assert [code for code, _, _ in ends] == [0, 0], ends
    assert {result["steps"] for _, result, _ in ends} == {STEPS}
    assert ends[0][1]["loss"] == ends[1][1]["loss"]
    return config


@slow
@pytest.mark.law
@pytest.mark.parametrize("victim", [0, 1], ids=["the node with the store", "the other node"])
def test_a_node_that_is_killed_and_started_again_joins_and_the_run_ends_with_the_same_bits(victim, straight, tmp_path):
    config, port = write_project(tmp_path / "project", steps=STEPS, every=4), free_port()
    first = Node(config, port, "a")
    wait_until(lambda: any(item.laddr.port == port for item in psutil.net_connections() if item.status == "LISTEN"), first)
    pair = [first, Node(config, port, "b")]
    wait_until(lambda: logged(config) >= 5, *pair)
    pair[victim].kill()
    assert saved(config) == [4]
    assert not (config.parent / "out" / "train" / "adapter").exists()
    time.sleep(3)
    pair[victim] = Node(config, port, "again")
    ends = [node.end() for node in pair]
    assert [code for code, _, _ in ends] == [0, 0], ends
    record = json.loads((config.parent / "out" / "train" / "run.json").read_text())
    assert record["resumed_from"].endswith("checkpoint-4")
    assert record["ranks"] == 2
    assert adapter(config) == adapter(straight)
    assert losses(config) == losses(straight)


@slow
def test_sigterm_to_one_node_stops_both_after_the_same_step_and_they_go_on_to_the_same_bits(straight, tmp_path):
    config, port = write_project(tmp_path / "project", steps=STEPS, every=0), free_port()
    pair = [Node(config, port, name) for name in "ab"]
    wait_until(lambda: logged(config) >= 5, *pair)
    pair[1].process.send_signal(signal.SIGTERM)
    ends = [node.end(300) for node in pair]
    (step,) = saved(config)
    assert 5 <= step < STEPS
    for code, result, errors in ends:
        assert (code, result["exit_code"]) == (130, 130)
        assert f"stopped by a signal after step {step}" in result["error"]
        assert "Traceback" not in errors
    pair = [Node(config, port, name) for name in "ab"]
    assert [node.end()[0] for node in pair] == [0, 0]
    assert adapter(config) == adapter(straight)


@slow
def test_a_rank_that_is_killed_is_started_again_without_its_node(straight, tmp_path):
    config, port = write_project(tmp_path / "project", steps=STEPS, every=4), free_port()
    pair = [Node(config, port, name) for name in "ab"]
    wait_until(lambda: logged(config) >= 5, *pair)
    ranks = [member for member in psutil.Process(pair[0].process.pid).children(recursive=True) if "RANK" in member.environ()]
    ranks[0].kill()
    ends = [node.end() for node in pair]
    assert [code for code, _, _ in ends] == [0, 0], ends
    assert adapter(config) == adapter(straight)


@slow
def test_a_mistake_that_one_node_makes_is_not_tried_again_and_ends_the_other(tmp_path):
    """The second node does not have the base."""
    config, port = write_project(tmp_path / "project", steps=4, every=0), free_port()
    began = time.monotonic()
    pair = [Node(config, port, "a"), Node(config, port, "b", "model.base=no-such-folder")]
    ends = [node.end(300) for node in pair]
    assert time.monotonic() - began < 300
    assert {code for code, _, _ in ends} <= {2, 3}
    assert 2 in {code for code, _, _ in ends}
    mistaken = next(result for code, result, _ in ends if code == 2)
    assert mistaken["error"].startswith("no-such-folder: no such folder; built-in bases: ")
    assert all(errors.count("mft: ") == 1 and "Traceback" not in errors for _, _, errors in ends)


@slow
def test_a_node_whose_partner_does_not_come_says_so(tmp_path):
    config = write_project(tmp_path / "project", steps=4, every=0)
    code, result, errors = Node(config, port := free_port(), "a", "--wait-minutes", "0.1").end(300)
    assert (code, result["error"]) == (3, f"not all of the 2 nodes came to 127.0.0.1:{port} within 0.1 minutes; the same command on every "
                                          "node goes on from the last checkpoint")
    assert errors.count("mft: ") == 1
    assert not (config.parent / "out").exists()
