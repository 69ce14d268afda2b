"""`mft launch`: what is refused before anything starts, and what each launcher is told."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace

import pytest
from training.test_training_resume import write_project

from mft.errors import ConfigError, DependencyError, Interrupted, RanksFailed
from mft.runs.launch import GroupEnd, begin_attempt, worth_another_attempt
from mft.runs.launching import nodes
from mft.runs.launching.nodes import Address, NodeGroup, parse_address, run_node, torchrun_options
from mft.runs.launching.start import LaunchOptions, find_job, start

DDP = "stages.train.distributed.engine=ddp"
LOST = {"code": 3, "error": "rank 1 of 2 can no longer reach another rank", "lost_contact": True}
PAIR = NodeGroup(2, 1, Address("127.0.0.1", 29400), max_restarts=2, wait_minutes=5)


@pytest.fixture
def job(tmp_path):
    config = write_project(tmp_path / "project", steps=4, every=0)
    return find_job(config, [DDP], None, config.parent / "out")


@pytest.mark.parametrize(("options", "message"), [
    (LaunchOptions("torchrn", 1, 2), "--on: 'torchrn' is no launcher; allowed: torchrun, deepspeed, slurm; did you mean 'torchrun'?"),
    (LaunchOptions("torchrun", 2, 1),
     "--rendezvous: is required with --nodes 2: HOST:PORT of one of the nodes, the same on all of them"),
    (LaunchOptions("torchrun", 1, 2, rendezvous_id="x", hosts="a"),
     "--hosts: acts with --on deepspeed only; --on is torchrun\n--rendezvous-id: acts with several nodes only; --nodes is 1"),
    (LaunchOptions("deepspeed", 1, 2, max_restarts=0), "--max-restarts: acts with --on torchrun and --on slurm only; --on is deepspeed"),
    (LaunchOptions("torchrun", 2, 1, rendezvous="node:http"), "--rendezvous: 'node:http': expected HOST:PORT with a port from 1 to 65535"),
    (LaunchOptions("torchrun", 2, 1, rendezvous=":80"), "--rendezvous: ':80': expected HOST:PORT with a port from 1 to 65535"),
    (LaunchOptions("torchrun", 3, 1, rendezvous="node"),
     "training.global_batch_rows is 4, which 3 ranks with micro_batch_rows 2 cannot share; give a multiple of 6"),
    (LaunchOptions("deepspeed", 2, 1), "--hosts: is required with --on deepspeed and --nodes 2: their names, separated by commas"),
    (LaunchOptions("deepspeed", 2, 1, hosts="a,a"), "--hosts: names 1 different hosts, --nodes is 2"),
    (LaunchOptions("deepspeed", 2, 1, hosts="a:2,b c"),
     "--hosts: 'b c': expected NAME or NAME:RANKS\n--hosts: 'a' has 2 ranks, --gpus is 1"),
    (LaunchOptions("deepspeed", 2, 1, hosts="a,b", node_rank=2), "--node-rank: is 2, but there are 2 hosts, numbered from 0")])
def test_what_does_not_go_together_is_refused(options, message, job):
    with pytest.raises(ConfigError) as caught:
        start(job, options)
    assert str(caught.value) == message


def test_one_process_by_config_is_refused_on_several_ranks(job, tmp_path):
    config = find_job(job.config, [], None, job.out)
    with pytest.raises(ConfigError, match=r"^distributed.engine is none, which is one process, but 2 were started; set engine: ddp"):
        start(config, LaunchOptions("slurm", 2, 1))


def test_one_of_several_processes_launches_nothing(job, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ConfigError, match="this command has been started as one of several processes already"):
        start(job, LaunchOptions("torchrun", 1, 2))


def test_more_ranks_than_this_machine_has_gpus_are_refused(job, monkeypatch):
    monkeypatch.setattr("mft.runs.launching.start.device_count", lambda: 1)
    with pytest.raises(ConfigError, match="--gpus: is 2, but this machine shows 1"):
        start(job, LaunchOptions("torchrun", 1, 2, dry_run=True))


def test_a_stage_that_is_not_there_is_refused(job):
    with pytest.raises(ConfigError, match="--stage: train stages of this config: train"):
        find_job(job.config, [DDP], "trian", None)


def test_one_node_is_a_standalone_torchrun(job):
    facts = start(job, LaunchOptions("torchrun", 1, 2, max_restarts=0, interface="eth1", dry_run=True))
    assert facts["command"] == [
        sys.executable, "-m", "mft.runs.torchrun", "--standalone", "--nproc-per-node=2", "--max-restarts=0", "-m", "mft",
        *job.train_command]
    assert job.train_command[-7:] == ["train", str(job.config), DDP, "--stage", "train", "--out", str(job.out)]
    assert facts["environment"]["NCCL_SOCKET_IFNAME"] == facts["environment"]["GLOO_SOCKET_IFNAME"] == "eth1"
    assert not facts["started"]
    assert not job.out.exists()


def test_the_node_of_the_rendezvous_holds_the_store_under_any_of_its_names_and_others_go_to_it(monkeypatch):
    here = torchrun_options(PAIR)
    assert here[3:] == ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:29400", "--rdzv-id=mft", "--rdzv-conf=join_timeout=300",
                        "--local-addr=127.0.0.1"]
    monkeypatch.setattr(nodes, "_is_here", lambda host: False)
    there = torchrun_options(PAIR)
    assert there[4] == "--rdzv-endpoint=127.0.0.1:29400"
    assert here[:3] == there[:3] == ["--nnodes=2", "--nproc-per-node=1", "--max-restarts=2"]


def test_an_address_of_another_machine_is_not_here():
    assert nodes._is_here(socket.gethostname())
    assert not nodes._is_here("203.0.113.7")


def test_a_host_that_nobody_knows_is_one_message():
    with pytest.raises(ConfigError, match=r"^--rendezvous: 'no such host': this machine knows no such host"):
        torchrun_options(replace(PAIR, rendezvous=parse_address("no such host:1")))


def node_of(monkeypatch, *ends: GroupEnd) -> list[GroupEnd]:
    """Let torchrun end like this, one after the other; returns what is left of them."""
    left = list(ends)
    monkeypatch.setattr(nodes, "run_group", lambda *_: left.pop(0))
    monkeypatch.setattr(nodes, "RETRY_S", 0.0)
    return left


def end(outcomes=None, ranks=(0,), fault="", stopped=False) -> GroupEnd:
    return GroupEnd(outcomes or {}, frozenset(ranks), frozenset(), stopped, fault, 1 if fault else 0)


DONE = end({0: {"code": 0, "error": "", "lost_contact": False}})


def test_a_node_that_cannot_reach_the_store_yet_tries_again_without_using_up_a_restart(monkeypatch):
    left = node_of(monkeypatch, *[end(ranks=(), fault="unreachable")] * 5, DONE)
    run_node(PAIR, ["train"], 1)
    assert left == []


def test_a_node_that_loses_the_store_joins_again_as_often_as_it_may(monkeypatch):
    lost = end({0: LOST}, fault="unreachable")
    left = node_of(monkeypatch, lost, lost, DONE)
    run_node(PAIR, ["train"], 1)
    assert left == []
    left = node_of(monkeypatch, lost, lost, lost, DONE)
    with pytest.raises(RanksFailed, match=r"^127.0.0.1:29400, where the nodes meet, cannot be reached; the same command on"):
        run_node(PAIR, ["train"], 1)
    assert left == [DONE]


@pytest.mark.parametrize(("ended", "error", "message", "code"), [
    (end({0: LOST}, fault="closed"), RanksFailed, "another node has ended the run, for a reason that it tells", 3),
    (end({0: LOST}, fault="alone"), RanksFailed, "not all of the 2 nodes came to 127.0.0.1:29400 within 5 minutes", 3),
    (end({0: {"code": 2, "error": "no such key", "lost_contact": False}}, fault="closed"), RanksFailed, "no such key", 2),
    (end({0: {"code": 130, "error": "stopped after step 7", "lost_contact": False}}), Interrupted, "stopped after step 7", 130),
    (end(ranks=(), fault="unreachable", stopped=True), Interrupted, "stopped by a signal", 130),
    (end(ranks=(), stopped=True), Interrupted, "stopped by a signal", 130),
    (end(ranks=()), RanksFailed, "torchrun ended with 0 before it had started a rank", 3),
    (end(ranks=(1,)), RanksFailed, "rank 1 of 2 ended without a word", 3)])
def test_the_end_of_a_node_is_one_message(ended, error, message, code, monkeypatch):
    node_of(monkeypatch, ended)
    with pytest.raises(error, match=f"^{message}") as caught:
        run_node(PAIR, ["train"], 1)
    assert caught.value.exit_code == code


@pytest.mark.parametrize(("outcome", "worth"), [
    (None, True), ({"code": 1, "error": "CUDA error", "lost_contact": False}, True), (LOST, True),
    ({"code": 2, "error": "no such key", "lost_contact": False}, False), ({"code": 3, "error": "nan", "lost_contact": False}, False),
    ({"code": 130, "error": "stopped", "lost_contact": False}, False)])
def test_ranks_are_started_again_unless_they_would_end_the_same_way(outcome, worth, tmp_path):
    if outcome:
        (tmp_path / "1.json").write_text(json.dumps(outcome))
    assert worth_another_attempt(tmp_path) is worth
    (tmp_path / "1.pid").write_text("7")
    begin_attempt(tmp_path, [4, 5])
    assert worth_another_attempt(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["group.json"]


def test_deepspeed_over_ssh_gets_a_hostfile_and_what_it_must_export(job):
    job = find_job(job.config, [DDP, "stages.train.training.global_batch_rows=8"], None, job.out)
    facts = start(job, LaunchOptions("deepspeed", 2, 2, hosts="a,b:2", interface="ib0", dry_run=True))
    assert facts["hostfile"] == {"path": f"{job.out}.launch/hostfile", "text": "a slots=2\nb slots=2\n"}
    assert facts["command"] == [
        sys.executable, "-m", "deepspeed.launcher.runner", "--quiet", "--hostfile", f"{job.out}.launch/hostfile", "--master_addr=a",
        "--master_port=29500", "--no_local_rank", "--module", "mft", *job.train_command]
    assert facts["environment"]["DS_ENV_FILE"] == f"{job.out}.launch/deepspeed-environment"
    assert not job.folder.exists()


def test_deepspeed_without_ssh_starts_the_ranks_of_its_own_node(job):
    job = find_job(job.config, [DDP, "stages.train.training.global_batch_rows=8"], None, job.out)
    facts = start(job, LaunchOptions("deepspeed", 2, 2, hosts="a,b", node_rank=1, dry_run=True))
    assert facts["command"][6:10] == ["--no_ssh", "--node_rank=1", "--master_addr=a", "--master_port=29500"]
    one = start(job, LaunchOptions("deepspeed", 1, 2, dry_run=True))
    assert one["command"][6:9] == ["--no_ssh", "--node_rank=0", "--master_addr=127.0.0.1"]
    assert one["hostfile"]["text"] == "localhost slots=2\n"


def test_deepspeed_over_ssh_without_pdsh_says_what_to_do(job, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DependencyError, match=r"^pdsh is not installed .*--node-rank 0, 1, \.\.\. in the order of --hosts$"):
        start(job, LaunchOptions("deepspeed", 2, 1, hosts="a,b"))
    assert not job.folder.exists()


def launched(config, *options: str) -> tuple[int, dict, str]:
    """`mft launch` with DeepSpeed's launcher, all ranks on this machine."""
    command = [sys.executable, "-m", "mft", "-q", "--json", "launch", str(config), "--on", "deepspeed", "--gpus", "2",
               "--out", str(config.parent / "out"), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900,
                          env={**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"})
    return done.returncode, json.loads(done.stdout or "{}"), done.stderr


@pytest.mark.slow
def test_deepspeeds_launcher_trains_on_two_ranks_and_says_a_mistake_once(tmp_path):
    config = write_project(tmp_path / "project", steps=3, every=0)
    code, result, errors = launched(config, "stages.train.distributed.engine=deepspeed")
    assert (code, result.get("steps")) == (0, 3), errors
    assert json.loads((tmp_path / "project/out/train/run.json").read_text())["ranks"] == 2
    assert (tmp_path / "project/out.launch/hostfile").read_text() == "localhost slots=2\n"
    code, result, errors = launched(config, "stages.train.distributed.engine=deepspeed", "model.base=no-such-folder")
    assert code == 2
    assert result["error"].startswith("no-such-folder: no such folder")
    assert errors.count("mft: ") == 1
    assert "Traceback" not in errors
