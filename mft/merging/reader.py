"""Base weights and adapters read from safetensors by row blocks.

Bytes are read with `preadv` into memory of ours. A memory map would be simpler, but its pages count as resident memory
of the process, and a 34B base has 67 GB of them.
"""

import json
import os
import threading
from pathlib import Path
from types import TracebackType

import torch

from mft.errors import ModelError
from mft.modeling.safetensors_header import StoredTensor, read_header

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


class SafetensorsReader:
    """The tensors of some safetensors files, in the order of their bytes: `tensors[name]`. Threads may read at once.

    A tensor of any other safetensors file can be read too: it says itself in which file it lies.
    """

    def __init__(self, paths: list[Path]) -> None:
        self.tensors: dict[str, StoredTensor] = {}
        self._descriptors: dict[Path, int] = {}
        self._lock = threading.Lock()
        for path in paths:
            for tensor in read_header(path):
                if tensor.name in self.tensors:
                    raise ModelError(f"{path}: tensor '{tensor.name}' is also in {self.tensors[tensor.name].path}")
                self.tensors[tensor.name] = tensor

    def __enter__(self) -> "SafetensorsReader":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()

    def read_into(self, tensor: StoredTensor, start: int, buffer: torch.Tensor) -> None:
        """Fill `buffer` (uint8) with the bytes of `tensor` from its byte `start`.

        Raises:
            ModelError: the file ends too early.
        """
        with self._lock:
            if tensor.path not in self._descriptors:
                self._descriptors[tensor.path] = os.open(tensor.path, os.O_RDONLY)
            descriptor = self._descriptors[tensor.path]
        view, offset = buffer.numpy().data, tensor.offset + start
        while view:
            count = os.preadv(descriptor, [view], offset)
            if count == 0:
                raise ModelError(f"{tensor.path}: ends inside tensor '{tensor.name}'; download or copy the file again")
            view, offset = view[count:], offset + count

    def read_numbers(self, tensor: StoredTensor, start: int, count: int) -> torch.Tensor:
        """`count` numbers of `tensor` from its number `start`, as one row."""
        size = tensor.torch_dtype.itemsize
        buffer = torch.empty(count * size, dtype=torch.uint8)
        self.read_into(tensor, start * size, buffer)
        return buffer.view(tensor.torch_dtype)

    def read(self, tensor: StoredTensor) -> torch.Tensor:
        """The whole tensor; for small ones, as those of an adapter."""
        buffer = torch.empty(tensor.num_bytes, dtype=torch.uint8)
        self.read_into(tensor, 0, buffer)
        return buffer.view(tensor.torch_dtype).view(tensor.shape)


def open_model(folder: Path) -> SafetensorsReader:
    """Open the weights of a model folder: `model.safetensors`, or the shards that its index names.

    Raises:
        ModelError: no such folder, no safetensors in it, a shard or a tensor missing, or a damaged header.
    """
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such folder; a base model is a folder with config.json and safetensors weights")
    if (folder / SINGLE).is_file():
        return SafetensorsReader([folder / SINGLE])
    if not (folder / INDEX).is_file():
        pickled = sorted(path.name for path in folder.glob("pytorch_model*.bin"))
        what = (f"only {pickled[0]}; convert the weights first: mft convert --model {folder} --out FOLDER" if pickled else
                f"neither {SINGLE} nor {INDEX}")
        raise ModelError(f"{folder}: has {what}")
    weight_map = _read_index(folder / INDEX)
    names = sorted(set(weight_map.values()))
    if odd := [name for name in names if Path(name).name != name]:
        raise ModelError(f"{folder / INDEX}: names '{odd[0]}', which is not a file of this folder")
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise ModelError(f"{folder}: {INDEX} names {len(names)} files, but {', '.join(missing)} is missing")
    reader = SafetensorsReader([folder / name for name in names])
    for name, file in weight_map.items():
        if name not in reader.tensors or reader.tensors[name].path != folder / file:
            raise ModelError(f"{folder / file}: has no tensor '{name}', though {INDEX} says so")
    return reader


def _read_index(path: Path) -> dict[str, str]:
    try:
        weight_map = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        return {str(name): str(file) for name, file in weight_map.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path}: damaged index ({error!r}); it needs a 'weight_map' of tensor names to files") from error
