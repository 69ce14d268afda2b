"""Merged weights written into safetensors files whose places are fixed before the first byte arrives."""

import errno
import json
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from mft.errors import OutputError
from mft.files import fsync_path
from mft.merging.reader import INDEX, SINGLE
from mft.modeling.safetensors_header import TORCH_DTYPES, StoredTensor

WRITE_BYTES = 1 << 20
"""Bytes of one write call. With 4 MB, Linux 6 spent six times the processor time in the page cache (ext4)."""
FLUSH_BYTES = 128_000_000
"""After so many bytes one thread flushes the file, while the others go on: the disk works from the start, not at the end."""
flush_data = getattr(os, "fdatasync", os.fsync)   # macOS has fsync alone
Shards = dict[Path, list[StoredTensor]]


def plan_shards(tensors: Sequence[StoredTensor], dtype: str | None, folder: Path, shard_bytes: int) -> Shards:
    """Where every tensor will lie in the output: file -> its tensors, in the order of their bytes.

    Floating point tensors become `dtype` (a safetensors name; None: what they are), others stay as they are. Files are filled in the order
    of `tensors`, so that a base is read from front to back; a tensor larger than `shard_bytes` has a file of its own.
    Names are those of Hugging Face: `model.safetensors` or `model-00001-of-0000N.safetensors`.
    """
    groups: list[list[tuple[StoredTensor, str]]] = [[]]
    filled = 0
    for tensor in tensors:
        target = dtype if dtype and tensor.is_floating else tensor.dtype
        size = tensor.num_elements * TORCH_DTYPES[target].itemsize
        if groups[-1] and filled + size > shard_bytes:
            groups.append([])
            filled = 0
        groups[-1].append((tensor, target))
        filled += size
    count = len(groups)
    names = [SINGLE] if count == 1 else [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]
    return {folder / name: _place(group, folder / name) for name, group in zip(names, groups, strict=True)}


def _place(group: list[tuple[StoredTensor, str]], path: Path) -> list[StoredTensor]:
    """Offsets in one file; wider numbers first, so that every tensor starts at a multiple of its number's size."""
    position, placed = 0, []
    for tensor, dtype in sorted(group, key=lambda item: -TORCH_DTYPES[item[1]].itemsize):
        size = tensor.num_elements * TORCH_DTYPES[dtype].itemsize
        placed.append(StoredTensor(tensor.name, dtype, tensor.shape, path, position, size))
        position += size
    start = len(header_bytes(placed))
    return [StoredTensor(tensor.name, tensor.dtype, tensor.shape, path, start + tensor.offset, tensor.num_bytes) for tensor in placed]


def header_bytes(tensors: Sequence[StoredTensor]) -> bytes:
    """The first bytes of a safetensors file that holds these tensors, one after the other."""
    entries: dict[str, dict[str, Any]] = {"__metadata__": {"format": "pt"}}
    position = 0
    for tensor in tensors:
        end = position + tensor.num_bytes
        entries[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


class ShardWriter:
    """Writes planned files block by block, from several threads; `tensors[name]` says where each tensor lies.

    A file has its name only from when its last byte is on the disk. Tensors in files that have theirs from an earlier attempt are `done`,
    and are not written again. `missing_at_start`: bytes of all others.
    """

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        self._open: dict[Path, int] = {}
        self.done = {tensor.name for path, tensors in shards.items() if path.is_file() for tensor in tensors}
        self._missing = {path: 0 if path.is_file() else sum(tensor.num_bytes for tensor in tensors) for path, tensors in shards.items()}
        self.missing_at_start = sum(self._missing.values())
        self._unflushed = 0
        self._lock = threading.Lock()
        self.tensors = {tensor.name: tensor for tensors in shards.values() for tensor in tensors}
        self.total_bytes = sum(tensor.num_bytes for tensor in self.tensors.values())

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def write(self, name: str, start: int, data: torch.Tensor) -> None:
        """Write `data` (uint8) at byte `start` of a tensor. The block that completes a file also flushes it to the disk.

        Raises:
            OutputError: the disk is full.
        """
        tensor = self.tensors[name]
        assert start + len(data) <= tensor.num_bytes, f"{name}: more bytes than planned"
        with self._lock:
            descriptor = self._open[tensor.path] if tensor.path in self._open else self._create(tensor.path)
        with _full_disk_told(tensor.path):
            _write_all(descriptor, data.numpy().data, tensor.offset + start)
            if self._is_time_to_flush(len(data)):
                flush_data(descriptor)
        with self._lock:   # only now: until its last byte is counted, no other thread closes the file
            self._missing[tensor.path] -= len(data)
            complete = self._missing[tensor.path] == 0
            if complete:
                self._open.pop(tensor.path)
        if complete:
            with _full_disk_told(tensor.path):
                os.fsync(descriptor)
            os.close(descriptor)
            _unfinished(tensor.path).rename(tensor.path)
            fsync_path(tensor.path.parent)

    def _is_time_to_flush(self, num_bytes: int) -> bool:
        with self._lock:
            self._unflushed = self._unflushed + num_bytes if self._unflushed < FLUSH_BYTES else num_bytes
            return self._unflushed >= FLUSH_BYTES

    def finish(self) -> None:
        """Check that every byte came, and write the index if there are several files."""
        for path, missing in self._missing.items():
            assert missing == 0, f"{path}: {missing} bytes were not written"
            if not path.exists():   # a file of empty tensors
                os.close(self._create(path))
                _unfinished(path).rename(path)
        if len(self._shards) > 1:
            index = {"metadata": {"total_size": self.total_bytes},
                     "weight_map": {name: self.tensors[name].path.name for name in sorted(self.tensors)}}
            next(iter(self._shards)).with_name(INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")

    def _create(self, path: Path) -> int:
        """Make a file of its final size with its header, under another name than its own, and leave it open."""
        header = header_bytes(self._shards[path])
        descriptor = os.open(_unfinished(path), os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        self._open[path] = descriptor
        size = len(header) + self._missing[path]
        with _full_disk_told(path):
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(descriptor, 0, size)
            else:
                os.ftruncate(descriptor, size)
            _write_all(descriptor, memoryview(header), 0)
        return descriptor


def check_space(folder: Path, num_bytes: int) -> None:
    """Refuse to begin what the disk has no room for.

    Raises:
        OutputError: fewer bytes are free than are to be written.
    """
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise OutputError(f"{folder.parent}: has {free / 1e9:.3g} GB free, and {num_bytes / 1e9:.3g} GB are to be written; free some, or "
                          "give another --out")


def _unfinished(path: Path) -> Path:
    """The name of a file that is being written."""
    return path.with_name(f".{path.name}.partial")


def _write_all(descriptor: int, view: memoryview, offset: int) -> None:
    while view:
        count = os.pwrite(descriptor, view[:WRITE_BYTES], offset)
        view, offset = view[count:], offset + count


@contextmanager
def _full_disk_told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError(f"{path.parent.parent}: the disk is full; the merged weights need as much space as the base") from error
        raise
