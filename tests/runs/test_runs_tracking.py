"""What trackers are told of a train stage, and the answers of a model that is being trained."""

import json

import pytest
import torch
from training.test_training_resume import write_project
from trl.trainer.utils import add_fused_lm_head

from mft.data.pipeline import build
from mft.modeling.adapters import add_adapter
from mft.modeling.config import AdapterConfig, QuantizationConfig
from mft.modeling.load import load_base
from mft.runs.config import load_project
from mft.runs.tracking import answer_prompts, tracking_options
from mft.training.tokens import encode_run


@pytest.fixture(scope="module")
def stage(tiny_base, tmp_path_factory):
    """(config, built data, encoded data) of a small project with two tasks."""
    path = write_project(tmp_path_factory.mktemp("tracking") / "project")
    config = load_project(path, ["tracking.generations=3", "tracking.wandb=true"])
    data = path.parent / "data"
    build(path.parent / "recipe.yaml", data)
    return config, data, encode_run(data, tiny_base, config.model, path.parent / "tokens")


def test_the_trackers_are_told_the_resolved_config_and_the_manifest(stage):
    config, data, tokens = stage
    options = tracking_options(config, config.stage("train"), data, tokens, longest=2048)
    assert (options.project, options.name, options.wandb, options.tensorboard) == ("resume", "train", True, False)
    assert options.config["stages"][1]["training"]["clip"] == 1.0   # a default, so resolved
    assert options.data["sha256"] == json.loads((data / "manifest.json").read_text())["sha256"]
    assert set(options.data["per_task"]) == {"add", "name"}
    assert options.sampler is not None
    none = config.model_copy(update={"tracking": config.tracking.model_copy(update={"generations": 0})})
    assert tracking_options(none, config.stage("train"), data, tokens, longest=2048).sampler is None


def test_a_model_in_training_answers_held_out_prompts_and_is_left_as_it_was(stage, tiny_base):
    config, data, tokens = stage
    base = load_base(tiny_base, QuantizationConfig(type="none", compute_dtype="fp32"))
    add_fused_lm_head(base)
    model = add_adapter(base, AdapterConfig(rank=4, alpha=8, dropout=0.1), seed=1)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    modes = [module.training for module in model.modules()]
    cached = model.config.use_cache
    random_state = torch.get_rng_state()
    sample = answer_prompts(data, tokens, 3, config.model.context, longest=2048)
    rows = sample(model)
    assert [row["task"] for row in rows] == ["add", "name", "add"]
    held_out = {sample.id.split("#")[0] for sample in tokens.validation}
    assert {row["id"] for row in rows} <= held_out
    assert all(list(row) == ["task", "id", "prompt", "reference", "completion"] for row in rows)
    assert rows[1]["prompt"].startswith("<|role_start|>human<|role_end|>name number ")
    assert rows[1]["reference"] == f"value_{rows[1]['id'].split('-')[1]}"
    assert sample(model) == rows
    assert [module.training for module in model.modules()] == modes
    assert model.config.use_cache == cached
    assert torch.equal(torch.get_rng_state(), random_state)
