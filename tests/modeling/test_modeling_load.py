"""Loading in 4 bit: what is quantised, what trains, and that an evaluation does not change the gradients."""

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from bitsandbytes.nn import Linear4bit
from transformers import LlamaConfig, LlamaForCausalLM

from mft.errors import ModelError
from mft.modeling.adapters import add_adapter
from mft.modeling.base import check_context, resolve_base
from mft.modeling.compute import _tell_of_float32, computes_in, cpu_has_bf16
from mft.modeling.config import AdapterConfig, QuantizationConfig
from mft.modeling.load import _reads_back, load_base


@pytest.fixture(scope="module")
def nf4_model(tiny_base):
    model = load_base(tiny_base, QuantizationConfig())
    peft_model = add_adapter(model, AdapterConfig(rank=4, alpha=8, dropout=0.0), seed=1)
    torch.manual_seed(2)
    for name, parameter in peft_model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return peft_model


def gradients(model):
    model.train()
    model.zero_grad()
    ids = torch.arange(100, 164).unsqueeze(0)
    model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


def test_the_layers_are_nf4_and_only_float32_adapter_weights_train(nf4_model):
    linears = [module for module in nf4_model.modules() if type(module) is Linear4bit]
    assert len(linears) == 7 * 7
    assert {module.weight.quant_state.quant_type for module in linears} == {"nf4"}
    assert all(module.weight.quant_state.nested for module in linears)
    trained = {name: p for name, p in nf4_model.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * 7 * 7
    assert all("lora_" in name and p.dtype == torch.float32 for name, p in trained.items())
    assert nf4_model.get_output_embeddings().weight.dtype == computes_in("bf16")


def test_an_evaluation_in_between_does_not_change_the_gradients(nf4_model):
    before = gradients(nf4_model)
    nf4_model.eval()
    with torch.no_grad():
        nf4_model(input_ids=torch.arange(5, 40).unsqueeze(0), use_cache=False)
    after = gradients(nf4_model)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_same_seed_gives_the_same_first_adapter_whatever_was_drawn_before(tiny_base):
    weights = []
    for draws in (0, 5):
        model = load_base(tiny_base, QuantizationConfig(type="none", compute_dtype="fp32"))
        torch.rand(draws)
        adapter = add_adapter(model, AdapterConfig(rank=2), seed=9)
        weights.append(torch.cat([p.flatten() for p in adapter.parameters() if p.requires_grad]))
    assert torch.equal(*weights)


def test_bad_bases_are_one_clear_message(tiny_base, tmp_path):
    with pytest.raises(ModelError, match="no such folder; built-in bases: tiny-code-llama"):
        resolve_base("./nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"has no config\.json"):
        resolve_base(str(tmp_path / "empty"))
    with pytest.raises(ModelError, match="at most 2048 tokens"):
        check_context(tiny_base, 4096)
    model = load_base(tiny_base, QuantizationConfig(type="none"))
    with pytest.raises(ModelError, match=r"adapter\.targets"):
        add_adapter(model, AdapterConfig(targets=["no_such_layer"]), seed=1)


def test_bf16_is_computed_in_float32_where_a_cpu_has_no_bf16_arithmetic(monkeypatch, caplog):
    has = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    assert cpu_has_bf16() == has
    assert computes_in("bf16", torch.device("cpu")) == (torch.bfloat16 if has else torch.float32)
    assert computes_in("bf16", torch.device("cuda")) == torch.bfloat16
    assert computes_in("fp16", torch.device("cpu")) == torch.float16
    monkeypatch.setattr("mft.modeling.compute.cpu_has_bf16", lambda: False)
    _tell_of_float32.cache_clear()
    assert [computes_in("bf16", torch.device("cpu")) for _ in range(2)] == [torch.float32] * 2
    assert [record.getMessage() for record in caplog.records] == [
        "this CPU has no bf16 arithmetic (no AVX512): what bf16 is asked for is computed in float32"]


def test_rows_that_the_cpu_misreads_in_4_bit_are_refused(tmp_path, monkeypatch):
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=64, hidden_size=96, intermediate_size=192, num_hidden_layers=1, num_attention_heads=4,
                         num_key_value_heads=4)
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    monkeypatch.setattr("mft.modeling.load._reads_back", lambda width: width != 96)
    with pytest.raises(ModelError, match=r"layers with 96 inputs, which is no multiple of 64; .* misreads such rows"):
        load_base(tmp_path, QuantizationConfig(type="nf4", compute_dtype="fp32"))
    load_base(tmp_path, QuantizationConfig(type="none", compute_dtype="fp32"))


@pytest.mark.parametrize("width", [64, 96, 100, 128, 160, 704])
def test_a_width_passes_only_if_random_weights_come_back_from_nf4(width):
    torch.manual_seed(0)
    weight = torch.randn(32, width)
    back = dequantize_4bit(*quantize_4bit(weight, blocksize=64, quant_type="nf4"))
    assert _reads_back(width) == bool((back - weight).norm() / weight.norm() < 0.12)
