"""`onto: quantised` adds to what bitsandbytes' 4-bit copy computed with; the distance from that model is told either way."""

import json
from pathlib import Path
from typing import Any

import bitsandbytes
import pytest
import torch
from merging_folders import lora_tensors, read_weights, write_adapter, write_flat_model, write_llama
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from mft.errors import CheckFailed, ModelError
from mft.merging import merge, nf4
from mft.merging.blocks import plan_blocks
from mft.merging.config import MergeOptions
from mft.merging.nf4 import Nf4RoundTrip, quantised_names
from mft.merging.reader import open_model
from mft.modeling.config import QuantizationConfig

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
LINEAR = 14


def with_facts(adapter: Path, **quantization: Any) -> Path:
    facts = {"base": "some/base", "base_files": {}, "format": "", "context": 128,
             "quantization": {"type": "nf4", "double_quant": True, "compute_dtype": "bf16"} | quantization}
    (adapter / "mft.json").write_text(json.dumps(facts))
    return adapter


def dequantised(base: Path, double: bool, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The linear weights of the 4-bit model that transformers and bitsandbytes load, by tensor name."""
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=double,
                                bnb_4bit_compute_dtype=dtype)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype, quantization_config=config, device_map={"": "cpu"})
    return {f"{name}.weight": by_groups(module.weight.data, module.weight.quant_state)
            for name, module in model.named_modules() if isinstance(module, bitsandbytes.nn.Linear4bit)}


def by_groups(packed: torch.Tensor, state: bitsandbytes.functional.QuantState) -> torch.Tensor:
    """bitsandbytes' own values; as rows of 64, since its CPU kernel takes the wrong absmax for rows that are no multiple of 64."""
    shape = state.shape
    state.shape = torch.Size((shape.numel() // 64, 64) if shape.numel() % 64 == 0 else (1, shape.numel()))
    return bitsandbytes.functional.dequantize_4bit(packed, state).view(shape)


@pytest.mark.parametrize("shape", [(256, 64), (192, 160), (640, 96), (130, 30), (64, 1024)])
@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
def test_blocks_have_the_bits_of_the_whole_tensor_in_bitsandbytes(tmp_path: Path, dtype: str, double: bool, shape: tuple[int, int]) -> None:
    """Also where a tensor is no multiple of 64 numbers, or has several groups of 256 absmax values."""
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(3)).to(DTYPES[dtype])
    weight[1, :30] = 0
    base = write_flat_model(tmp_path / "base", {"w": weight})
    quantised = bitsandbytes.functional.quantize_4bit(weight, compress_statistics=double, quant_type="nf4")
    whole = bitsandbytes.functional.dequantize_4bit(*quantised) if shape[1] % 64 == 0 else by_groups(*quantised)
    quantization = QuantizationConfig(double_quant=double, compute_dtype=dtype)  # type: ignore[arg-type]
    with open_model(base) as reader:
        round_trip = Nf4RoundTrip(reader, reader.tensors, quantization)
        blocks = plan_blocks(reader.tensors.values(), {"w"})
        rows = [round_trip.apply(block, reader.read(block.tensor)[block.start:block.stop]) for block in blocks]
    assert shape[0] < 192 or len(blocks) > 1
    assert torch.equal(torch.cat(rows), whole)


@pytest.mark.parametrize("stored", ["bf16", "fp32"])
@pytest.mark.parametrize("double", [True, False])
def test_untouched_layers_are_those_of_the_4_bit_model_and_touched_ones_those_plus_the_update(tmp_path: Path, stored: str,
                                                                                              double: bool) -> None:
    """A base in fp32 is first rounded to the compute dtype, as on loading."""
    base = write_llama(tmp_path / "base", dtype=DTYPES[stored])
    tensors = {name: tensor for name, tensor in lora_tensors().items() if "q_proj" in name}
    adapter = with_facts(write_adapter(tmp_path / "adapter", tensors), double_quant=double)
    result = merge(base, adapter, tmp_path / "out", MergeOptions(onto="quantised"))
    rounded, found, original = dequantised(base, double, torch.bfloat16), read_weights(tmp_path / "out"), read_weights(base)
    assert len(rounded) == LINEAR
    for name, tensor in found.items():
        if "q_proj" in name:
            module = f"base_model.model.{name.removesuffix('.weight')}"
            update = tensors[f"{module}.lora_B.weight"] @ tensors[f"{module}.lora_A.weight"] * 2.0
            assert torch.equal(tensor, (rounded[name].float() + update).bfloat16()), name
        elif name in rounded:
            assert torch.equal(tensor, rounded[name]), name
        else:
            assert torch.equal(tensor, original[name].bfloat16()), name
    assert result.onto == "quantised"
    assert 0 < result.max_abs_diff <= result.tolerance
    # What is left to the model that was trained is the rounding of the sum to bf16.
    assert result.from_trained["relative"] < 2**-8
    assert result.from_trained["quantization"] == ("nf4, double" if double else "nf4")


def test_the_distance_from_what_was_trained_is_that_of_the_rounding_to_4_bits(llama: Path, tmp_path: Path) -> None:
    adapter = with_facts(write_adapter(tmp_path / "adapter"))
    result = merge(llama, adapter, tmp_path / "out", MergeOptions())
    rounded, found = dequantised(llama, True, torch.bfloat16), read_weights(tmp_path / "out")
    tensors, worst, error, moved = lora_tensors(), {}, 0.0, 0.0
    for name, weight in rounded.items():
        module = f"base_model.model.{name.removesuffix('.weight')}"
        trained = weight.float() + 2.0 * tensors[f"{module}.lora_B.weight"] @ tensors[f"{module}.lora_A.weight"]
        error += float((found[name].float() - trained).square().sum())
        moved += float((trained - weight.float()).square().sum())
        worst[name] = float((found[name].float() - trained).norm() / trained.norm())
    told = json.loads((tmp_path / "out" / "distance.json").read_text())
    assert {name: entry["relative"] for name, entry in told.items()} == pytest.approx(worst, rel=1e-5)
    assert result.from_trained["tensor"] == max(worst, key=lambda name: worst[name])
    assert 0.05 < result.from_trained["relative"] < 0.12     # NF4 of normal numbers: about 0.09
    assert result.from_trained["to_update"] == pytest.approx((error / moved) ** 0.5, rel=1e-5)
    assert (result.from_trained["kl"], result.from_trained["top1_agreement"]) == (None, None)


@pytest.mark.parametrize("onto", ["original", "quantised"])
def test_logits_tell_the_distance_from_what_was_trained(llama: Path, tmp_path: Path, onto: str) -> None:
    adapter = with_facts(write_adapter(tmp_path / "adapter"))
    result = merge(llama, adapter, tmp_path / "out", MergeOptions(onto=onto, verify="logits"))  # type: ignore[arg-type]
    assert result.kl < 1e-4
    if onto == "quantised":
        assert result.from_trained["kl"] == result.kl
    else:
        assert result.from_trained["kl"] > 10 * result.kl
    assert 0 <= result.from_trained["top1_agreement"] <= 1


def test_the_head_and_a_tied_embedding_are_not_4_bit() -> None:
    config = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 1, "num_attention_heads": 4,
              "num_key_value_heads": 2, "vocab_size": 320}
    kinds = ["mlp.down_proj", "mlp.gate_proj", "mlp.up_proj", *(f"self_attn.{end}_proj" for end in "kqvo")]
    names = {f"model.layers.0.{name}.weight": None for name in kinds}
    assert quantised_names(config, names | {"lm_head.weight": None}) == names.keys()  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"has no tensor 'model.layers.0.mlp.down_proj.weight'"):
        quantised_names(config, {})


@pytest.mark.parametrize("facts", [None, {"type": "none"}])
def test_onto_quantised_is_refused_where_the_adapter_names_no_4_bit_base(llama: Path, tmp_path: Path, facts: dict[str, str] | None) -> None:
    adapter = write_adapter(tmp_path / "adapter")
    if facts:
        with_facts(adapter, **facts)
    with pytest.raises(ModelError, match="onto quantised needs adapters that were trained on one and the same NF4 base"):
        merge(llama, adapter, tmp_path / "out", MergeOptions(onto="quantised"))
    assert merge(llama, adapter, tmp_path / "out", MergeOptions()).from_trained is None


def test_a_merge_onto_wrongly_rounded_weights_is_found_by_logits(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = with_facts(write_adapter(tmp_path / "adapter"))
    apply = Nf4RoundTrip.apply
    monkeypatch.setattr(nf4.Nf4RoundTrip, "apply", lambda self, block, values: apply(self, block, values) * 1.05)
    with pytest.raises(CheckFailed, match="logits differ"):
        merge(llama, adapter, tmp_path / "out", MergeOptions(onto="quantised", verify="logits"))


def test_a_base_that_transformers_does_not_know_is_merged_without_the_distance(llama: Path, tmp_path: Path) -> None:
    base = write_flat_model(tmp_path / "base", read_weights(llama), model_type="other")
    adapter = with_facts(write_adapter(tmp_path / "adapter"))
    assert merge(base, adapter, tmp_path / "out", MergeOptions()).from_trained is None
    with pytest.raises(ModelError, match="no causal language model can be built for model_type 'other'"):
        merge(base, adapter, tmp_path / "quantised", MergeOptions(onto="quantised"))
    assert not (tmp_path / "quantised").exists()
