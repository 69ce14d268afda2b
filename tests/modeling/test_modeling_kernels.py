"""Compiled layers and Liger's kernels compute what transformers' own layers compute; and what cannot run is refused by name."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from training.small_model import small_model
from transformers import LlamaForCausalLM
from transformers.models.llama import modeling_llama

from mft.errors import ModelError
from mft.modeling.attention import leak, probe_model
from mft.modeling.kernels import FusedKernels, compile_layers, kernel_faults
from mft.modeling.recompute import every
from mft.modeling.recompute_layers import recompute_layers

LLAMA = {"model_type": "llama", "hidden_act": "silu"}
TOLERANCE = 1e-5
"""Relative, float32. Measured: 1e-6."""


def step(model, lengths, seed=3):
    """Loss and every adapter gradient of samples of these lengths in one row, with dropout."""
    ids = torch.randint(0, 101, (1, sum(lengths)), generator=torch.Generator().manual_seed(sum(lengths)))
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    torch.manual_seed(seed)
    model.zero_grad()
    loss = -model(input_ids=ids, position_ids=positions, labels=ids, use_cache=False, fused_lm_head=True).log_probs.mean()
    loss.backward()
    return loss.item(), {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.requires_grad}


@pytest.mark.law
@pytest.mark.slow
def test_compiled_layers_give_the_loss_and_gradients_of_eager_ones_with_dropout_and_recomputation_under_the_same_names():
    rows = ([9, 14, 6], [5, 12])
    eager = [step(small_model(dropout=0.2).train(), lengths) for lengths in rows]
    kernels = FusedKernels(compiled=True)
    for level in ("keep", "full"):
        model = small_model(dropout=0.2).train()
        names = list(model.state_dict())
        kernels.apply(model)
        recompute_layers(model, every(level, 2))
        for lengths, (loss, gradients) in zip(rows, eager, strict=True):
            found_loss, found = step(model, lengths)
            assert found_loss == pytest.approx(loss, rel=TOLERANCE)
            assert len(found) == 28
            for name, gradient in gradients.items():
                assert (found[name] - gradient).norm() <= TOLERANCE * gradient.norm() > 0, name
        assert list(model.state_dict()) == names
        assert step(model, rows[0], seed=4)[0] != pytest.approx(eager[0][0], rel=1e-4)   # dropout is on
    facts = kernels.to_json()
    assert facts["graphs"] > 0
    assert facts["graph_breaks"] == 0


@pytest.mark.slow
def test_samples_of_a_packed_row_do_not_see_each_other_in_compiled_layers():
    model = probe_model("sdpa", torch.device("cpu"), torch.float32, (2, 2, 16))
    compile_layers(model)
    assert leak(model, (23, 40, 17)) <= 1e-4


def test_generation_with_a_cache_gives_the_same_ids_and_compiles_nothing():
    model = probe_model("sdpa", torch.device("cpu"), torch.float32, (2, 2, 16))
    ids = torch.arange(5, 17)[None]
    plain = model.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=0).tolist()
    kernels = FusedKernels(compiled=True)
    kernels.apply(model)
    assert model.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=0).tolist() == plain
    assert kernels.to_json()["graphs"] == 0


def test_a_model_without_layers_cannot_be_compiled():
    with pytest.raises(ModelError, match=r"Linear has no layers that can be compiled; set training\.kernels\.compile: false"):
        compile_layers(torch.nn.Linear(2, 2))


def test_liger_is_refused_on_a_cpu_and_for_other_bases_and_activations():
    assert kernel_faults((), {"model_type": "gpt2"}, "cpu") == []
    assert kernel_faults(("norms", "mlp"), LLAMA, "cpu") == [
        "training.kernels: norms, mlp: liger: its kernels run on CUDA, and this machine has no CUDA device; use torch, or kernels: "
        "{compile: true}"]
    kind, activation, _ = kernel_faults(("mlp",), {"model_type": "gpt2", "hidden_act": "gelu"}, "cpu")
    assert kind == "training.kernels: mlp: liger: not for a base of model_type 'gpt2'; for llama, mistral, qwen2, qwen3; use torch"
    assert activation == "training.kernels: mlp: liger: the base's hidden_act is 'gelu', and Liger's SwiGLU is of silu; use mlp: torch"


@pytest.mark.parametrize(("there", "missing"), [((), "triton"), (("triton",), "liger-kernel")])
def test_liger_without_its_packages_is_refused_and_nothing_is_fetched(there, missing, monkeypatch):
    monkeypatch.setattr("mft.modeling.kernels.find_spec", lambda name: object() if name in there else None)
    assert kernel_faults(("rope",), LLAMA, "cuda") == [
        f"training.kernels: rope: liger: needs the package '{missing}', which is not installed; run: pip install liger-kernel; "
        "or use torch"]


def test_no_kernels_leave_a_model_and_transformers_as_they_are():
    before = dict(vars(modeling_llama))
    model = probe_model("sdpa", torch.device("cpu"), torch.float32, (2, 2, 16))
    assert isinstance(model, LlamaForCausalLM)
    with FusedKernels(compiled=False) as kernels:
        kernels.apply(model)
    assert "forward" not in vars(model.model.layers[0])
    assert vars(modeling_llama) == before
    assert kernels.to_json() == {"compile": False, "liger": []}


@pytest.mark.parametrize("part", ["norms", "rope", "mlp"])
def test_each_of_ligers_kernels_gives_torchs_logits_and_gradients_by_tritons_interpreter(part):
    pytest.importorskip("triton", reason="triton is not installed: Liger's kernels cannot be interpreted")
    pytest.importorskip("liger_kernel", reason="liger-kernel is not installed")
    worker = Path(__file__).with_name("liger_worker.py")
    done = subprocess.run([sys.executable, str(worker), part], capture_output=True, text=True, check=False,
                          env={**os.environ, "TRITON_INTERPRET": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["launches"] > 0
    assert seen["logits"] <= TOLERANCE
    assert seen["gradient"] <= TOLERANCE
    assert seen["names_restored"]
