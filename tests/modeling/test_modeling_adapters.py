"""Kinds of adapters: what trains, in which type, with which scale; and going on with an earlier one."""

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from mft.errors import ModelError
from mft.modeling.adapters import add_adapter, load_adapter, quantization_of_base, save_trained
from mft.modeling.config import AdapterConfig, QuantizationConfig, adapter_faults
from mft.modeling.load import load_base
from mft.modeling.start import load_start, start_faults

SHAPE = {"vocab_size": 101, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2}
IDS = torch.arange(40, 60).unsqueeze(0)


def base(dtype=torch.bfloat16):
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SHAPE)).to(dtype).requires_grad_(False).eval()


def config_of_base():
    return LlamaConfig(**SHAPE).to_dict()


def adapted(kind, dtype=torch.float32, **options):
    """With B drawn at random and DoRA's magnitudes changed, so that the adapter says something."""
    model = add_adapter(base(dtype), AdapterConfig(type=kind, rank=4, alpha=8, **options), seed=1)
    torch.manual_seed(5)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
        elif "magnitude" in name:
            parameter.data.mul_(1.5)
    return model.eval()


def layer_zero_q(model):
    """W, A, B of the first query projection, and the DoRA magnitude where there is one."""
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    magnitude = layer.lora_magnitude_vector["default"].weight if layer.lora_magnitude_vector else None
    return layer, layer.base_layer.weight, layer.lora_A["default"].weight, layer.lora_B["default"].weight, magnitude


@pytest.mark.parametrize(("kind", "scale"), [("lora", 2.0), ("rslora", 4.0)])
def test_the_update_is_scaled_by_the_kinds_rule(kind, scale):
    layer, weight, a, b, _ = layer_zero_q(adapted(kind))
    x = torch.randn(3, 32)
    torch.testing.assert_close(layer(x), x @ (weight + scale * b @ a).T)


def test_dora_gives_every_row_of_the_sum_its_trained_length():
    layer, weight, a, b, magnitude = layer_zero_q(adapted("dora"))
    torch.testing.assert_close(magnitude, 1.5 * weight.norm(dim=1))
    x, total = torch.randn(3, 32), weight + 2.0 * b @ a
    torch.testing.assert_close(layer(x), x @ (magnitude[:, None] * total / total.norm(dim=1, keepdim=True)).T)


@pytest.mark.parametrize(("kind", "tensors_per_layer"), [("lora", 2), ("rslora", 2), ("dora", 3)])
def test_only_the_adapter_trains_and_in_float32_on_a_bf16_base(kind, tensors_per_layer):
    trained = {name: p for name, p in adapted(kind, torch.bfloat16).named_parameters() if p.requires_grad}
    assert len(trained) == tensors_per_layer * 7 * 2
    assert all("lora_" in name and p.dtype == torch.float32 for name, p in trained.items())


def test_on_an_nf4_base_doras_magnitudes_are_float32_and_get_gradients(tiny_base):
    model = add_adapter(load_base(tiny_base, QuantizationConfig()), AdapterConfig(type="dora", rank=2, dropout=0.0,
                                                                                 targets=["q_proj"]), seed=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(input_ids=IDS, labels=IDS, use_cache=False).loss.backward()
    magnitudes = [p for name, p in model.named_parameters() if "magnitude" in name]
    assert len(magnitudes) == 7
    assert all(p.dtype == torch.float32 and p.grad is not None and bool(p.grad.any()) for p in magnitudes)


def test_release_2023_leaves_the_key_projection_out():
    model = add_adapter(base(), AdapterConfig(rank=2, targets="release_2023"), seed=1)
    layers = {name.split(".lora_")[0].rsplit(".", 1)[-1] for name, p in model.named_parameters() if p.requires_grad}
    assert layers == {"q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_full_trains_every_weight_as_a_float32_master():
    model = add_adapter(base(), AdapterConfig(type="full"), seed=1)
    assert all(p.requires_grad and p.dtype == torch.float32 for p in model.parameters())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(input_ids=IDS, labels=IDS, use_cache=False).loss.backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())


def test_a_full_model_is_written_in_the_compute_dtype_and_loads_in_plain_transformers(tmp_path):
    model = add_adapter(base(torch.float32), AdapterConfig(type="full"), seed=1)
    weights = {name: p.detach() + 1e-3 for name, p in model.named_parameters()}
    save_trained(model, weights, QuantizationConfig(type="none", compute_dtype="bf16"), tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert loaded.config.dtype == torch.bfloat16
    assert all(p.dtype == torch.bfloat16 and torch.equal(p, weights[name].bfloat16()) for name, p in loaded.named_parameters())


def test_an_adapter_is_written_in_float32_from_the_given_weights(tmp_path):
    model = adapted("dora", torch.bfloat16)
    weights = {name: p.detach() * 2 for name, p in model.named_parameters() if p.requires_grad}
    save_trained(model, weights, QuantizationConfig(type="none"), tmp_path)
    loaded = load_adapter(base(), tmp_path)
    found = {name: p for name, p in loaded.named_parameters() if name in weights}
    assert len(found) == 3 * 7 * 2
    assert all(p.dtype == torch.float32 and torch.equal(p, weights[name]) for name, p in found.items())


def test_full_on_a_quantised_base_is_refused_in_the_config_and_in_the_model(tiny_base):
    full = AdapterConfig(type="full")
    assert adapter_faults(full, QuantizationConfig(type="none")) == []
    assert adapter_faults(AdapterConfig(), QuantizationConfig()) == []
    (fault,) = adapter_faults(full, QuantizationConfig())
    assert "adapter.type is full" in fault
    assert "quantization.type is nf4" in fault
    (fault,) = adapter_faults(full, QuantizationConfig(type="none", compute_dtype="fp16"))
    assert "compute_dtype fp16" in fault
    with pytest.raises(ModelError, match="base that is not quantised"):
        add_adapter(load_base(tiny_base, QuantizationConfig()), full, seed=1)


def test_options_that_would_not_act_are_refused():
    with pytest.raises(ValidationError, match="rank, dropout: not used with type: full"):
        AdapterConfig(type="full", rank=8, dropout=0.1)
    with pytest.raises(ValidationError, match="targets is an empty list"):
        AdapterConfig(targets=[])
    with pytest.raises(ValidationError, match="targets names q_proj more than once"):
        AdapterConfig(targets=["q_proj", "v_proj", "q_proj"])
    assert AdapterConfig.model_validate(AdapterConfig(type="full").model_dump()).type == "full"


@pytest.mark.parametrize("kind", ["lora", "rslora", "dora"])
def test_a_started_adapter_has_the_earlier_weights_trainable_in_float32_and_its_own_dropout(tmp_path, kind):
    earlier = adapted(kind)
    earlier.save_pretrained(tmp_path / "a")
    config = AdapterConfig(type=kind, rank=4, alpha=8, dropout=0.25)
    assert start_faults(tmp_path / "a", config, config_of_base()) == []
    model = add_adapter(base(torch.bfloat16), config, seed=9, start=tmp_path / "a")
    before = {name: p for name, p in earlier.named_parameters() if "lora_" in name}
    after = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert before.keys() == after.keys()
    assert all(p.dtype == torch.float32 and torch.equal(p, before[name]) for name, p in after.items())
    assert model.base_model.model.model.layers[0].self_attn.q_proj.lora_dropout["default"].p == 0.25


@pytest.mark.parametrize("tied", [False, True])
def test_all_weights_of_a_full_model_are_gone_on_with(tmp_path, tied):
    def full():
        torch.manual_seed(0)
        return add_adapter(LlamaForCausalLM(LlamaConfig(**SHAPE, tie_word_embeddings=tied)), AdapterConfig(type="full"), seed=1)

    earlier, model = full(), full()
    with torch.no_grad():
        for parameter in earlier.parameters():
            parameter.add_(torch.randn_like(parameter))
    earlier.save_pretrained(tmp_path / "m", max_shard_size="20KB")
    load_start(model, tmp_path / "m")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), earlier.parameters(), strict=True))
    assert model.lm_head.weight is model.model.embed_tokens.weight or not tied
    (tmp_path / "m" / "model.safetensors.index.json").unlink()
    for path in sorted((tmp_path / "m").glob("model-*"))[1:]:
        path.unlink()
    with pytest.raises(ModelError, match="missing, too many or of another shape"):
        load_start(model, tmp_path / "m")


def test_every_difference_from_the_earlier_adapter_is_named(tmp_path):
    adapted("lora").save_pretrained(tmp_path / "a")
    asked = AdapterConfig(type="rslora", rank=8, alpha=16, targets=["q_proj", "lm_head"])
    kind, rank, alpha, new, left = start_faults(tmp_path / "a", asked, config_of_base())
    assert "adapter.type is rslora" in kind
    assert kind.endswith("was trained with type lora")
    assert rank.endswith("was trained with rank 4")
    assert alpha.endswith("was trained with alpha 8")
    assert "lm_head, which it does not have" in new
    assert "model.layers.0.mlp.down_proj, model.layers.0.mlp.gate_proj, model.layers.0.mlp.up_proj and 9 more" in left
    assert "which adapter.targets leaves out" in left
    with pytest.raises(ModelError, match="does not hold the weights that this run trains"):
        add_adapter(base(), AdapterConfig(rank=4, targets=["q_proj"]), seed=1, start=tmp_path / "a")
    with pytest.raises(ModelError, match="of another shape"):
        add_adapter(base(), AdapterConfig(rank=2), seed=1, start=tmp_path / "a")


def test_an_adapter_of_another_base_is_refused_by_file(tmp_path):
    adapted("lora").save_pretrained(tmp_path / "a")
    (tmp_path / "a" / "mft.json").write_text('{"base_files": {"config.json": "11", "model.safetensors": "22"}}')
    config = AdapterConfig(rank=4, alpha=8)
    assert start_faults(tmp_path / "a", config, config_of_base(), {"config.json": "11", "model.safetensors": "22"}) == []
    (fault,) = start_faults(tmp_path / "a", config, config_of_base(), {"config.json": "11", "model.safetensors": "23"})
    assert "was trained on another base: model.safetensors differ" in fault


def test_only_full_asks_for_the_base_in_float32():
    given = QuantizationConfig(type="none", compute_dtype="bf16")
    assert quantization_of_base(AdapterConfig(), given) == given
    assert quantization_of_base(AdapterConfig(type="full"), given) == QuantizationConfig(type="none", compute_dtype="fp32")


def test_a_start_that_is_no_adapter_and_full_with_a_start_are_refused(tmp_path):
    with pytest.raises(ModelError, match="it is no adapter to go on with"):
        start_faults(tmp_path, AdapterConfig(), config_of_base())
    assert "adapter.type is full" in start_faults(tmp_path, AdapterConfig(type="full"), config_of_base())[0]
    with pytest.raises(ModelError, match="merge it, and train the merged model"):
        add_adapter(base(), AdapterConfig(type="full"), seed=1, start=tmp_path)
