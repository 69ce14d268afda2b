"""Written shards are what the safetensors library and transformers expect, and nothing is missing."""

import errno
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from mft.errors import OutputError
from mft.merging.writer import ShardWriter, plan_shards
from mft.modeling.safetensors_header import StoredTensor

TENSORS = {"a": torch.randn(100).bfloat16(), "steps": torch.arange(3), "b": torch.randn(7).bfloat16(), "c": torch.randn(300).bfloat16(),
           "d": torch.randn(50).bfloat16()}
DTYPES = {torch.bfloat16: "BF16", torch.int64: "I64"}


def stored() -> list[StoredTensor]:
    return [StoredTensor(name, DTYPES[tensor.dtype], tuple(tensor.shape), Path("base"), 0, tensor.nbytes)
            for name, tensor in TENSORS.items()]


def write_all(writer: ShardWriter) -> None:
    for name, tensor in TENSORS.items():
        data = tensor.view(torch.uint8)
        writer.write(name, 8, data[8:])
        writer.write(name, 0, data[:8])


def test_several_shards_have_transformers_names_an_index_and_the_tensors(tmp_path: Path) -> None:
    with ShardWriter(plan_shards(stored(), "BF16", tmp_path, 300)) as writer:
        write_all(writer)
        writer.finish()
    names = {1: ["a", "b", "steps"], 2: ["c"], 3: ["d"]}
    for number, expected in names.items():
        path = tmp_path / f"model-{number:05d}-of-00003.safetensors"
        with safe_open(path, "pt") as file:
            assert sorted(file.keys()) == expected
            assert file.metadata() == {"format": "pt"}
            assert all(torch.equal(file.get_tensor(name), TENSORS[name]) for name in expected)
        assert int.from_bytes(path.read_bytes()[:8], "little") % 8 == 0
    assert json.loads((tmp_path / "model.safetensors.index.json").read_text()) == {
        "metadata": {"total_size": 200 + 24 + 14 + 600 + 100},
        "weight_map": {name: f"model-{number:05d}-of-00003.safetensors" for name, number in
                       (("a", 1), ("b", 1), ("c", 2), ("d", 3), ("steps", 1))}}


def test_one_shard_is_model_safetensors_without_an_index(tmp_path: Path) -> None:
    with ShardWriter(plan_shards(stored(), "BF16", tmp_path, 10_000)) as writer:
        write_all(writer)
        writer.finish()
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_wider_numbers_come_first_so_that_all_are_aligned(tmp_path: Path) -> None:
    (shard,) = plan_shards(stored(), "BF16", tmp_path, 10_000).values()
    assert [tensor.name for tensor in shard] == ["steps", "a", "b", "c", "d"]
    assert all(tensor.offset % tensor.torch_dtype.itemsize == 0 for tensor in shard)


def test_floating_tensors_take_the_output_dtype_and_others_keep_theirs(tmp_path: Path) -> None:
    (shard,) = plan_shards(stored(), "F32", tmp_path, 10_000).values()
    assert {tensor.name: (tensor.dtype, tensor.num_bytes) for tensor in shard} == {
        "a": ("F32", 400), "steps": ("I64", 24), "b": ("F32", 28), "c": ("F32", 1200), "d": ("F32", 200)}


def test_bytes_that_never_came_are_noticed(tmp_path: Path) -> None:
    with ShardWriter(plan_shards(stored(), "BF16", tmp_path, 10_000)) as writer:
        for name in ("a", "b", "c", "steps"):
            writer.write(name, 0, TENSORS[name].view(torch.uint8))
        with pytest.raises(AssertionError, match="100 bytes were not written"):
            writer.finish()


def test_a_full_disk_is_told_as_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with ShardWriter(plan_shards(stored(), "BF16", tmp_path, 300)) as writer, pytest.raises(OutputError, match="the disk is full"):
        writer.write("a", 0, TENSORS["a"].view(torch.uint8))


def test_files_are_flushed_on_the_way_and_before_they_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_the_way: list[int] = []
    at_the_end: list[int] = []
    monkeypatch.setattr("mft.merging.writer.FLUSH_BYTES", 400)
    monkeypatch.setattr("mft.merging.writer.flush_data", on_the_way.append)
    monkeypatch.setattr(os, "fsync", at_the_end.append)
    with ShardWriter(plan_shards(stored(), "BF16", tmp_path, 10_000)) as writer:
        write_all(writer)   # in this order: 238 bytes, 592 that reach the limit, 108
    assert (len(on_the_way), len(at_the_end)) == (1, 2)   # at the end the file, and the folder that gives it its name
