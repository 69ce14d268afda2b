"""Optimizer, LoRA+, noise, kinds of adapters and a measured balance through a whole run: they act, and going on gives the same bits."""

import json

import pytest
import torch
from training.test_training_resume import write_project

from mft.report.page import write_report
from mft.runs.config import load_project
from mft.runs.project import Project, run_project

SET = "stages.train."
KINDS = {
    "dora": ["adapter.type=dora", "adapter.rank=4", "training.lora_plus_ratio=4", "training.neftune_alpha=5"],
    "rslora_8bit": ["adapter.type=rslora", "adapter.rank=32", "adapter.targets=release_2023", "training.optimizer=adamw_8bit"],
    "coba": ["tasks.balance=coba", "tasks.coba={warmup_probes: 2, validation_rows: 2}"],
    "full": ["adapter={type: full}", "quantization={type: none, compute_dtype: bf16}", "training.optimizer=adamw_8bit",
             "training.neftune_alpha=5", "training.learning_rate=1e-4"]}


def run(config, options, resume="auto"):
    project = Project(load_project(config, [SET + option for option in options]), config, config.parent / "out", write_report,
                      resume=resume)
    return run_project(project, only="train")["stages"][-1]["result"]


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_a_run_that_is_gone_on_with_gives_the_same_bits(tiny_base, tmp_path, name):
    config = write_project(tmp_path / "project", steps=6, every=3)
    out = config.parent / "out" / "train"
    run(config, KINDS[name])
    finished = {path.name: path.read_bytes() for path in (out / "adapter").glob("*.safetensors")}
    assert finished
    result = run(config, KINDS[name], resume=str(out / "checkpoint-3"))
    assert result["resumed_from"].endswith("checkpoint-3")
    assert {path.name: path.read_bytes() for path in (out / "adapter").glob("*.safetensors")} == finished
    state = torch.load(out / "checkpoint-6" / "optimizer.pt", weights_only=True)
    types = {values[key].dtype for values in state["parameters"].values() for key in ("state1", "exp_avg") if key in values}
    assert (torch.uint8 in types) == ("training.optimizer=adamw_8bit" in KINDS[name])
    rates = [group["initial_lr"] for group in state["groups"]]
    assert (max(rates) == pytest.approx(4 * min(rates))) == (name == "dora")
    losses = [line["loss"] for line in map(json.loads, (out / "metrics.jsonl").open()) if "loss" in line]
    assert losses[-1] < losses[0]
