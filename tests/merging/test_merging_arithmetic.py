"""The sum that a merge computes, on numbers that can be checked by hand."""

from pathlib import Path

import pytest
import torch
from merging_folders import read_weights, write_adapter, write_flat_model

from mft.errors import ModelError
from mft.merging import merge
from mft.merging.arithmetic import add_delta
from mft.merging.config import MergeOptions

MODULE = "base_model.model.layer"


def test_the_scaled_product_is_added() -> None:
    weight, total, out = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.empty(2, 2), torch.empty(2, 2)
    add_delta(weight, torch.tensor([[1.0, 10.0]]), torch.tensor([[1.0], [2.0]]), 0.5, total=total, out=out)
    assert out.tolist() == [[1.5, 7.0], [4.0, 14.0]]


def test_the_sum_is_rounded_once() -> None:
    """1 + 2^-8 + 2^-20 is above the middle of 1 and 1 + 2^-7; with the delta rounded to bf16 first it would be the middle, and go to 1."""
    weight, out = torch.ones(1, 1).bfloat16(), torch.empty(1, 1, dtype=torch.bfloat16)
    add_delta(weight, torch.tensor([[2.0**-8 + 2.0**-20]]), torch.ones(1, 1), 1.0, total=torch.empty(1, 1), out=out)
    assert out.item() == 1 + 2**-7


def small(tmp_path: Path, weight: torch.Tensor, other: torch.Tensor | None = None, **adapter: float) -> tuple[Path, Path]:
    tensors = {f"{MODULE}.lora_A.weight": torch.tensor([[1.0, 10.0]]), f"{MODULE}.lora_B.weight": torch.tensor([[1.0], [2.0]])}
    base = write_flat_model(tmp_path / "base", {"layer.weight": weight, "norm.weight": torch.ones(2) if other is None else other})
    return base, write_adapter(tmp_path / "adapter", tensors, r=1, **adapter)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("option", "written"), [("bf16", torch.bfloat16), ("fp16", torch.float16), ("fp32", torch.float32)])
def test_every_pair_of_dtypes_gives_the_sum(tmp_path: Path, dtype: torch.dtype, option: str, written: torch.dtype) -> None:
    base, adapter = small(tmp_path, torch.tensor([[1, 2], [3, 4]], dtype=dtype), torch.tensor([0.5, 2], dtype=dtype), lora_alpha=2)
    merge(base, adapter, tmp_path / "out", MergeOptions(dtype=option))
    weights = read_weights(tmp_path / "out")
    assert weights["layer.weight"].dtype == weights["norm.weight"].dtype == written
    assert weights["layer.weight"].tolist() == [[3, 22], [7, 44]]
    assert weights["norm.weight"].tolist() == [0.5, 2]


def test_integers_are_copied_as_they_are(tmp_path: Path) -> None:
    base, adapter = small(tmp_path, torch.ones(2, 2), torch.arange(300))
    merge(base, adapter, tmp_path / "out", MergeOptions())
    assert torch.equal(read_weights(tmp_path / "out")["norm.weight"], torch.arange(300))


def test_a_merged_value_too_large_for_fp16_is_refused_by_tensor(tmp_path: Path) -> None:
    base, adapter = small(tmp_path, torch.full((2, 2), 65500.0), lora_alpha=100)
    with pytest.raises(ModelError, match=r"'layer.weight': rows 0 to 2: a value is not finite in F16; .* merge with dtype bf16"):
        merge(base, adapter, tmp_path / "out", MergeOptions(dtype="fp16", verify="none"))
    assert not (tmp_path / "out").exists()


def test_an_untouched_value_too_large_for_fp16_is_refused_by_tensor(tmp_path: Path) -> None:
    base, adapter = small(tmp_path, torch.ones(2, 2), torch.tensor([1.0, 1e6]))
    with pytest.raises(ModelError, match=r"'norm.weight': .* not finite in F16"):
        merge(base, adapter, tmp_path / "out", MergeOptions(dtype="fp16", verify="none"))
