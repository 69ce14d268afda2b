"""What checks make of what they see; the machine's state is given, where this machine cannot be put into it."""

import pytest

from mft.doctor.checks import environment, memory, ranks
from mft.doctor.checks.devices import judge_torch
from mft.doctor.context import Context
from mft.doctor.subject import Subject, TrainNeeds
from mft.modeling.config import AdapterConfig, ModelConfig, QuantizationConfig
from mft.training.config import DistributedConfig, TrainingConfig

BUILD = {"version": "2.13.0+cu130", "cuda": "13.0", "hip": None, "available": True, "arch_list": ["sm_75", "sm_80", "sm_90"],
         "nccl": "2.28.9", "gloo": True, "threads": 16, "warnings": []}
H200 = {"name": "NVIDIA H200", "capability": [9, 0], "total_bytes": 150_000_000_000, "free_bytes": 149_000_000_000, "fault": None,
        "bf16_fault": None}
T4 = {**H200, "name": "Tesla T4", "capability": [7, 5], "total_bytes": 16_000_000_000}
V100 = {**T4, "name": "V100", "capability": [7, 0], "fault": "AcceleratorError: no kernel image is available for execution on the device"}


def subject(tmp_path, *, processes=None, engine="none", attention="auto", **training):
    model = ModelConfig(base="tiny-code-llama", format="codefuse", context=64, attention=attention)
    train = TrainNeeds("train", QuantizationConfig(), AdapterConfig(), TrainingConfig(**training),
                       DistributedConfig(engine=engine, processes=processes))
    return Subject("p", model, tmp_path, tmp_path / "out", (), (train,), 0, wandb=False, tensorboard=False, runs_code=False)


def judged(driver, *devices, subject=None, **facts):
    finding = judge_torch({**BUILD, **facts, "devices": list(devices)}, driver, subject)
    return finding.state, f"{finding.found} -> {finding.remedy}"


def test_gpus_that_compute_are_named_with_driver_and_nccl():
    assert judged("580.95.05", H200, H200) == (
        "ok", "torch 2.13.0+cu130, CUDA 13.0, driver 580.95.05, NCCL 2.28.9; NVIDIA H200 (150.0 GB, compute 9.0), "
              "NVIDIA H200 (150.0 GB, compute 9.0) -> ")


def test_torch_for_cuda_without_a_driver_is_no_fault_but_says_so():
    state, told = judged(None, arch_list=[], nccl=None)
    assert state == "warning"
    assert told.startswith("torch 2.13.0+cu130 is built for CUDA 13.0, and there is no NVIDIA driver: the CPU is used -> ")


def test_a_driver_too_old_for_torch_is_a_fault_with_the_words_of_torch():
    old = "CUDA initialization: The NVIDIA driver on your system is too old (found version 11040)."
    state, told = judged("470.57.02", warnings=[old])
    assert state == "fault"
    assert f"the driver 470.57.02 does not serve it: {old} -> update the driver" in told


def test_a_torch_for_the_cpu_beside_a_driver_is_a_warning():
    state, told = judged("580.95.05", cuda=None, version="2.13.0+cpu")
    assert (state, "this torch (2.13.0+cpu) is built for the CPU" in told) == ("warning", True)


def test_hidden_gpus_are_told(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "CUDA_VISIBLE_DEVICES is '', which hides every GPU -> unset" in judged("580.95.05")[1]


def test_a_gpu_that_torch_has_no_code_for_is_a_fault_with_what_it_is_built_for():
    state, told = judged("580.95.05", V100)
    assert state == "fault"
    assert "GPU 0 (V100, compute 7.0) does not compute: AcceleratorError: no kernel image" in told
    assert "(this torch is built for sm_75, sm_80, sm_90)" in told


def test_a_gpu_without_bf16_is_a_warning():
    state, told = judged("580.95.05", T4)
    assert (state, "compute 7.5) has no bf16 units" in told) == ("warning", True)


def test_what_a_config_needs_of_the_gpus(tmp_path):
    assert "model.attention is flash_attention_2" in judged(None, subject=subject(tmp_path, attention="flash_attention_2"))[1]
    assert judged(None, subject=subject(tmp_path, optimizer="paged_adamw"))[0] == "fault"
    assert judged("580", H200, subject=subject(tmp_path, optimizer="paged_adamw"))[0] == "ok"
    state, told = judged("580", H200, subject=subject(tmp_path, engine="ddp", processes=2))
    assert (state, "distributed.processes is 2, and there are 1 GPUs" in told) == ("fault", True)


@pytest.mark.parametrize(("lines", "files", "limit"), [
    ("0::/job\n", {"memory.max": "max", "job/memory.max": "8000000000"}, 8_000_000_000),
    ("0::/job/step\n", {"job/memory.max": "4000000000", "job/step/memory.max": "max"}, 4_000_000_000),
    ("0::/of/the/host\n", {"memory.max": "2000000000"}, 2_000_000_000),
    ("5:memory:/docker/x\n0::/\n", {"memory/docker/x/memory.limit_in_bytes": "3000000000"}, 3_000_000_000),
    ("5:memory:/\n", {"memory/memory.limit_in_bytes": "9223372036854771712"}, None),
    ("0::/\n", {}, None)])
def test_the_limit_of_a_control_group(tmp_path, lines, files, limit):
    (tmp_path / "own").write_text(lines)
    for name, text in files.items():
        (tmp_path / "fs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "fs" / name).write_text(text + "\n")
    assert memory.cgroup_limit(tmp_path / "fs", tmp_path / "own") == limit


def test_the_weights_of_a_stage_are_counted_as_they_are_held(tmp_path):
    linear, other = 33_000_000_000, 500_000_000
    one = memory.stage_weights(subject(tmp_path).trains[0], linear, other)
    assert one == memory.Held("train", 17_023_875_000 + 1_000_000_000, shared=False, ranks=1)
    twice = memory.stage_weights(subject(tmp_path, engine="ddp", processes=2).trains[0], linear, other)
    assert (twice.copy_bytes, twice.shared, twice.ranks) == (18_023_875_000, False, 2)


@pytest.mark.parametrize(("shared", "devices", "state", "words"), [
    (False, [24, 24], None, ""), (False, [16, 24], "fault", "18.0 GB of weights, and a GPU has 16.0 GB"),
    (True, [16, 16], None, ""), (True, [8, 8], "fault", "18.0 GB of weights, and the GPUs have 16.0 GB"),
    (False, [], "fault", "36.0 GB of weights, 18.0 GB in each of 2 processes, and the machine allows 30.0 GB"), (True, [], None, ""),
    (False, [20], "warning", "little is left for a step")])
def test_ranks_hold_a_copy_each_or_share_one(shared, devices, state, words):
    held = memory.Held("train", 18_000_000_000, shared, ranks=2)
    found = memory._fits(held, [{"total_bytes": number * 10**9} for number in devices], 30 * 10**9, "the machine")
    assert [finding.state for finding in found] == ([state] if state else [])
    assert all(words in finding.found for finding in found)


@pytest.mark.parametrize(("variables", "words"), [
    ({"RANK": "0"}, "RANK=0 is set outside of a launcher"),
    ({"ACCELERATE_USE_CPU": "true"}, "as one process: `accelerate launch --cpu --num_processes N` starts one"),
    ({"OMP_NUM_THREADS": "4096"}, "OMP_NUM_THREADS is 4096, and this process may use "),
    ({"OMP_NUM_THREADS": "all"}, "OMP_NUM_THREADS is 'all', not a number"),
    ({"OMP_WAIT_POLICY": "ACTIVE"}, "OpenMP's threads spin while they wait"),
    ({"GOMP_SPINCOUNT": "infinity"}, "OpenMP's threads spin while they wait"),
    ({"NCCL_SOCKET_IFNAME": "=ib7,lo"}, "NCCL_SOCKET_IFNAME names ib7, and this machine has ")])
def test_variables_that_change_a_run_unseen(monkeypatch, variables, words):
    for name in ("RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID", "SLURM_PROCID", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT",
                 "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        monkeypatch.delenv(name, raising=False)
    assert environment.check_environment(Context()).state == "ok"
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    finding = environment.check_environment(Context())
    assert finding.state == "warning"
    assert words in finding.found
    assert finding.remedy


def test_interfaces_that_are_left_out_or_begin_so_are_known(monkeypatch):
    for value in ("^docker0", "lo", "l", ""):
        monkeypatch.setenv("NCCL_SOCKET_IFNAME", value)
        monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
        assert environment._interfaces() == []


def test_neighbours_among_gpus_meet_in_two_rounds():
    assert ranks._rounds(True, 0) == [("gloo", [(0, 1)])]
    assert ranks._rounds(True, 1) == [("gloo", [(0, 1)])]
    assert ranks._rounds(True, 5) == [("gloo", [(0, 1)]), ("nccl", [(0, 1), (2, 3)]), ("nccl", [(1, 2), (3, 4)])]


def test_a_name_of_the_first_node_that_does_not_resolve_is_told(monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "no-such-node.invalid")
    finding, = ranks._master_address()
    assert "MASTER_ADDR is no-such-node.invalid, which does not resolve" in finding.found
