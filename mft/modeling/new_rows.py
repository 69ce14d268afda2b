"""A weights file written again with rows for new tokens in its embedding and head, a few MB at a time.

The rows that are there keep their bytes. A new row is the mean of the rows of all tokens before it, taken in float64 and rounded once
to the file's number type: a new token then starts as likely as an average one, where a random or zero row would draw or repel
probability. (transformers' `resize_token_embeddings` draws new rows closely around that mean.)
"""

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from mft.errors import ModelError
from mft.modeling.safetensors_header import StoredTensor, read_header, read_metadata

CHUNK_BYTES = 1 << 23


@dataclass(frozen=True, slots=True)
class NewRows:
    """Rows `first` to `first + count` of [rows, hidden] are new; what was there before is padding. `rows`: at least as many in the end."""

    first: int
    count: int

    def total(self, rows: int) -> int:
        """Rows of a tensor that had `rows`."""
        return max(rows, self.first + self.count)


def check_room(tensor: StoredTensor, new: NewRows) -> None:
    """Refuse a tensor that rows cannot be added to.

    Raises:
        ModelError: it is no floating point matrix, or has no row for tokens that the tokenizer has already.
    """
    if not tensor.is_floating or len(tensor.shape) != 2:
        raise ModelError(f"model.add_tokens: '{tensor.name}' is {tensor.dtype} {list(tensor.shape)}; rows are only added to floating point "
                         "matrices")
    if tensor.shape[0] < new.first:
        raise ModelError(f"model.add_tokens: the tokenizer has {new.first} tokens, but '{tensor.name}' only {tensor.shape[0]} rows; the "
                         "base's own added tokens have no rows, so it and its tokenizer do not belong together")


def write_with_rows(source: Path, target: Path, names: Collection[str], new: NewRows) -> int:
    """Copy a safetensors file; the tensors in `names` [rows, hidden] get their new rows. Returns the bytes that the data have grown by.

    Raises:
        ModelError: as `check_room`.
    """
    tensors, metadata = read_header(source), read_metadata(source)
    out: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    position = 0
    for tensor in tensors:
        shape, size = tensor.shape, tensor.num_bytes
        if tensor.name in names:
            check_room(tensor, new)
            shape = (new.total(shape[0]), shape[1])
            size = shape[0] * shape[1] * tensor.torch_dtype.itemsize
        out[tensor.name] = {"dtype": tensor.dtype, "shape": shape, "data_offsets": [position, position + size]}
        position += size
    text = json.dumps(out, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with source.open("rb") as read, target.open("xb") as write:
        write.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors:
            read.seek(tensor.offset)
            if tensor.name in names:
                _copy_and_extend(read, write, tensor, new)
            else:
                _copy(read, write, tensor.num_bytes)
    return position - sum(tensor.num_bytes for tensor in tensors)


def _copy(read: BinaryIO, write: BinaryIO, size: int) -> None:
    while size:
        data = read.read(min(size, CHUNK_BYTES))
        write.write(data)
        size -= len(data)


def _copy_and_extend(read: BinaryIO, write: BinaryIO, tensor: StoredTensor, new: NewRows) -> None:
    """Rows of known tokens as they are, then the new ones, then what is left of the padding."""
    dtype, (rows, columns) = tensor.torch_dtype, tensor.shape
    row_bytes = columns * dtype.itemsize
    total = torch.zeros(columns, dtype=torch.float64)
    left = new.first
    while left:
        count = min(left, max(1, CHUNK_BYTES // row_bytes))
        data = bytearray(read.read(count * row_bytes))
        write.write(data)
        total += torch.frombuffer(data, dtype=dtype).view(count, columns).double().sum(dim=0)
        left -= count
    mean = (total / new.first).to(dtype)
    write.write(mean.view(torch.uint8).numpy().tobytes() * new.count)
    padding = max(rows - new.first - new.count, 0)
    read.seek((min(rows, new.first + new.count) - new.first) * row_bytes, 1)
    _copy(read, write, padding * row_bytes)
