"""`model.add_tokens` through whole projects: ChatML on a base whose vocabulary lacks it, resumed, on several ranks, merged, moved."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from training.test_training_resume import finish, write_project

from mft.errors import ConfigError, ModelError, TokenizerError
from mft.modeling.added_tokens import added_tokens, extend_base
from mft.modeling.config import AdapterConfig, ModelConfig, QuantizationConfig
from mft.modeling.load import load_model
from mft.report.page import write_report
from mft.runs.config import load_project
from mft.runs.project import Project, run_project
from mft.training.config import DistributedConfig, TasksConfig, TrainingConfig
from mft.training.job import TrainJob, check_job

CHATML = ["<|im_start|>", "<|im_end|>"]
LATER = """
  - {kind: merge, name: merged, adapter: train, verify: logits}
  - {kind: evaluate, name: loss, benchmark: loss, models: [base, train, merged], generations: 1, max_new_tokens: 8}
"""
ROWS = "base_model.model.{}.token_adapter.trainable_tokens_delta"


def chatml_project(folder, steps=6, every=3, stages=""):
    config = write_project(folder, steps=steps, every=every)
    text = config.read_text().replace("format: codefuse, context: 128", f"format: chatml, context: 128, add_tokens: {json.dumps(CHATML)}")
    config.write_text(text + stages)
    return config


def run(config, overrides=(), resume="auto", **options):
    project = Project(load_project(config, list(overrides)), config, config.parent / "out", write_report, resume=resume)
    return {entry["name"]: entry["result"] for entry in run_project(project, **options)["stages"]}


@pytest.mark.slow
def test_a_chatml_project_trains_resumes_to_the_bit_merges_and_moves(tiny_base, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    config = chatml_project(tmp_path / "project", stages=LATER)
    results = run(config)
    out = config.parent / "out"
    assert results["merged"]["merged"] == 51
    assert results["merged"]["max_abs_diff"] <= results["merged"]["tolerance"]
    assert results["loss"]["overall"]["loss"]["train"] < results["loss"]["overall"]["loss"]["base"]
    (extended,) = [path for path in (out / ".base").iterdir() if path.is_dir()]
    base, merged = (load_file(folder / "model.safetensors") for folder in (extended, out / "merged"))
    adapter = load_file(out / "train" / "adapter" / "adapter_model.safetensors")
    for module in ("model.embed_tokens", "lm_head"):
        rows = adapter[ROWS.format(module)]
        assert (rows.shape, rows.dtype) == ((2, 256), torch.float32)
        assert torch.equal(merged[f"{module}.weight"][:4096], base[f"{module}.weight"][:4096])
        assert torch.equal(merged[f"{module}.weight"][4096:], rows.bfloat16())
        assert bool((rows != base[f"{module}.weight"][4096:].float()).any(dim=1).all())
    facts = json.loads((out / "train" / "adapter" / "mft.json").read_text())
    assert (facts["base"], facts["add_tokens"]) == ("tiny-code-llama", CHATML)
    assert json.loads((out / "merged" / "generation_config.json").read_text())["eos_token_id"] == [4097, 2]

    whole = (out / "train" / "adapter" / "adapter_model.safetensors").read_bytes()
    again = run(config, only="train", resume=str(out / "train" / "checkpoint-3"))
    assert again["train"]["resumed_from"].endswith("checkpoint-3")
    assert (out / "train" / "adapter" / "adapter_model.safetensors").read_bytes() == whole

    moved = shutil.move(out / "train" / "adapter", tmp_path / "moved")
    shutil.rmtree(out / ".base")
    model = load_model(moved)
    assert model.get_input_embeddings().weight.shape == (4098, 256)
    places = ["--base", "tiny-code-llama", "--adapter", str(moved), "--out", str(tmp_path / "merged")]
    subprocess.run([sys.executable, "-m", "mft", "-q", "merge", *places], check=True)
    assert (tmp_path / "merged" / "model.safetensors").read_bytes() == (out / "merged" / "model.safetensors").read_bytes()


def first_moments(folder, *options):
    """Adam's first moments after one step in float32, a tenth of the step's gradient, by the name of the parameter."""
    config = chatml_project(folder, steps=1, every=1)
    finish(config, "stages.train.quantization={type: none, compute_dtype: fp32}", "stages.train.adapter.dropout=0",
           "stages.train.training.micro_batch_rows=1", "stages.train.training.evaluate_every=0", "stages.train.training.warmup=0", *options)
    state = torch.load(config.parent / "out" / "train" / "checkpoint-1" / "optimizer.pt", weights_only=True)
    return {name: values["exp_avg"] for name, values in state["parameters"].items()}


@pytest.fixture(scope="module")
def moments_of_one_process(tiny_base, tmp_path_factory):
    return first_moments(tmp_path_factory.mktemp("moments") / "one")


@pytest.mark.slow
@pytest.mark.parametrize("engine", [["engine=ddp"], ["engine=deepspeed", "zero_stage=1"], ["engine=deepspeed", "zero_stage=2"]])
def test_rows_have_the_same_gradient_on_two_ranks(moments_of_one_process, tmp_path, engine):
    found = first_moments(tmp_path / "two", "--nproc", "2", *(f"stages.train.distributed.{setting}" for setting in engine))
    assert found.keys() == moments_of_one_process.keys()
    assert len([name for name in found if "trainable_tokens_delta" in name]) == 2
    for name, moment in moments_of_one_process.items():
        assert (found[name] - moment).norm() <= 1e-5 * moment.norm(), name


@pytest.mark.slow
def test_a_full_model_trains_all_rows_on_the_extended_base(tiny_base, tmp_path):
    config = chatml_project(tmp_path / "project", steps=2, every=0)
    run(config, ["stages.train.adapter={type: full}", "stages.train.quantization={type: none, compute_dtype: bf16}",
                 "stages.train.training.learning_rate=1e-3"], only="train")
    weights = load_file(config.parent / "out" / "train" / "adapter" / "model.safetensors")
    assert weights["model.embed_tokens.weight"].shape == (4098, 256)
    assert not torch.equal(weights["lm_head.weight"][:4096], load_file(tiny_base / "model.safetensors")["lm_head.weight"])


def test_without_the_tokens_the_format_is_refused_and_a_known_token_is_named(tiny_base, tmp_path):
    config = chatml_project(tmp_path / "project")
    with pytest.raises(TokenizerError, match=r"needs <\|im_end\|>, <\|im_start\|> as control tokens.*model\.add_tokens"):
        run(config, ["model.add_tokens=[]"], only="train")
    with pytest.raises(ModelError, match=r"model\.add_tokens: '</s>' is a control token already"):
        run(config, ["model.add_tokens=['</s>']"], only="train")
    with pytest.raises(ConfigError, match=r"add_tokens.*'im' *: a control token is at least two characters"):
        run(config, ["model.add_tokens=[im]"], only="train")


@pytest.mark.parametrize(("options", "said"), [
    ({"distributed": DistributedConfig(engine="fsdp"), "quantization": QuantizationConfig(type="none")},
     r"model\.add_tokens with distributed\.engine fsdp: PEFT does not train single rows"),
    ({"distributed": DistributedConfig(engine="deepspeed", zero_stage=3)}, r"deepspeed with zero_stage 3: PEFT does not train single rows"),
    ({"adapter": AdapterConfig(targets=["q_proj", "lm_head"])}, r"adapter\.targets: 'lm_head': with model\.add_tokens its new rows"),
])
def test_what_does_not_go_with_trained_rows_is_refused(tiny_base, tmp_path, options, said):
    base = extend_base(tiny_base, CHATML, tmp_path)
    parts = {"quantization": QuantizationConfig(), "adapter": AdapterConfig(), "distributed": DistributedConfig()} | options
    tokens = SimpleNamespace(task_names=["a"], train=[1], validation=[1], dropped=Counter())
    model = ModelConfig(base="tiny-code-llama", format="chatml", context=512, add_tokens=CHATML)

    def job(folder):
        return TrainJob(folder, model, tasks=TasksConfig(), training=TrainingConfig(), **parts)

    assert added_tokens(base)
    with pytest.raises(ConfigError, match=said):
        check_job(job(base), tokens, 1)
    check_job(job(tiny_base), tokens, 1)
