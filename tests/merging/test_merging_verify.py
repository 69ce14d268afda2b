"""The checks pass a right merge, and find each way in which one can be wrong."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from merging_folders import lora_tensors, read_weights, write_adapter, write_flat_model, write_llama
from safetensors.torch import save_file

from mft.errors import CheckFailed
from mft.merging import arithmetic, merge
from mft.merging.base_values import BaseValues
from mft.merging.blocks import plan_blocks
from mft.merging.changes import Changes
from mft.merging.config import MergeOptions
from mft.merging.logits import Unmerged, distance, tolerance_of, verify_logits
from mft.merging.lora import LoraAdapter
from mft.merging.reader import open_model
from mft.merging.result import Verdict
from mft.merging.verify import verify_layers

UP = "model.layers.1.mlp.up_proj.weight"
NORM = "model.layers.0.input_layernorm.weight"


def check(base: Path, adapter: Path, merged: Path) -> Verdict:
    with open_model(base) as weights, LoraAdapter(adapter) as lora:
        plan = plan_blocks(weights.tensors.values(), lora.pairs)
        return verify_layers(BaseValues(weights), weights.tensors, Changes([lora]), merged, plan, lambda block: None)[0]


@pytest.fixture(scope="module")
def merged(llama: Path, lora: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("merged") / "out"
    merge(llama, lora, out, MergeOptions(verify="none"))
    return out


@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
@pytest.mark.parametrize("scale", [1e-2, 1, 30])
def test_a_right_merge_passes_whatever_the_size_of_the_delta(tmp_path: Path, llama: Path, dtype: str, scale: float) -> None:
    adapter = write_adapter(tmp_path / "a", {name: tensor * scale for name, tensor in lora_tensors(seed=5).items()})
    result = merge(llama, adapter, tmp_path / "out", MergeOptions(dtype=dtype))
    assert result.max_abs_diff <= result.tolerance / 2


@pytest.mark.parametrize(("dtype", "least", "most"), [
    ("bf16", 0.375, 0.3752), ("fp16", 0.046875, 0.0470), ("fp32", 96 * 2**-24, 96 * 2**-24 * 10)])
def test_the_tolerance_is_that_of_one_rounding(tmp_path: Path, dtype: str, least: float, most: float) -> None:
    """8 u ||row||: a row of 64 numbers 1.5 has the norm 12, and u is 2^-8, 2^-11, 2^-24; the fp32 sum may lose a little more."""
    base = write_flat_model(tmp_path / "base", {"layer.weight": torch.ones(2, 64)})
    pair = {"base_model.model.layer.lora_A.weight": torch.full((1, 64), 0.25), "base_model.model.layer.lora_B.weight": torch.ones(2, 1)}
    result = merge(base, write_adapter(tmp_path / "a", pair, r=1, lora_alpha=2), tmp_path / "out", MergeOptions(dtype=dtype))
    assert result.max_abs_diff == 0
    assert least <= result.tolerance < most


def test_the_output_difference_is_the_error_of_rounding(tmp_path: Path) -> None:
    """1 + 2^-8 + 2^-20 becomes 1 + 2^-7 in bf16, and an input of 1 or -1 shows that error of 2^-8 - 2^-20."""
    base = write_flat_model(tmp_path / "base", {"layer.weight": torch.ones(1, 1)})
    pair = {f"base_model.model.layer.lora_{end}.weight": torch.tensor([[value]]) for end, value in (("A", 2**-8 + 2**-20), ("B", 1.0))}
    result = merge(base, write_adapter(tmp_path / "a", pair, r=1, lora_alpha=1), tmp_path / "out", MergeOptions())
    assert result.max_abs_diff == 2**-8 - 2**-20


Change = Callable[[dict[str, torch.Tensor]], None]


def rewritten(merged: Path, folder: Path, change: Change) -> Path:
    tensors = read_weights(merged)
    change(tensors)
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    return folder


def put(name: str, row: int, column: int, ulps: int) -> Change:
    """Move one bf16 element by so many of its last bits."""
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[name].view(torch.int16)[row, column] += ulps
    return change


def swap_rows(tensors: dict[str, torch.Tensor]) -> None:
    tensors[UP][:128] = tensors[UP][:128].roll(64, dims=0)


def scale_back(tensors: dict[str, torch.Tensor]) -> None:
    tensors[UP] *= 0.9


def set_nan(tensors: dict[str, torch.Tensor]) -> None:
    tensors[UP][3, 3] = float("nan")


@pytest.mark.parametrize("change", [put(UP, 7, 9, 2), put(UP, 159, 63, -2), put(UP, 0, 0, 100), swap_rows, scale_back, set_nan])
def test_a_wrong_merged_weight_is_found_and_named(llama: Path, lora: Path, merged: Path, tmp_path: Path, change: Change) -> None:
    check(llama, lora, merged)
    with pytest.raises(CheckFailed, match=f"'{UP}': rows .* are not base plus adapter"):
        check(llama, lora, rewritten(merged, tmp_path / "broken", change))


def test_outputs_of_a_wrong_weight_differ_by_more_than_is_allowed(llama: Path, lora: Path, merged: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckFailed) as error:
        check(llama, lora, rewritten(merged, tmp_path / "broken", scale_back))
    found, allowed = map(float, re.search(r"up to (\S+) .* where (\S+) is allowed", str(error.value)).groups())
    assert found > 2 * allowed


def test_one_wrong_bit_in_an_untouched_tensor_is_found(llama: Path, lora: Path, merged: Path, tmp_path: Path) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[NORM].view(torch.int16)[5] += 1

    with pytest.raises(CheckFailed, match=f"'{NORM}': elements .* are not those of the base"):
        check(llama, lora, rewritten(merged, tmp_path / "broken", change))


def without_norm(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[NORM]


def test_a_missing_and_an_additional_tensor_are_found(llama: Path, lora: Path, merged: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match=f"'{NORM}': is in only one"):
        check(llama, lora, rewritten(merged, tmp_path / "less", without_norm))
    with pytest.raises(CheckFailed, match="'extra': is in only one"):
        check(llama, lora, rewritten(merged, tmp_path / "more", lambda tensors: tensors.update(extra=torch.ones(1))))


Arithmetic = Callable[..., None]


def one_percent_off(weight, a, b, scale, *, total, out):  # type: ignore[no-untyped-def]
    out.copy_(weight.float() + 1.01 * scale * (b @ a))


def delta_forgotten(weight, a, b, scale, *, total, out):  # type: ignore[no-untyped-def]
    out.copy_(weight)


def rounded_twice(weight, a, b, scale, *, total, out):  # type: ignore[no-untyped-def]
    out.copy_(weight + (scale * (b @ a)).bfloat16())


def sign_lost(weight, a, b, scale, *, total, out):  # type: ignore[no-untyped-def]
    out.copy_(weight.float() - scale * (b @ a))


def other_rows(weight, a, b, scale, *, total, out):  # type: ignore[no-untyped-def]
    out.copy_(weight.float() + scale * (b.flip(0) @ a))


@pytest.mark.parametrize("wrong", [one_percent_off, delta_forgotten, rounded_twice, sign_lost, other_rows])
def test_wrong_arithmetic_is_found(llama: Path, lora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: Arithmetic) -> None:
    monkeypatch.setattr(arithmetic, "add_delta", wrong)
    with pytest.raises(CheckFailed, match=r"'model.layers.\d.*_proj.weight'"):
        merge(llama, lora, tmp_path / "out", MergeOptions())
    assert not (tmp_path / "out").exists()


def test_a_weight_that_rounding_leaves_as_it_was_is_told(llama: Path, tmp_path: Path) -> None:
    tensors = lora_tensors()
    for name, tensor in tensors.items():
        if "layers.0.self_attn.q_proj.lora_B" in name:
            tensor.mul_(1e-12)
    adapter = write_adapter(tmp_path / "a", tensors)
    with pytest.raises(CheckFailed, match=r"'model.layers.0.self_attn.q_proj.weight': equals the base after merging \(1 of 14"):
        merge(llama, adapter, tmp_path / "out", MergeOptions())


@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
def test_logits_of_a_right_merge_agree_with_base_and_adapter(llama: Path, lora: Path, tmp_path: Path, dtype: str) -> None:
    result = merge(llama, lora, tmp_path / "out", MergeOptions(verify="logits", dtype=dtype))
    assert result.reference.startswith("logits of base + adapter (PEFT")
    assert 0 < result.max_abs_diff <= result.tolerance
    assert -1e-12 < result.kl < 1e-5
    assert result.top1_agreement > 0.95


def test_logits_find_a_wrong_scale_that_the_layers_cannot_see(llama: Path, lora: Path, tmp_path: Path,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mft.merging.lora.scale_of", lambda config, module: 0.02 * config["lora_alpha"])
    merge(llama, lora, tmp_path / "layers", MergeOptions(verify="layers"))
    with pytest.raises(CheckFailed, match="logits differ from base"):
        merge(llama, lora, tmp_path / "out", MergeOptions(verify="logits"))
    assert not (tmp_path / "out").exists()


def test_logits_no_nearer_than_the_bases_are_a_fault(llama: Path, tmp_path: Path) -> None:
    """A small adapter hides below the tolerance; a folder with the base's own weights must still not pass for merged."""
    small = write_adapter(tmp_path / "a", {name: tensor * 0.1 for name, tensor in lora_tensors().items()})
    with pytest.raises(CheckFailed, match="no nearer to base"):
        verify_logits(Unmerged(llama, ((small, 1.0),)), llama, "bf16")


def test_the_tolerance_of_logits_by_hand() -> None:
    assert tolerance_of("bf16", layers=7, hidden_size=0, spread=2.0) == 8 * 2**-8 * 7 * 2
    assert tolerance_of("fp32", layers=7, hidden_size=64, spread=1.0) == 8 * 2**-24 * (1 + 16 * 8) * 7


def test_distance_of_logits_by_hand() -> None:
    reference, other = torch.tensor([[0.0, 0.0], [0.0, 5.0]]), torch.tensor([[0.0, 1.0], [0.0, 5.0]])
    found = distance(reference, other)
    assert found.max_abs_diff == 1.0
    assert found.kl == pytest.approx(0.5 * (0.5 * torch.log(torch.tensor(0.5 / 0.26894142)).item()
                                            + 0.5 * torch.log(torch.tensor(0.5 / 0.73105858)).item()), rel=1e-6)
    assert found.top1_agreement == 0.5


def test_weights_of_another_base_do_not_pass(lora: Path, merged: Path, tmp_path: Path) -> None:
    other = write_llama(tmp_path / "base")
    tensors = read_weights(other)
    tensors[UP] = tensors[UP] * 1.5
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckFailed, match=UP):
        check(tmp_path, lora, merged)
