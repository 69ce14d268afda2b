"""Target names are checked on the base's config alone: no weights, near spellings named."""

import json

import pytest

from mft.errors import ModelError
from mft.modeling.adapters import add_adapter
from mft.modeling.base import read_model_config
from mft.modeling.config import AdapterConfig, QuantizationConfig
from mft.modeling.load import load_base
from mft.modeling.targets import base_layers, target_faults, targeted_modules

LLAMA = {"model_type": "llama", "vocab_size": 101, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2}
KNOWN = "linear layers: q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, lm_head"


@pytest.mark.parametrize("targets", ["all-linear", "release_2023", ["q_proj", "lm_head"], ["layers.1.self_attn.q_proj", "mlp.up_proj"]])
def test_names_of_linear_layers_fit(targets):
    assert target_faults(LLAMA, AdapterConfig(targets=targets)) == []


def test_every_name_that_is_no_linear_layer_is_refused_with_near_spellings():
    faults = target_faults(LLAMA, AdapterConfig(targets=["q_porj", "v_proj", "mlp", "norm", "wzzz"]))
    assert faults == [
        f"adapter.targets: 'q_porj' is not a module of this base; did you mean 'q_proj' or 'v_proj'?; {KNOWN}",
        f"adapter.targets: 'mlp' is a LlamaMLP, not a linear layer (model.layers.0.mlp); {KNOWN}",
        f"adapter.targets: 'norm' is a LlamaRMSNorm, not a linear layer (model.norm); {KNOWN}",
        f"adapter.targets: 'wzzz' is not a module of this base; {KNOWN}"]


def test_the_release_preset_is_refused_by_name_on_a_base_without_its_layers():
    faults = target_faults({"model_type": "gpt_neox", "num_hidden_layers": 1, "hidden_size": 64, "intermediate_size": 64,
                            "num_attention_heads": 4, "vocab_size": 100}, AdapterConfig(targets="release_2023"))
    assert len(faults) == 6
    assert faults[0].startswith("adapter.targets: release_2023: 'q_proj' is not a module of this base")
    assert "linear layers: query_key_value, dense" in faults[0]


def test_a_head_that_is_tied_to_the_embedding_is_refused():
    (fault,) = target_faults(LLAMA | {"tie_word_embeddings": True}, AdapterConfig(targets=["q_proj", "lm_head"]))
    assert "'lm_head'" in fault
    assert "tie_word_embeddings" in fault


def test_full_has_no_targets_to_check():
    assert target_faults({"model_type": "nothing"}, AdapterConfig(type="full")) == []


def test_a_base_that_transformers_does_not_know_is_one_message():
    with pytest.raises(ModelError, match="no causal language model can be built for model_type 'no_such_model'"):
        target_faults({"model_type": "no_such_model"}, AdapterConfig())


@pytest.mark.parametrize("targets", ["all-linear", "release_2023", ["q_proj", "layers.1.mlp.up_proj"]])
def test_the_named_modules_are_those_that_peft_adapts(tiny_base, targets):
    config = AdapterConfig(rank=2, targets=targets)
    model = add_adapter(load_base(tiny_base, QuantizationConfig(type="none")), config, seed=1)
    adapted = [name.removeprefix("base_model.model.").removesuffix(".lora_A.default.weight")
               for name, _ in model.named_parameters() if "lora_A" in name]
    assert sorted(targeted_modules(base_layers(read_model_config(tiny_base)), config)) == sorted(adapted)


def test_the_written_names_are_in_order(tiny_base, tmp_path):
    """Whatever the hash seed of the process: two runs write the same bytes."""
    add_adapter(load_base(tiny_base, QuantizationConfig(type="none")), AdapterConfig(rank=2), seed=1).save_pretrained(tmp_path)
    names = json.loads((tmp_path / "adapter_config.json").read_text())["target_modules"]
    assert names == ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]


def test_a_34b_shape_is_checked_without_memory_for_its_weights():
    layers = base_layers(LLAMA | {"vocab_size": 32000, "hidden_size": 8192, "intermediate_size": 22016, "num_hidden_layers": 48,
                                  "num_attention_heads": 64, "num_key_value_heads": 8})
    assert len(layers.linear) == 48 * 7 + 1
    assert layers.head == "lm_head"
