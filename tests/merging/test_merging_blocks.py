"""Blocks cover every number once, are never too short for the bits, and their threads behave."""

from pathlib import Path

import pytest
import torch

from mft.merging.blocks import LEAST_ROWS, Scratch, cut_rows, for_each_block, plan_blocks
from mft.modeling.safetensors_header import StoredTensor


@pytest.mark.parametrize("rows", [1, 63, 64, 65, 127, 128, 191, 2048, 32016, 5632])
@pytest.mark.parametrize(("columns", "elements"), [(1, 64), (1, 1 << 20), (2048, 1 << 17), (22016, 1 << 12)])
def test_rows_are_covered_once_and_no_block_is_short(rows: int, columns: int, elements: int) -> None:
    spans = cut_rows(rows, columns, elements)
    assert [row for start, stop in spans for row in range(start, stop)] == list(range(rows))
    assert min(stop - start for start, stop in spans) >= min(rows, LEAST_ROWS)
    assert max(stop - start for start, stop in spans) < max(elements // columns, LEAST_ROWS) + LEAST_ROWS


def test_a_tensor_without_numbers_has_no_block() -> None:
    assert cut_rows(0, 1, 64) == []


def stored(name: str, *shape: int) -> StoredTensor:
    return StoredTensor(name, "F32", shape, Path("x"), 0, 4 * torch.Size(shape).numel())


def test_touched_tensors_are_cut_by_rows_and_others_by_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mft.merging.blocks.BLOCK_ELEMENTS", 12800)
    blocks = plan_blocks([stored("touched", 256, 100), stored("other", 256, 100), stored("scalar")], {"touched"})
    assert [(block.tensor.name, block.start, block.stop, block.columns) for block in blocks] == [
        ("touched", 0, 128, 100), ("touched", 128, 256, 100), ("other", 0, 12800, 1), ("other", 12800, 25600, 1), ("scalar", 0, 1, 1)]
    assert [(block.first_element, block.num_elements) for block in blocks[:2]] == [(0, 12800), (12800, 12800)]


@pytest.mark.parametrize("rank", [8, 16, 64])
def test_rows_of_a_product_have_the_bits_of_the_whole_product(rank: int) -> None:
    """What the merge relies on to equal PEFT's bits; with blocks of 7 rows it does not hold for every BLAS."""
    torch.manual_seed(rank)
    b, a = torch.randn(1000, rank), torch.randn(rank, 300)
    torch.set_num_threads(2)
    whole = b @ a
    torch.set_num_threads(1)
    parts = torch.cat([b[start:stop] @ a for start, stop in cut_rows(1000, 300, 64 * 300)])
    assert torch.equal(parts, whole)


def test_results_come_in_order_and_the_number_of_threads_is_put_back() -> None:
    blocks = plan_blocks([stored("a", 640 * 64)], ())
    torch.set_num_threads(2)
    seen: list[int] = []
    results = for_each_block(lambda block: (block.start, torch.get_num_threads()), blocks, lambda block: seen.append(block.start))
    assert results == [(start, 1) for start in range(0, 64 * 640, 64 * 64)]
    assert seen == list(range(0, 64 * 640, 64 * 64))
    assert torch.get_num_threads() == 2


def test_the_first_failure_ends_the_work() -> None:
    done: list[int] = []

    def work(block: object) -> None:
        if len(done) == 20:
            raise ValueError("broken")
        done.append(1)

    with pytest.raises(ValueError, match="broken"):
        for_each_block(work, plan_blocks([stored("a", 64 * 64_000)], ()), lambda block: None)
    assert len(done) < 1000


def test_scratch_memory_is_used_again_and_grows() -> None:
    scratch = Scratch()
    first = scratch.take("a", 100, torch.float32)
    assert scratch.take("a", 50, torch.float32).data_ptr() == first.data_ptr()
    assert scratch.take("b", 100, torch.float32).data_ptr() != first.data_ptr()
    assert scratch.take("a", 200, torch.bfloat16).shape == (200,)
