"""An adapter is read as pairs with the right scale; whatever else PEFT can write is refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from merging_folders import lora_tensors, write_adapter, write_flat_model
from peft import LoraConfig

from mft.errors import ModelError
from mft.merging.changes import Changes
from mft.merging.lora import LoraAdapter
from mft.merging.plan import plan_merge
from mft.merging.reader import open_model

Q = "base_model.model.model.layers.0.self_attn.q_proj"


def test_pairs_are_named_by_the_base_tensor_and_scaled_by_alpha_over_rank(lora: Path) -> None:
    with LoraAdapter(lora) as adapter:
        assert len(adapter.pairs) == 14
        pair = adapter.pairs["model.layers.0.self_attn.q_proj.weight"]
        assert pair.scale == 2.0
        a, b = adapter.read(pair.a), adapter.read(pair.b)
    assert torch.equal(a, lora_tensors()[f"{Q}.lora_A.weight"])
    assert torch.equal(b, lora_tensors()[f"{Q}.lora_B.weight"])


def test_rank_stabilised_lora_is_scaled_by_alpha_over_the_root_of_the_rank(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "a", lora_tensors(rank=16), r=16, lora_alpha=8, use_rslora=True)
    with LoraAdapter(folder) as adapter:
        assert {pair.scale for pair in adapter.pairs.values()} == {2.0}


def test_a_config_as_peft_writes_it_is_accepted(tmp_path: Path) -> None:
    write_adapter(tmp_path / "a")
    LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM").save_pretrained(tmp_path / "a")
    with LoraAdapter(tmp_path / "a") as adapter:
        assert len(adapter.pairs) == 14


@pytest.mark.parametrize(("key", "value"), [
    ("bias", "all"), ("bias", "lora_only"), ("lora_bias", True), ("trainable_token_indices", [1]),
    ("target_parameters", ["experts"]), ("layer_replication", [[0, 1]]), ("alora_invocation_tokens", [1]), ("use_qalora", True),
    ("megatron_config", {"a": 1}), ("loftq_config", {"loftq_bits": 4}), ("something_new", True)])
def test_more_than_plain_lora_is_refused_by_name(tmp_path: Path, key: str, value: Any) -> None:
    with pytest.raises(ModelError, match=rf"adapter_config.json: .*{key}="):
        LoraAdapter(write_adapter(tmp_path / "a", **{key: value}))


@pytest.mark.parametrize("init", ["pissa", "pissa_niter_4", "olora", "corda", "loftq", "lora_ga"])
def test_initialisations_that_change_the_base_are_refused(tmp_path: Path, init: str) -> None:
    with pytest.raises(ModelError, match=f"init_lora_weights is '{init}', which changes the base weights"):
        LoraAdapter(write_adapter(tmp_path / "a", init_lora_weights=init))


@pytest.mark.parametrize("kind", ["IA3", "PREFIX_TUNING", None])
def test_adapters_of_another_type_are_refused(tmp_path: Path, kind: str | None) -> None:
    with pytest.raises(ModelError, match="only LORA adapters are merged"):
        LoraAdapter(write_adapter(tmp_path / "a", peft_type=kind))


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"r": 0, "lora_alpha": 1}', '{"r": 8, "lora_alpha": "x"}'])
def test_a_damaged_config_is_refused(tmp_path: Path, text: str) -> None:
    write_adapter(tmp_path / "a")
    (tmp_path / "a" / "adapter_config.json").write_text(text)
    with pytest.raises(ModelError, match=r"adapter_config\.json"):
        LoraAdapter(tmp_path / "a")


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no adapter_config\.json"):
        LoraAdapter(tmp_path)
    folder = write_adapter(tmp_path / "a")
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"has no adapter_model\.safetensors"):
        LoraAdapter(folder)
    (folder / "adapter_model.bin").touch()
    with pytest.raises(ModelError, match=r"only adapter_model\.bin; save the adapter as safetensors"):
        LoraAdapter(folder)


@pytest.mark.parametrize("name", [f"{Q}.lora_magnitude_vector", f"{Q}.lora_C.weight", "base_model.model.model.norm.weight",
                                  "model.layers.0.self_attn.q_proj.lora_A.weight"])
def test_a_tensor_that_is_no_lora_matrix_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match=f"tensor '{name}' is no LoRA matrix"):
        LoraAdapter(write_adapter(tmp_path / "a", {name: torch.ones(8, 8), **lora_tensors()}))


def test_half_a_pair_is_refused(tmp_path: Path) -> None:
    tensors = lora_tensors()
    del tensors[f"{Q}.lora_B.weight"]
    with pytest.raises(ModelError, match=r"q_proj.lora_B.weight' is missing"):
        LoraAdapter(write_adapter(tmp_path / "a", tensors))


def test_a_rank_other_than_the_configs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"rank 4 asks for \[4, in\] and \[out, 4\]"):
        LoraAdapter(write_adapter(tmp_path / "a", r=4))


def check(adapter: Path, base: Path, **config: Any) -> int:
    with open_model(base) as weights, LoraAdapter(adapter) as lora:
        described = json.loads((base / "config.json").read_text()) | config
        changes = Changes([lora])
        changes.fit(plan_merge(weights, changes, described).tensors, described)
        return len(lora.pairs)


def test_a_matching_adapter_fits(lora: Path, llama: Path) -> None:
    assert check(lora, llama) == 14


def test_targets_that_the_base_lacks_and_wrong_shapes_are_all_named(tmp_path: Path, llama: Path) -> None:
    tensors = lora_tensors()
    tensors[f"{Q}.lora_B.weight"] = torch.ones(65, 8)
    for end in ("A", "B"):
        tensors[f"base_model.model.model.layers.7.mlp.up_proj.lora_{end}.weight"] = torch.ones(8, 8)
    with pytest.raises(ModelError) as error:
        check(write_adapter(tmp_path / "a", tensors), llama)
    assert "'model.layers.0.self_attn.q_proj.weight' is [64, 64] in the base, [65, 64] in the adapter" in str(error.value)
    assert "'model.layers.7.mlp.up_proj.weight' is not a tensor of the base" in str(error.value)


def test_an_adapter_that_changes_nothing_is_refused(tmp_path: Path, llama: Path) -> None:
    zero = {name: tensor * 0 if "lora_B" in name else tensor for name, tensor in lora_tensors().items()}
    with pytest.raises(ModelError, match="every delta is zero"):
        check(write_adapter(tmp_path / "zero", zero), llama)
    with pytest.raises(ModelError, match="every delta is zero"):
        check(write_adapter(tmp_path / "alpha", lora_alpha=0), llama)


def test_values_that_are_not_finite_are_refused_by_tensor(tmp_path: Path, llama: Path) -> None:
    tensors = lora_tensors()
    tensors[f"{Q}.lora_A.weight"][3, 3] = float("nan")
    with pytest.raises(ModelError, match=r"q_proj.lora_A.weight' has values that are not finite"):
        check(write_adapter(tmp_path / "a", tensors), llama)


def test_a_tied_head_and_quantised_weights_are_refused(tmp_path: Path) -> None:
    head = {f"base_model.model.lm_head.lora_{end}.weight": torch.ones(8, 8) for end in ("A", "B")}
    adapter = write_adapter(tmp_path / "a", head)
    base = write_flat_model(tmp_path / "base", {"lm_head.weight": torch.ones(8, 8)})
    check(adapter, base)
    with pytest.raises(ModelError, match=r"'lm_head.weight' is tied to another tensor .*, which the base stores too"):
        check(adapter, base, tie_word_embeddings=True)
    with pytest.raises(ModelError, match=r"'lm_head.weight' is U8 in the base: quantised weights"):
        check(adapter, write_flat_model(tmp_path / "packed", {"lm_head.weight": torch.ones(8, 8, dtype=torch.uint8)}))
