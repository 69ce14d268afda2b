"""DoRA: every row of W + s B A gets its trained length; merged as PEFT does it, and a wrong merge is found."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from merging_folders import PARENTS, SHAPES, lora_tensors, read_weights, write_adapter, write_flat_model
from peft import PeftModel
from transformers import AutoModelForCausalLM

from mft.errors import CheckFailed, ModelError
from mft.merging import arithmetic, merge
from mft.merging.config import MergeOptions
from mft.merging.lora import LoraAdapter

MODULE = "base_model.model.layer"


def dora_tensors(base: Path) -> dict[str, torch.Tensor]:
    """LoRA matrices and magnitudes near the lengths of the base's rows, as training leaves them."""
    weights, tensors = read_weights(base), lora_tensors()
    generator = torch.Generator().manual_seed(3)
    for layer in range(2):
        for name in SHAPES:
            module = f"model.layers.{layer}.{PARENTS[name]}.{name}"
            lengths = weights[f"{module}.weight"].float().norm(dim=1)
            tensors[f"base_model.model.{module}.lora_magnitude_vector"] = lengths * (
                1 + 0.2 * torch.randn(len(lengths), generator=generator))
    return tensors


@pytest.fixture(scope="module")
def dora(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_adapter(tmp_path_factory.mktemp("dora") / "adapter", dora_tensors(llama), use_dora=True)


def test_rows_get_their_lengths_by_hand(tmp_path: Path) -> None:
    """[1, 2] + [2, 2] = [3, 4], of length 5, gets 10; [0, 0] + [4, 4] - [4, 1] = [0, 3] gets 1.5."""
    tensors = {f"{MODULE}.lora_A.weight": torch.tensor([[1.0, 1.0]]), f"{MODULE}.lora_B.weight": torch.tensor([[1.0], [2.0]]),
               f"{MODULE}.lora_magnitude_vector": torch.tensor([10.0, 1.5])}
    base = write_flat_model(tmp_path / "base", {"layer.weight": torch.tensor([[1.0, 2.0], [-4.0, -1.0]])})
    adapter = write_adapter(tmp_path / "a", tensors, r=1, lora_alpha=2, use_dora=True)
    result = merge(base, adapter, tmp_path / "out", MergeOptions(dtype="fp32"))
    assert read_weights(tmp_path / "out")["layer.weight"].tolist() == [[6, 8], [0, 1.5]]
    assert result.max_abs_diff < 1e-6


def test_the_merge_is_pefts_up_to_fp32_rounding(llama: Path, dora: Path, tmp_path: Path) -> None:
    merge(llama, dora, tmp_path / "out", MergeOptions(dtype="fp32"))
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32), str(dora))
    wanted, found = model.merge_and_unload().state_dict(), read_weights(tmp_path / "out")
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=2e-6, atol=1e-8)
    assert not torch.allclose(found["model.layers.0.mlp.up_proj.weight"], read_weights(llama)["model.layers.0.mlp.up_proj.weight"].float())


def test_dora_with_the_scale_of_rslora_is_pefts_too(llama: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "a", dora_tensors(llama), use_dora=True, use_rslora=True)
    merge(llama, adapter, tmp_path / "out", MergeOptions(dtype="fp32"))
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32), str(adapter))
    for name, tensor in model.merge_and_unload().state_dict().items():
        torch.testing.assert_close(read_weights(tmp_path / "out")[name], tensor, rtol=2e-6, atol=1e-8)


@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
def test_logits_are_those_of_base_and_unmerged_adapter(llama: Path, dora: Path, tmp_path: Path, dtype: str) -> None:
    result = merge(llama, dora, tmp_path / "out", MergeOptions(dtype=dtype, verify="logits"))
    assert 0 < result.max_abs_diff <= result.tolerance


@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
@pytest.mark.parametrize("scale", [1e-2, 1, 30])
def test_a_right_merge_passes_whatever_the_size_of_the_update(llama: Path, tmp_path: Path, dtype: str, scale: float) -> None:
    tensors = {name: tensor if "magnitude" in name else tensor * scale for name, tensor in dora_tensors(llama).items()}
    result = merge(llama, write_adapter(tmp_path / "a", tensors, use_dora=True), tmp_path / "out", MergeOptions(dtype=dtype))
    assert result.max_abs_diff <= result.tolerance / 2


Arithmetic = Callable[..., None]


def lengths_forgotten(weight, a, b, scale, magnitude, *, total, out):  # type: ignore[no-untyped-def]
    out.copy_(weight.float() + scale * (b @ a))


def lengths_of_the_base(weight, a, b, scale, magnitude, *, total, out):  # type: ignore[no-untyped-def]
    out.copy_((magnitude / weight.float().norm(dim=1))[:, None] * (weight.float() + scale * (b @ a)))


def lengths_a_little_off(weight, a, b, scale, magnitude, *, total, out):  # type: ignore[no-untyped-def]
    total.copy_(weight.float() + scale * (b @ a))
    out.copy_((1.02 * magnitude / total.norm(dim=1))[:, None] * total)


def lengths_of_columns(weight, a, b, scale, magnitude, *, total, out):  # type: ignore[no-untyped-def]
    total.copy_(weight.float() + scale * (b @ a))
    out.copy_(magnitude[:, None] * total / total.norm(dim=0))


@pytest.mark.parametrize("wrong", [lengths_forgotten, lengths_of_the_base, lengths_a_little_off, lengths_of_columns])
def test_wrong_arithmetic_is_found(llama: Path, dora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: Arithmetic) -> None:
    monkeypatch.setattr(arithmetic, "add_delta_dora", wrong)
    with pytest.raises(CheckFailed, match=r"'model.layers.\d.*_proj.weight': rows .* are not base plus adapter"):
        merge(llama, dora, tmp_path / "out", MergeOptions())
    assert not (tmp_path / "out").exists()


def test_missing_surplus_and_misshapen_lengths_are_refused_by_name(llama: Path, dora: Path, tmp_path: Path) -> None:
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector"
    tensors = dora_tensors(llama)
    with pytest.raises(ModelError, match=r"lora_magnitude_vector' is no LoRA matrix"):
        LoraAdapter(write_adapter(tmp_path / "plain", tensors, use_dora=False))
    with pytest.raises(ModelError, match=r"q_proj.lora_magnitude_vector' is \[3\] of F32; B \[64, 8\] asks for \[64\]"):
        LoraAdapter(write_adapter(tmp_path / "short", tensors | {name: torch.ones(3)}, use_dora=True))
    del tensors[name]
    with pytest.raises(ModelError, match=f"tensor '{name}' is missing"):
        LoraAdapter(write_adapter(tmp_path / "less", tensors, use_dora=True))


def test_a_length_that_is_not_finite_is_refused(llama: Path, tmp_path: Path) -> None:
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector"
    adapter = write_adapter(tmp_path / "a", dora_tensors(llama) | {name: torch.full((64,), float("inf"))}, use_dora=True)
    with pytest.raises(ModelError, match=f"'{name}' has values that are not finite"):
        merge(llama, adapter, tmp_path / "out", MergeOptions())
