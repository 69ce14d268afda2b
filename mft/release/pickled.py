"""Weights in PyTorch's own files, `pytorch_model*.bin`, read without running what a pickle asks for and without holding them.

`torch.load(weights_only=True, mmap=True)` builds nothing but tensors and plain containers, over a memory map of the file: a tensor's
bytes are read where and when they are used.
"""

import json
import pickle
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from mft.errors import ModelError
from mft.modeling.safetensors_header import TORCH_DTYPES, StoredTensor

SINGLE = "pytorch_model.bin"
INDEX = "pytorch_model.bin.index.json"
NAMES = {dtype: name for name, dtype in TORCH_DTYPES.items()}


@dataclass(frozen=True, slots=True)
class PickledModel:
    """The tensors of a folder's .bin files, file by file in the index's order. `shared`: a name -> the earlier one with the very same
    memory (tied weights)."""

    files: tuple[Path, ...]
    tensors: tuple[StoredTensor, ...]
    shared: dict[str, str]


def read_pickled_model(folder: Path) -> PickledModel:
    """What the .bin files of a model folder hold; no weight is read.

    Raises:
        ModelError: no .bin weights, a file or a tensor missing, or a file that is damaged or holds more than tensors.
    """
    weight_map = _weight_map(folder)
    files = [folder / name for name in sorted(set(weight_map.values()))] if weight_map else [folder / SINGLE]
    if missing := [file.name for file in files if not file.is_file()]:
        raise ModelError(f"{folder}: {INDEX} names {len(files)} files, but {', '.join(missing)} is missing")
    tensors: list[StoredTensor] = []
    shared: dict[str, str] = {}
    for file in files:
        memory: dict[tuple[object, ...], str] = {}
        for name, tensor in load_file(file).items():
            key = (tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tensor.shape, tensor.stride())
            if tensor.numel() and memory.setdefault(key, name) != name:
                shared[name] = memory[key]
            tensors.append(_stored(name, tensor, file))
    _check_names(folder, tensors, weight_map)
    return PickledModel(tuple(files), tuple(tensors), shared)


def load_file(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of one .bin file, over a map of it.

    Raises:
        ModelError: the file is damaged, of PyTorch's format before 1.6, or holds more than tensors by name.
    """
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise ModelError(f"{path}: holds more than tensors ({str(error).splitlines()[0][:160]}); such a pickle may run code and is not "
                         "read") from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        if "mmap can only be used" in str(error):
            raise ModelError(f"{path}: is in PyTorch's format before 1.6, or is no PyTorch file; load it with "
                             "torch.load(weights_only=True) and save it again") from error
        raise ModelError(f"{path}: not a whole PyTorch file ({str(error).splitlines()[0][:160]}); download or copy it again") from error
    if not isinstance(loaded, dict):
        raise ModelError(f"{path}: holds a {type(loaded).__name__}; tensors by name are needed")
    for name, tensor in loaded.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise ModelError(f"{path}: entry {name!r} is a {type(tensor).__name__}, not a tensor; the weights of a model are needed, "
                             "tensors by name")
    return loaded


def _stored(name: str, tensor: torch.Tensor, path: Path) -> StoredTensor:
    if tensor.dtype not in NAMES or tensor.layout != torch.strided or tensor.is_quantized:
        raise ModelError(f"{path}: tensor '{name}' is {tensor.dtype}, {tensor.layout}; safetensors files of a model hold "
                         f"{', '.join(NAMES.values())}")
    return StoredTensor(name, NAMES[tensor.dtype], tuple(tensor.shape), path, 0, tensor.numel() * tensor.element_size())


def _weight_map(folder: Path) -> dict[str, str]:
    """Tensor -> file of a sharded model; empty for one file."""
    if (folder / SINGLE).is_file():
        return {}
    if not (folder / INDEX).is_file():
        what = "its weights are safetensors already" if any(folder.glob("*.safetensors")) else f"has neither {SINGLE} nor {INDEX}"
        raise ModelError(f"{folder}: {what if folder.is_dir() else 'no such folder'}")
    try:
        found = {str(name): str(file) for name, file in json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{folder / INDEX}: damaged index ({error!r}); it needs a 'weight_map' of tensor names to files") from error
    if odd := [file for file in found.values() if Path(file).name != file]:
        raise ModelError(f"{folder / INDEX}: names '{odd[0]}', which is not a file of this folder")
    return found


def _check_names(folder: Path, tensors: Iterable[StoredTensor], weight_map: dict[str, str]) -> None:
    """Every tensor once, and where the index says."""
    where: dict[str, Path] = {}
    for tensor in tensors:
        if tensor.name in where:
            raise ModelError(f"{tensor.path}: tensor '{tensor.name}' is also in {where[tensor.name]}")
        where[tensor.name] = tensor.path
    if not where:
        raise ModelError(f"{folder}: the weights files hold no tensor")
    for name, file in weight_map.items():
        if where.get(name) != folder / file:
            raise ModelError(f"{folder / file}: has no tensor '{name}', though {INDEX} says so")
