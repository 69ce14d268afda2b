"""Every wrong combination is one message before a weight is loaded, all of them at once."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mft.errors import ConfigError, ModelError
from mft.hashes import hash_file
from mft.modeling.base import resolve_base
from mft.modeling.config import AdapterConfig, ModelConfig, QuantizationConfig
from mft.training.config import DistributedConfig, TasksConfig, TrainingConfig
from mft.training.job import TrainJob, base_file_hashes, check_job

TOKENS = SimpleNamespace(task_names=["add", "name"], train=[1], validation=[1], dropped=Counter())


def job(*, context=512, model=None, quantization=None, adapter=None, tasks=None, training=None, distributed=None):
    return TrainJob(resolve_base("tiny-code-llama", beside=Path()),
                    ModelConfig(base="tiny-code-llama", format="codefuse", context=context, **model or {}),
                    QuantizationConfig(**quantization or {}), AdapterConfig(**adapter or {}), TasksConfig(**tasks or {}),
                    TrainingConfig(**training or {}), DistributedConfig(**distributed or {}))


@pytest.fixture(autouse=True)
def no_weights(monkeypatch):
    monkeypatch.setattr("mft.modeling.load.load_base", lambda *a, **k: pytest.fail("a weight was loaded"))


@pytest.mark.parametrize(("options", "ranks", "said"), [
    ({"distributed": {"engine": "fsdp"}}, 2, r"quantization\.type is nf4 with distributed\.engine fsdp"),
    ({}, 2, r"distributed\.engine is none, which is one process, but 2 were started"),
    ({"distributed": {"engine": "ddp"}, "training": {"global_batch_rows": 6, "micro_batch_rows": 2}}, 4,
     r"global_batch_rows is 6, which 4 ranks with micro_batch_rows 2 cannot share; give a multiple of 8"),
    ({"distributed": {"engine": "deepspeed"}, "quantization": {"compute_dtype": "fp16"}}, 2, r"compute_dtype fp16 needs a loss scaler"),
    ({"distributed": {"engine": "deepspeed"}, "training": {"optimizer": "paged_adamw_8bit"}}, 2, r"whose state deepspeed cannot shard"),
    ({"distributed": {"engine": "deepspeed", "zero_stage": 3}, "training": {"kernels": {"compile": True}}}, 2,
     r"training\.kernels\.compile with distributed\.engine deepspeed with zero_stage 3"),
    ({"distributed": {"engine": "fsdp"}, "quantization": {"type": "none"}, "training": {"kernels": {"compile": True}}}, 2,
     r"training\.kernels\.compile with distributed\.engine fsdp"),
    ({"tasks": {"weights": {"sub": 2.0}}}, 1, r"tasks\.weights: sub: not a task of the data; tasks: add, name"),
    ({"adapter": {"targets": ["q_prj"]}}, 1, r"q_prj.*q_proj"),
    ({"distributed": {"engine": "deepspeed", "zero_stage": 3}, "model": {"quantized_cache": "auto"}}, 2,
     r"model\.quantized_cache is auto with zero_stage 3.*set it to off"),
    ({"adapter": {"type": "full"}}, 1, r"adapter\.type is full.*quantization"),
])
def test_each_wrong_combination_is_named(options, ranks, said):
    with pytest.raises(ConfigError, match=said):
        check_job(job(**options), TOKENS, ranks)


def test_evaluation_without_validation_data_is_refused_and_says_what_to_do():
    tokens = SimpleNamespace(**{**vars(TOKENS), "validation": []})
    with pytest.raises(ConfigError, match=r"evaluate_every is 50, but the data holds no validation sample; set evaluate_every: 0"):
        check_job(job(), tokens, 1)
    check_job(job(training={"evaluate_every": 0}), tokens, 1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="Liger's kernels can run here")
def test_ligers_kernels_on_a_cpu_are_one_message_before_a_weight_is_loaded():
    with pytest.raises(ConfigError, match=r"training\.kernels: rope: liger: its kernels run on CUDA, and this machine has no CUDA device"):
        check_job(job(training={"kernels": {"rope": "liger"}}), TOKENS, 1)


def test_a_run_may_go_on_with_other_kernels():
    plain, compiled = job(), job(training={"kernels": {"compile": True}})
    assert plain.key("data", {}) == compiled.key("data", {})


def test_a_context_beyond_the_bases_positions_is_refused():
    with pytest.raises(ModelError, match="at most 2048 tokens"):
        check_job(job(context=4096), TOKENS, 1)


@pytest.mark.parametrize(("block", "values", "said"), [
    (TrainingConfig, {"learning_rate": 0}, "greater than 0"),
    (TrainingConfig, {"kernels": {"compile": True, "mlp": "liger", "norms": "liger"}}, "norms, mlp: liger would stand in its way"),
    (TasksConfig, {"balance": "token_mean", "weights": {"add": 2.0}}, "weights act in task_token_mean and task_sample_mean only"),
    (DistributedConfig, {"engine": "ddp", "sequence_parallel": 2}, "sequence_parallel must be 1"),
])
def test_what_one_block_alone_can_see_is_refused_there(block, values, said):
    with pytest.raises(ValueError, match=said):
        block(**values)


def test_all_mistakes_come_at_once():
    wrong = job(adapter={"targets": ["nothing"]}, tasks={"weights": {"sub": 2.0}}, training={"global_batch_rows": 3})
    with pytest.raises(ConfigError) as raised:
        check_job(wrong, TOKENS, 2)
    assert len(raised.value.problems) == 4   # the engine, the batch, the weight, the target


def test_the_engine_and_the_micro_batch_do_not_make_it_another_run():
    one, two = job(), job(distributed={"engine": "ddp"}, training={"micro_batch_rows": 4})
    assert one.key("data", {}) == two.key("data", {})
    assert one.key("data", {}) != job(training={"learning_rate": 2e-4}).key("data", {})


def test_prompts_that_no_rank_could_answer_are_refused():
    check_job(job(), TOKENS, 1, generations=3)
    with pytest.raises(ConfigError, match=r"tracking\.generations is 3, but under distributed\.engine deepspeed with zero_stage 3"):
        check_job(job(distributed={"engine": "deepspeed", "zero_stage": 3}), TOKENS, 2, generations=3)
    with pytest.raises(ConfigError, match=r"tracking\.generations is 3.*evaluate_every is 0"):
        check_job(job(training={"evaluate_every": 0}), TOKENS, 1, generations=3)


def test_a_weights_file_is_hashed_once_while_it_stays_as_it_is(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text("{}")
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"one")
    read = []
    monkeypatch.setattr("mft.hashes.hash_file", lambda path: read.append(path.name) or hash_file(path))
    first = base_file_hashes(tmp_path)
    assert base_file_hashes(tmp_path) == first
    assert read == ["config.json", "model.safetensors"]
    weights.write_bytes(b"three")
    assert base_file_hashes(tmp_path)["model.safetensors"] != first["model.safetensors"]
    assert read[2:] == ["model.safetensors"]
