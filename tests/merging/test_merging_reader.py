"""Reading safetensors by hand gives what the library gives, and damage is told."""

import json
from pathlib import Path

import pytest
import torch
from merging_folders import read_weights
from safetensors.torch import save_file

from mft.errors import ModelError
from mft.merging.reader import SafetensorsReader, open_model

TENSORS = {
    "bf16": torch.randn(3, 5).bfloat16(), "fp16": torch.randn(4).half(), "fp32": torch.randn(2, 2, 2), "fp64": torch.randn(3).double(),
    "int64": torch.arange(5), "int32": torch.arange(6, dtype=torch.int32), "uint8": torch.arange(7, dtype=torch.uint8),
    "bool": torch.tensor([True, False]), "scalar": torch.tensor(2.5), "empty": torch.empty(0, 4),
}


def test_every_dtype_reads_as_the_library_wrote_it(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "model.safetensors")
    with open_model(tmp_path) as reader:
        assert reader.tensors.keys() == TENSORS.keys()
        for name, tensor in TENSORS.items():
            read = reader.read(reader.tensors[name])
            assert read.dtype == tensor.dtype
            assert torch.equal(read, tensor), name


def test_shards_of_transformers_are_read_whole(llama: Path) -> None:
    assert len(list(llama.glob("model-*.safetensors"))) > 1
    with open_model(llama) as reader:
        found = {name: reader.read(tensor) for name, tensor in reader.tensors.items()}
    wanted = read_weights(llama)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_a_part_of_a_tensor_is_read_from_its_byte(tmp_path: Path) -> None:
    save_file({"w": torch.arange(10, dtype=torch.int32)}, tmp_path / "model.safetensors")
    buffer = torch.empty(8, dtype=torch.uint8)
    with open_model(tmp_path) as reader:
        reader.read_into(reader.tensors["w"], 12, buffer)
    assert buffer.view(torch.int32).tolist() == [3, 4]


def test_missing_folder_and_folders_without_safetensors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such folder"):
        open_model(tmp_path / "nowhere")
    with pytest.raises(ModelError, match=r"neither model\.safetensors nor"):
        open_model(tmp_path)
    (tmp_path / "pytorch_model-00001-of-00002.bin").touch()
    with pytest.raises(ModelError, match=r"only pytorch_model-00001-of-00002.bin; convert"):
        open_model(tmp_path)


@pytest.fixture
def two_shards(tmp_path: Path) -> Path:
    save_file({"a": torch.zeros(4)}, tmp_path / "one.safetensors")
    save_file({"b": torch.zeros(4)}, tmp_path / "two.safetensors")
    write_index(tmp_path, {"a": "one.safetensors", "b": "two.safetensors"})
    return tmp_path


def write_index(folder: Path, weight_map: dict[str, str]) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_a_missing_shard_is_named(two_shards: Path) -> None:
    (two_shards / "two.safetensors").unlink()
    with pytest.raises(ModelError, match=r"two.safetensors is missing"):
        open_model(two_shards)


def test_an_index_that_names_an_absent_tensor_is_refused(two_shards: Path) -> None:
    write_index(two_shards, {"a": "one.safetensors", "b": "two.safetensors", "c": "two.safetensors"})
    with pytest.raises(ModelError, match=r"two.safetensors: has no tensor 'c'"):
        open_model(two_shards)


def test_an_index_that_leaves_the_folder_is_refused(two_shards: Path) -> None:
    write_index(two_shards, {"a": "../one.safetensors"})
    with pytest.raises(ModelError, match="not a file of this folder"):
        open_model(two_shards)


@pytest.mark.parametrize("text", ["{", "[]", '{"weight_map": ["a"]}', "{}"])
def test_a_damaged_index_is_refused(two_shards: Path, text: str) -> None:
    (two_shards / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ModelError, match="damaged index"):
        open_model(two_shards)


def test_a_tensor_in_two_files_is_refused(two_shards: Path) -> None:
    save_file({"a": torch.zeros(4), "b": torch.zeros(4)}, two_shards / "two.safetensors")
    with pytest.raises(ModelError, match=r"tensor 'a' is also in"):
        open_model(two_shards)


def raw_file(path: Path, header: bytes, data: bytes) -> Path:
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)
    return path


@pytest.mark.parametrize(("header", "data", "message"), [
    (b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}', bytes(7), "has 76 bytes where its header asks for 77"),
    (b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}', bytes(9), "has 78 bytes where"),
    (b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}', bytes(12), "'a' starts at byte 74, not 70"),
    (b'{"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}', bytes(8), r"'a' of shape \[3\] in 8 bytes"),
    (b'{"a": {"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]}}', bytes(8), "dtype F8_E4M3; allowed"),
    (b'{"a": {"dtype": "F32"}}', b"", "damaged safetensors header"),
    (b"not json", b"", "damaged safetensors header"),
    (b"[]", b"", "damaged safetensors header")])
def test_a_damaged_file_is_refused_with_what_is_wrong(tmp_path: Path, header: bytes, data: bytes, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        SafetensorsReader([raw_file(tmp_path / "x.safetensors", header, data)])


@pytest.mark.parametrize("content", [b"", b"abc", (10**9).to_bytes(8, "little") + b"{}"])
def test_a_file_that_is_cut_in_its_header_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match="not a whole safetensors file"):
        SafetensorsReader([tmp_path / "x.safetensors"])
