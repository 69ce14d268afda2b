"""The DeepSpeed config follows from the run config; a user's own JSON that contradicts it is refused, key by key."""

import json

import pytest

from mft.errors import ConfigError
from mft.training.config import DistributedConfig, TrainingConfig
from mft.training.deepspeed_config import deepspeed_config

TRAINING = TrainingConfig(global_batch_rows=16, micro_batch_rows=2, clip=0.5)


def written(folder, values, **options):
    (folder / "ds.json").write_text(values if isinstance(values, str) else json.dumps(values))
    distributed = DistributedConfig(engine="deepspeed", deepspeed_config="ds.json", **options)
    return deepspeed_config(distributed, TRAINING, ranks=4, pin_memory=False, beside=folder)


def test_every_number_is_resolved_and_no_type_is_cast():
    config = deepspeed_config(DistributedConfig(engine="deepspeed"), TRAINING, ranks=4, pin_memory=False)
    assert config["train_micro_batch_size_per_gpu"] == 2
    assert config["gradient_accumulation_steps"] == 2
    assert config["train_batch_size"] == 16
    assert config["gradient_clipping"] == 0.5
    assert config["zero_optimization"]["stage"] == 2
    assert config["bf16"] == config["fp16"] == {"enabled": False}
    assert "auto" not in json.dumps(config)


def test_offload_moves_what_it_says():
    moved = deepspeed_config(DistributedConfig(engine="deepspeed", offload="optimizer"), TRAINING, ranks=2, pin_memory=True)
    assert moved["zero_optimization"]["offload_optimizer"] == {"device": "cpu", "pin_memory": True}
    assert "offload_param" not in moved["zero_optimization"]
    both = deepspeed_config(DistributedConfig(engine="deepspeed", zero_stage=3, offload="all"), TRAINING, ranks=2, pin_memory=False)
    assert both["zero_optimization"]["offload_param"] == {"device": "cpu", "pin_memory": False}


def test_a_json_of_ones_own_is_completed_and_its_free_keys_stand(tmp_path):
    config = written(tmp_path, {"train_batch_size": "auto", "comms_logger": {"enabled": True},
                                "zero_optimization": {"stage": 2, "overlap_comm": True, "reduce_bucket_size": 5e7}})
    assert config["train_batch_size"] == 16
    assert config["zero_optimization"]["overlap_comm"] is True
    assert config["zero_optimization"]["reduce_bucket_size"] == 5e7
    assert config["zero_optimization"]["contiguous_gradients"] is True
    assert config["comms_logger"] == {"enabled": True}


@pytest.mark.parametrize(("values", "said"), [
    ({"train_batch_size": 32}, r"train_batch_size is 32, but this run needs 16 \(training\.global_batch_rows\)"),
    ({"gradient_accumulation_steps": 1}, r"gradient_accumulation_steps is 1, but this run needs 2"),
    ({"gradient_clipping": 1.0}, r"gradient_clipping is 1\.0, but this run needs 0\.5 \(training\.clip\)"),
    ({"zero_optimization": {"stage": 3}}, r"zero_optimization\.stage is 3, but this run needs 2 \(distributed\.zero_stage\)"),
    ({"bf16": {"enabled": True}}, r"bf16\.enabled is true, but this run needs false .*float32"),
    ({"zero_optimization": {"offload_optimizer": {"device": "cpu"}}}, r"offload_optimizer\.device is \"cpu\".*distributed\.offload"),
    ({"optimizer": {"type": "AdamW"}}, r"optimizer is .*training\.optimizer makes the optimizer"),
    ({"scheduler": {"type": "WarmupLR"}}, r"scheduler is .*training\.schedule"),
    ({"sequence_parallel_size": 2}, r"sequence_parallel_size is 2.*no task loss"),
    ("[1]", "holds no JSON object"), ("{", "is not JSON"),
])
def test_each_contradiction_is_named(values, said, tmp_path):
    with pytest.raises(ConfigError, match=said):
        written(tmp_path, values)


def test_all_contradictions_come_at_once(tmp_path):
    with pytest.raises(ConfigError) as raised:
        written(tmp_path, {"train_batch_size": 1, "gradient_clipping": 9, "zero_optimization": {"stage": 1}})
    assert len(raised.value.problems) == 3


@pytest.mark.parametrize(("values", "said"), [
    ({"engine": "ddp", "zero_stage": 2}, "zero_stage: only with engine: deepspeed"),
    ({"engine": "deepspeed", "offload": "all"}, "needs zero_stage: 3; zero_stage is 2"),
    ({"engine": "ddp", "sequence_parallel": 2}, "sequence_parallel must be 1.*not the loss of `tasks`"),
    ({"processes": 2}, "engine: none is one process"),
])
def test_options_that_do_not_go_with_the_engine_are_refused(values, said):
    with pytest.raises(ValueError, match=said):
        DistributedConfig.model_validate(values)
