"""What a safetensors file says it holds, read without its data and checked against the file's size.

A safetensors file is: the length of the header (8 bytes, little endian), the header (JSON: name -> dtype, shape and
`[begin, end)` in the data), then the data without gaps.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mft.errors import ModelError

TORCH_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}
MAX_HEADER = 100_000_000   # the limit of the safetensors library


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor in a safetensors file; `offset` counts from the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    path: Path
    offset: int
    num_bytes: int

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype in torch."""
        return TORCH_DTYPES[self.dtype]

    @property
    def num_elements(self) -> int:
        """Numbers in the tensor."""
        return math.prod(self.shape)

    @property
    def is_floating(self) -> bool:
        """True for a tensor of floating point numbers."""
        return self.torch_dtype.is_floating_point


def read_header(path: Path) -> list[StoredTensor]:
    """The tensors of one safetensors file, in the order of their bytes.

    Raises:
        ModelError: the file is not whole or not safetensors; the message says where.
    """
    header, data_start = _parsed(path)
    header.pop("__metadata__", None)
    try:
        tensors = [_stored(name, entry, path, data_start) for name, entry in header.items()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, error) from error
    tensors.sort(key=lambda tensor: (tensor.offset, tensor.num_bytes))
    position = data_start
    for tensor in tensors:
        if tensor.offset != position:
            raise ModelError(f"{path}: damaged safetensors header: tensor '{tensor.name}' starts at byte {tensor.offset}, not {position}")
        position += tensor.num_bytes
    size = path.stat().st_size
    if position != size:
        raise ModelError(f"{path}: has {size} bytes where its header asks for {position}; download or copy the file again")
    return tensors


def read_metadata(path: Path) -> dict[str, str] | None:
    """What the file says besides its tensors, such as `{"format": "pt"}`; None if nothing.

    Raises:
        ModelError: as `read_header`.
    """
    header, _ = _parsed(path)
    return header.get("__metadata__")


def _parsed(path: Path) -> tuple[dict[str, Any], int]:
    """The header as it stands, and where the data begin."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > min(MAX_HEADER, size - 8):
            raise ModelError(f"{path}: not a whole safetensors file ({size} bytes, header of {length}); download or copy it again")
        text = stream.read(length)
    try:
        header = json.loads(text)
        if not isinstance(header, dict):
            raise TypeError(f"a JSON object is needed, found {type(header).__name__}")
    except (ValueError, TypeError) as error:
        raise _damaged(path, error) from error
    return header, 8 + length


def _damaged(path: Path, error: Exception) -> ModelError:
    return ModelError(f"{path}: damaged safetensors header ({error!r}); download or copy the file again")


def _stored(name: str, entry: dict[str, Any], path: Path, data_start: int) -> StoredTensor:
    dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    if dtype not in TORCH_DTYPES:
        raise ModelError(f"{path}: tensor '{name}' has dtype {dtype}; allowed: {', '.join(TORCH_DTYPES)}")
    if end - begin != math.prod(shape) * TORCH_DTYPES[dtype].itemsize:
        raise ModelError(f"{path}: damaged safetensors header: tensor '{name}' of shape {list(shape)} in {end - begin} bytes of {dtype}")
    return StoredTensor(name, dtype, shape, path, data_start + begin, end - begin)
