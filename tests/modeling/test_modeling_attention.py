"""Which attention a model gets: one that keeps packed samples apart, proved on the device; law 5."""

import json

import pytest
import torch
from transformers import LlamaForCausalLM

import mft.modeling.attention as attention
from mft.errors import ModelError
from mft.modeling.attention import LENGTHS, TOLERANCES, choose_attention, leak, probe_model
from mft.modeling.config import ModelConfig, QuantizationConfig
from mft.modeling.load import load_base

CPU = torch.device("cpu")
BASE = {"num_attention_heads": 8, "num_key_value_heads": 2, "hidden_size": 256}
SHAPE = (4, 2, 32)
"""Query heads a key head, key heads, head size: of `BASE`."""


class SeesAll(LlamaForCausalLM):
    """With a mask of ones, transformers does not look for packed samples."""

    def forward(self, input_ids=None, **options):
        return super().forward(input_ids=input_ids, attention_mask=torch.ones_like(input_ids), **options)


class KeepsACache(LlamaForCausalLM):
    """With a cache, neither."""

    def forward(self, *args, use_cache=None, **options):
        return super().forward(*args, use_cache=True, **options)


class FirstTokenSeesOneMore(LlamaForCausalLM):
    """The first token of the second sample takes its place, 0, in the sample before: a boundary that is off by one."""

    def forward(self, input_ids=None, position_ids=None, **options):
        starts = (position_ids[0] == 0).nonzero()[:, 0].tolist()
        if len(starts) > 1:
            position_ids = position_ids.clone()
            position_ids[0, starts[1]] = starts[1]
        return super().forward(input_ids=input_ids, position_ids=position_ids, **options)


@pytest.fixture(autouse=True)
def nothing_tested_before():
    attention._fault.cache_clear()
    yield
    attention._fault.cache_clear()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["sdpa", "eager"])
def test_packed_samples_are_apart_to_rounding(name, dtype):
    found = leak(probe_model(name, CPU, dtype, SHAPE), LENGTHS["cpu"])
    assert found < {torch.float32: 5e-6, torch.bfloat16: 0.02, torch.float16: 0.003}[dtype]
    assert found < TOLERANCES[dtype] / 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("leaking", [SeesAll, KeepsACache, FirstTokenSeesOneMore])
def test_samples_that_see_each_other_are_found(leaking, dtype):
    model = probe_model("sdpa", CPU, dtype, SHAPE)
    model.__class__ = leaking
    assert leak(model, LENGTHS["cpu"]) > 2 * TOLERANCES[dtype]


def test_a_gradient_that_leaks_behind_right_logits_is_found():
    """As a kernel would whose backward pass alone forgets the boundaries."""

    class WrongBackward(LlamaForCausalLM):
        def forward(self, input_ids=None, position_ids=None, **options):
            output = super().forward(input_ids=input_ids, position_ids=position_ids, **options)
            wrong = super().forward(input_ids=input_ids, attention_mask=torch.ones_like(input_ids), **options)
            output.logits = output.logits.detach() + wrong.logits - wrong.logits.detach()
            return output

    model = probe_model("sdpa", CPU, torch.float32, SHAPE)
    model.__class__ = WrongBackward
    assert leak(model, LENGTHS["cpu"]) > 0.5


def test_a_cpu_gets_sdpa_and_what_is_named_is_taken():
    assert choose_attention(BASE, CPU, torch.bfloat16) == "sdpa"
    assert choose_attention(BASE, CPU, torch.bfloat16, "eager") == "eager"


def test_auto_passes_over_one_that_leaks_or_fails_and_says_so(monkeypatch, caplog):
    built = attention.probe_model

    def one_leaks(name, *args):
        model = built(name, *args)
        model.__class__ = SeesAll if name == "sdpa" else LlamaForCausalLM
        return model

    monkeypatch.setattr(attention, "probe_model", one_leaks)
    assert choose_attention(BASE, CPU, torch.float32) == "eager"
    assert "attention sdpa: packed samples see each other on cpu: logits or gradients differ by 1." in caplog.text
    with pytest.raises(ModelError, match=r"^model\.attention sdpa: packed samples see each other on cpu: .* 0\.0001 is allowed in float32; "
                                         "use attention: auto$"):
        choose_attention(BASE, CPU, torch.float32, "sdpa")


def test_a_kernel_that_fails_on_this_head_size_is_passed_over(monkeypatch):
    built = attention.probe_model

    def one_fails(name, *args):
        if name == "sdpa":
            raise RuntimeError("head_size should be a multiple of 8\nmore")
        return built(name, *args)

    monkeypatch.setattr(attention, "probe_model", one_fails)
    assert choose_attention(BASE, CPU, torch.float32) == "eager"
    with pytest.raises(ModelError, match="does not run on cpu with heads of 32: RuntimeError: head_size should be a multiple of 8; use"):
        choose_attention(BASE, CPU, torch.float32, "sdpa")


@pytest.mark.parametrize(("name", "reason"), [
    ("flash_attention_2", "runs on CUDA in bf16 and fp16 alone, not on cpu in bfloat16"),
    ("flex_attention", "has no backward pass on a CPU")])
def test_what_cannot_run_here_is_refused_with_the_reason(name, reason):
    with pytest.raises(ModelError, match=f"model.attention {name}: {reason}; use attention: auto"):
        choose_attention(BASE, CPU, torch.bfloat16, name)


def test_flash_attention_is_taken_on_cuda_where_it_is_installed_and_passes(monkeypatch):
    """The choice alone: no CUDA device is needed, the test of each candidate is replaced by its result."""
    present = {"flash_attention_2"}
    monkeypatch.setattr(attention, "is_flash_attn_2_available", lambda: "flash_attention_2" in present)
    monkeypatch.setattr(attention, "is_flash_attn_3_available", lambda: "flash_attention_3" in present)
    monkeypatch.setattr(attention, "probe_model", lambda name, *_: name)
    leaks = {}
    monkeypatch.setattr(attention, "leak", lambda model, lengths: leaks.get(model, 0.01))
    cuda = torch.device("cuda", 0)

    def chosen(dtype=torch.bfloat16):
        attention._fault.cache_clear()
        return choose_attention(BASE, cuda, dtype)

    assert chosen() == "flash_attention_2"
    present.add("flash_attention_3")
    assert chosen() == "flash_attention_3"
    leaks["flash_attention_3"] = 1.4
    assert chosen() == "flash_attention_2"
    leaks["flash_attention_2"] = float("nan")
    assert chosen() == "sdpa"
    leaks.clear()
    with pytest.raises(ModelError, match="no attention implementation can be used on cuda:0: flash_attention_3: runs on CUDA in bf16"):
        chosen(torch.float32)   # 0.01 is no rounding in float32


def test_the_test_leaves_the_random_numbers_alone_and_runs_once_a_process(monkeypatch):
    calls = []
    measured = attention.leak
    monkeypatch.setattr(attention, "leak", lambda *args: calls.append(1) or measured(*args))
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    choose_attention(BASE, CPU, torch.float32)
    choose_attention(BASE | {"head_dim": 32}, CPU, torch.float32)
    assert torch.equal(torch.rand(3), wanted)
    assert len(calls) == 1


def test_a_base_is_loaded_with_the_attention_that_the_config_names(small_llama):
    plain = QuantizationConfig(type="none", compute_dtype="fp32")
    assert ModelConfig(base="x", format="codefuse").attention == "auto"
    assert load_base(small_llama, plain).config._attn_implementation == "sdpa"
    assert load_base(small_llama, plain, attention="eager").config._attn_implementation == "eager"


def test_a_base_without_heads_is_refused(small_llama):
    config = json.loads((small_llama / "config.json").read_text())
    del config["num_attention_heads"]
    with pytest.raises(ModelError, match="has no num_attention_heads"):
        choose_attention(config, CPU, torch.float32)
