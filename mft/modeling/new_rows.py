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

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
CHUNK_BYTES = 1 << 23


@dataclass(frozen=True, slots=True)
class NewRows:
    """Rows `first` to `first + count` of [rows, hidden] are new; what was there before is padding. `rows`: at least as many in the end."""

    first: int
    count: int

    def total(self, rows: int) -> int:
        """Rows of a tensor that had `rows`."""
        return max(rows, self.first + self.count)


def read_header(path: Path) -> tuple[dict[str, dict[str, Any]], int]:
    """The header of a safetensors file (name -> dtype, shape, data_offsets; `__metadata__`), and where its data begin."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header: dict[str, dict[str, Any]] = json.loads(file.read(length))
    return header, 8 + length


def check_room(name: str, entry: dict[str, Any], new: NewRows) -> None:
    """Refuse a tensor that rows cannot be added to.

    Raises:
        ModelError: it is no floating point matrix, or has no row for tokens that the tokenizer has already.
    """
    if entry["dtype"] not in DTYPES or len(entry["shape"]) != 2:
        raise ModelError(f"model.add_tokens: '{name}' is {entry['dtype']} {entry['shape']}; rows are only added to floating point matrices")
    if entry["shape"][0] < new.first:
        raise ModelError(f"model.add_tokens: the tokenizer has {new.first} tokens, but '{name}' only {entry['shape'][0]} rows; the base's "
                         "own added tokens have no rows, so it and its tokenizer do not belong together")


def write_with_rows(source: Path, target: Path, names: Collection[str], new: NewRows) -> int:
    """Copy a safetensors file; the tensors in `names` [rows, hidden] get their new rows. Returns the bytes that the data have grown by.

    Raises:
        ModelError: as `check_room`.
    """
    header, start = read_header(source)
    metadata = header.pop("__metadata__", None)
    order = sorted(header, key=lambda name: header[name]["data_offsets"][0])
    out: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    position = 0
    for name in order:
        entry = dict(header[name])
        begin, end = entry["data_offsets"]
        size = end - begin
        if name in names:
            check_room(name, entry, new)
            rows, columns = entry["shape"]
            entry["shape"] = [new.total(rows), columns]
            size = new.total(rows) * columns * DTYPES[entry["dtype"]].itemsize
        out[name] = entry | {"data_offsets": [position, position + size]}
        position += size
    text = json.dumps(out, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with source.open("rb") as read, target.open("xb") as write:
        write.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            begin, end = header[name]["data_offsets"]
            read.seek(start + begin)
            if name in names:
                _copy_and_extend(read, write, header[name], new)
            else:
                _copy(read, write, end - begin)
    return position - max((entry["data_offsets"][1] for entry in header.values()), default=0)


def _copy(read: BinaryIO, write: BinaryIO, size: int) -> None:
    while size:
        data = read.read(min(size, CHUNK_BYTES))
        write.write(data)
        size -= len(data)


def _copy_and_extend(read: BinaryIO, write: BinaryIO, entry: dict[str, Any], new: NewRows) -> None:
    """Rows of known tokens as they are, then the new ones, then what is left of the padding."""
    dtype = DTYPES[entry["dtype"]]
    rows, columns = entry["shape"]
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
