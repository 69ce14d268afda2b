"""Token ids of a whole data set as flat arrays, opened by memory map.

    ids.bin        every sample's ids, one after another            uint16, or uint32 for a vocabulary above 65,536 pieces
    spans.bin      [start, end) of the trained tokens, counted from the start of the sample              int32 [P, 2]
    samples.bin    one record a sample (RECORD): where its ids, spans and name begin, how many there are, task, conversation
    names.bin      every sample's id, UTF-8
    manifest.json  tasks, counts, what it was made from, hashes

Opening reads `manifest.json` alone. Labels are made from the spans where they are needed; nothing else says what is trained.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import eq
from pathlib import Path
from typing import Any, Final, overload

import numpy as np
from numpy.typing import NDArray

from mft.errors import CheckFailed
from mft.files import MANIFEST, atomic_folder, check_manifest, read_json, write_manifest
from mft.tokenization.encode import IGNORE_INDEX, IdRow, TokenizedSample

RECORD: Final = np.dtype([("start", "<i8"), ("spans", "<i8"), ("name", "<i8"), ("tokens", "<i4"), ("trained", "<i4"),
                          ("span_count", "<i4"), ("name_bytes", "<i4"), ("task", "<i4"), ("conversation", "<i4")])
PACKED: Final = struct.Struct("<qqqiiiiii")
LAYOUT: Final = 1
"""Raised when the files of a store change their meaning."""

ID_TYPES: Final = ("<u2", "<u4")
FILES: Final = ("ids.bin", "spans.bin", "samples.bin", "names.bin")


@dataclass(frozen=True, slots=True, eq=False)
class TokenStore(Sequence[TokenizedSample]):
    """Samples to read by index: as objects, or as arrays for a training step.

    `ids` [N tokens]; `spans` [P, 2]; `names` [bytes]; `records` [S samples], which may be a part of those that the flat arrays hold.
    """

    ids: NDArray[Any]
    spans: NDArray[np.int32]
    names: NDArray[np.uint8]
    records: NDArray[Any]

    def __len__(self) -> int:
        return len(self.records)

    @overload
    def __getitem__(self, index: int) -> TokenizedSample: ...
    @overload
    def __getitem__(self, index: slice) -> "TokenStore": ...
    def __getitem__(self, index: int | slice) -> "TokenizedSample | TokenStore":
        if isinstance(index, slice):
            return replace(self, records=self.records[index])
        record = self.records[index]
        ids, labels = self.arrays(record)
        name = self.names[record["name"]:record["name"] + record["name_bytes"]].tobytes().decode()
        return TokenizedSample(tuple(ids.tolist()), tuple(labels.tolist()), int(record["task"]), name)

    def __iter__(self) -> Iterator[TokenizedSample]:
        return (self[index] for index in range(len(self)))

    def __eq__(self, other: object) -> bool:
        """The same samples in the same order, wherever they lie."""
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(eq, self, other))

    __hash__ = None   # type: ignore[assignment]

    @property
    def lengths(self) -> NDArray[np.int32]:
        """Tokens of each sample, [S]."""
        return np.ascontiguousarray(self.records["tokens"])

    @property
    def conversations(self) -> int:
        """Conversations that the store was made of: one more than the number of the last."""
        return int(self.records["conversation"].max(initial=-1)) + 1

    def arrays(self, record: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(input_ids, labels) of the sample of a record, each int64 [T]."""
        start, tokens, first, count = (int(record[key]) for key in ("start", "tokens", "spans", "span_count"))
        ids = self.ids[start:start + tokens].astype(np.int64)
        labels = np.full(tokens, IGNORE_INDEX, dtype=np.int64)
        for begin, end in self.spans[first:first + count].tolist():
            labels[begin:end] = ids[begin:end]
        return ids, labels

    def select(self, indices: NDArray[Any]) -> "TokenStore":
        """Some of the samples, in this order; nothing is copied but their records."""
        return replace(self, records=self.records[indices])

    def within(self, context: int) -> tuple["TokenStore", int]:
        """The samples of conversations none of whose samples is longer than `context` tokens, and how many conversations go.

        All rows of a conversation share its fate: whether it fits must not depend on how its answers begin.
        """
        conversations = np.unique(self.records["conversation"][self.records["tokens"] > context])
        if not len(conversations):
            return self, 0
        return self.select(~np.isin(self.records["conversation"], conversations)), len(conversations)


def lengths_of(samples: Sequence[TokenizedSample]) -> Sequence[int]:
    """Tokens of each sample; of a store without reading one."""
    return samples.lengths.tolist() if isinstance(samples, TokenStore) else [len(sample.input_ids) for sample in samples]


def tasks_of(samples: Sequence[TokenizedSample]) -> NDArray[np.int64]:
    """Task id of each sample; of a store without reading one."""
    if isinstance(samples, TokenStore):
        return samples.records["task"].astype(np.int64)
    return np.array([sample.task_id for sample in samples], dtype=np.int64)


class StoreBuilder:
    """Takes rows one by one; memory is that of the store itself."""

    def __init__(self, id_type: "np.dtype[np.unsignedinteger]") -> None:
        self._id_type = id_type
        self._ids, self._names, self._spans, self._records = bytearray(), bytearray(), bytearray(), bytearray()
        self._tokens = self._span_count = self._conversations = 0

    def add(self, rows: Sequence[IdRow], task_id: int) -> None:
        """The rows of one conversation."""
        for row in rows:
            name, count = row.name.encode(), len(row.spans)
            flat = [edge for span in row.spans for edge in span]
            self._records += PACKED.pack(self._tokens, self._span_count, len(self._names), row.tokens, sum(flat[1::2]) - sum(flat[::2]),
                                         count, len(name), task_id, self._conversations)
            self._ids += row.ids
            self._names += name
            self._spans += struct.pack(f"<{2 * count}i", *flat)
            self._tokens += row.tokens
            self._span_count += count
        self._conversations += 1

    def store(self) -> TokenStore:
        """What was added so far, without a copy."""
        return TokenStore(np.frombuffer(self._ids, dtype=self._id_type), np.frombuffer(self._spans, dtype="<i4").reshape(-1, 2),
                          np.frombuffer(self._names, dtype="u1"), np.frombuffer(self._records, dtype=RECORD))


def write_store(folder: Path, store: TokenStore, facts: Mapping[str, Any], *, replace: bool = False) -> dict[str, Any]:
    """Write a store and a manifest with `facts`, whole or not at all; returns the manifest.

    Raises:
        OutputError: the folder exists and is not empty, unless `replace`.
    """
    with atomic_folder(folder, replace=replace) as partial:
        for name, array in zip(FILES, (store.ids, store.spans, store.records, store.names), strict=True):
            (partial / name).write_bytes(np.ascontiguousarray(array).reshape(-1).view("u1").data)
        return write_manifest(partial, {**facts, "layout": LAYOUT, "id_type": store.ids.dtype.str, "samples": len(store)})


def open_store(folder: Path, *, verify: bool = False) -> tuple[TokenStore, dict[str, Any]]:
    """Open what `write_store` wrote: the store and its manifest. With `verify` every byte is hashed, else file sizes are compared.

    Raises:
        CheckFailed: there is no manifest, a file is not as the manifest says, or another mft wrote it in another layout.
    """
    manifest = _quick_check(folder)
    if verify:
        check_manifest(folder)
    ids, spans, records, names = (_mapped(folder / name, dtype) for name, dtype in zip(
        FILES, (np.dtype(manifest["id_type"]), np.dtype("<i4"), RECORD, np.dtype("u1")), strict=True))
    if len(records) != manifest["samples"]:
        raise CheckFailed(f"{folder}: holds {len(records)} samples; the manifest says {manifest['samples']}")
    return TokenStore(ids, spans.reshape(-1, 2), names, records), manifest


def _quick_check(folder: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = read_json(folder / MANIFEST)
        sizes = {name: manifest["files"][name]["bytes"] for name in FILES}
        layout, id_type = manifest["layout"], manifest["id_type"]
    except FileNotFoundError as error:
        raise CheckFailed(f"{folder}: has no {MANIFEST}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise CheckFailed(f"{folder / MANIFEST}: is damaged, or not that of a token store") from error
    if layout != LAYOUT or id_type not in ID_TYPES:
        raise CheckFailed(f"{folder}: holds tokens in layout {layout} of type {id_type}; this mft reads layout {LAYOUT} of type "
                          f"{' or '.join(ID_TYPES)}: encode the data again")
    for name, size in sizes.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != size:
            raise CheckFailed(f"{path}: {f'has {path.stat().st_size} bytes' if path.is_file() else 'is missing'}; the manifest says {size}")
    return manifest


def _mapped(path: Path, dtype: "np.dtype[Any]") -> NDArray[Any]:
    """A file as an array; an empty one cannot be mapped."""
    # As a plain array: slicing the memmap subclass takes several times as long.
    return np.asarray(np.memmap(path, dtype=dtype, mode="r")) if path.stat().st_size else np.zeros(0, dtype=dtype)
