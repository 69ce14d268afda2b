"""A second train stage that begins where a merge stage ended: its base is the merged model, for all that follows."""

import pytest
import torch
from safetensors.torch import load_file
from training.test_training_resume import write_project

from mft.errors import ConfigError
from mft.files import read_json
from mft.hashes import hash_file
from mft.report.page import write_report
from mft.runs.config import load_project
from mft.runs.project import Project, run_project

STAGES = """
  - {kind: merge, name: merged, adapter: train, dtype: fp32}
  - kind: train
    name: second
    data: data
    init_from: merged
    quantization: {type: none, compute_dtype: fp32}
    adapter: {rank: 4, alpha: 8, dropout: 0}
    training: {max_steps: 3, global_batch_rows: 4, micro_batch_rows: 2, learning_rate: 5e-4, evaluate_every: 0, checkpoint_every: 0}
  - kind: train
    name: third
    data: data
    init_from: second
    quantization: {type: none, compute_dtype: fp32}
    adapter: {rank: 4, alpha: 8, dropout: 0}
    training: {max_steps: 2, global_batch_rows: 4, micro_batch_rows: 2, learning_rate: 2e-4, evaluate_every: 0, checkpoint_every: 0}
  - {kind: merge, name: released, adapter: third, dtype: fp32, verify: logits}
  - {kind: evaluate, name: loss, benchmark: loss, models: [base, merged, third, released], generations: 1, max_new_tokens: 4}
"""


def write_two_stages(folder):
    config = write_project(folder, steps=6, every=0)
    config.write_text(config.read_text() + STAGES)
    return config


@pytest.mark.slow
def test_a_stage_trains_on_a_merged_model_and_what_follows_uses_that_as_base(tiny_base, tmp_path):
    config, out = write_two_stages(tmp_path / "project"), tmp_path / "out"
    plain = ("stages.train.quantization.type=none", "stages.train.quantization.compute_dtype=fp32")
    project = Project(load_project(config, list(plain)), config, out, write_report)
    results = {entry["name"]: entry["result"] for entry in run_project(project)["stages"]}
    facts = [read_json(out / name / "adapter" / "mft.json") for name in ("train", "second", "third")]
    merged = str((out / "merged").resolve())
    assert [fact["base"] for fact in facts] == ["tiny-code-llama", merged, merged]
    assert facts[1]["base_files"]["model.safetensors"] == hash_file(out / "merged" / "model.safetensors")["sha256"]
    start, released = load_file(out / "merged" / "model.safetensors"), load_file(out / "released" / "model.safetensors")
    adapter = load_file(out / "third" / "adapter" / "adapter_model.safetensors")
    layer = "model.layers.0.mlp.down_proj"
    added = 2.0 * adapter[f"base_model.model.{layer}.lora_B.weight"] @ adapter[f"base_model.model.{layer}.lora_A.weight"]
    assert added.norm() > 0
    assert torch.allclose(released[f"{layer}.weight"], start[f"{layer}.weight"] + added, atol=1e-6)
    overall = results["loss"]["overall"]["loss"]
    assert overall["third"] == pytest.approx(overall["released"], abs=0.02)   # a model folder is scored in bf16
    assert overall["third"] < overall["merged"] < overall["base"]


def test_init_from_must_be_an_earlier_train_or_merge_stage(tmp_path):
    config = write_two_stages(tmp_path / "project")
    with pytest.raises(ConfigError, match=r"stages\.second\.init_from: 'data' is not an earlier merge or train stage; "
                                          "allowed: train, merged"):
        load_project(config, ["stages.second.init_from=data"])
    with pytest.raises(ConfigError, match=r"stages\.second\.init_from: 'released' is not an earlier"):
        load_project(config, ["stages.second.init_from=released"])
