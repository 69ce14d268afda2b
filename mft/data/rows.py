"""Conversations as Parquet, which `datasets.load_dataset("parquet", ...)` and everyone's tools read."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Any, overload

import pyarrow as pa
import pyarrow.parquet as pq

from mft.conversation import Conversation, Message
from mft.errors import DataError

ROWS_PER_GROUP = 10_000
ROWS_PER_BATCH = 1_000
"""Rows that are Python objects at once while a file is read."""

SCHEMA = pa.schema([
    pa.field("id", pa.string(), nullable=False),
    pa.field("task", pa.string(), nullable=False),
    pa.field("origin", pa.string(), nullable=False),
    pa.field("split_key", pa.string(), nullable=False),
    pa.field("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string()), ("train", pa.bool_()),
                                                     ("untrained", pa.list_(pa.list_(pa.int32()))), ("input_start", pa.int32())])),
             nullable=False),
])

OPTIONAL = ("untrained", "input_start")
"""Columns of a message that most rows leave empty; a file without them is read too."""


def to_record(conversation: Conversation) -> dict[str, Any]:
    """A conversation as plain data, one key a column."""
    messages = [{"role": message.role, "content": message.content, "train": message.train,
                 "untrained": [list(span) for span in message.untrained], "input_start": message.input_start}
                for message in conversation.messages]
    return {"id": conversation.id, "task": conversation.task, "origin": conversation.origin, "split_key": conversation.split_key,
            "messages": messages}


def write_rows(path: Path, conversations: Iterable[Conversation], rows_per_group: int = ROWS_PER_GROUP) -> int:
    """Write one Parquet file, holding one row group in memory at a time, and return the number of rows; no row is a file too."""
    written, rows = 0, iter(conversations)
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        while group := [to_record(row) for row in islice(rows, rows_per_group)]:
            writer.write_table(pa.Table.from_pylist(group, schema=SCHEMA))
            written += len(group)
    return written


def read_rows(path: Path) -> Iterator[Conversation]:
    """The conversations of a file that `write_rows` wrote, or of any Parquet file with its columns.

    Raises:
        DataError: the file is missing, not Parquet, or lacks a column.
    """
    with _opened(path) as file:
        missing = set(SCHEMA.names) - set(file.schema_arrow.names)
        if missing:
            raise DataError(f"{path}: has no column {', '.join(sorted(missing))}; expected {', '.join(SCHEMA.names)}")
        for batch in file.iter_batches(ROWS_PER_BATCH, columns=SCHEMA.names):
            for row in batch.to_pylist():
                yield _conversation(row)


def _opened(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: not a Parquet file: {error}") from error


def _row_count(path: Path) -> int:
    with _opened(path) as file:
        return int(file.metadata.num_rows)


def _row_of(path: Path, number: int) -> Conversation:
    with _opened(path) as file:
        group = 0
        while number >= (rows := file.metadata.row_group(group).num_rows):
            number -= rows
            group += 1
        return _conversation(file.read_row_group(group, columns=SCHEMA.names).slice(number, 1).to_pylist()[0])


def _conversation(row: Mapping[str, Any]) -> Conversation:
    return Conversation(row["id"], row["task"], tuple(_message(message) for message in row["messages"]), row["origin"], row["split_key"])


def _message(record: Mapping[str, Any]) -> Message:
    """A message; the last two columns may be missing (a file that another tool wrote)."""
    spans = tuple((start, end) for start, end in record.get("untrained") or ())
    return Message(record["role"], record["content"], record["train"], spans, record.get("input_start"))


def content_hash(parts: Mapping[str, Iterable[Conversation]]) -> str:
    """Hex sha256 of the parts as canonical JSON lines: `{"part", "id", "task", "messages", "origin", "split_key"}`, keys sorted.

    A message is `{role, content, train}`, with `untrained` and `input_start` where it has them. The hash depends on what the rows
    say and on their order, not on how Parquet packs them.
    """
    digest = hashlib.sha256()
    for part, conversations in parts.items():
        for conversation in conversations:
            digest.update(hash_line(part, to_record(conversation)))
    return digest.hexdigest()


def hash_line(part: str, record: Mapping[str, Any]) -> bytes:
    """The line of one record, as `to_record` or Parquet gives it, that goes into the content hash."""
    messages = [{key: value for key, value in message.items() if key not in OPTIONAL or value not in ([], None)}
                for message in record["messages"]]
    line = json.dumps({"part": part, **record, "messages": messages}, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return line.encode("utf-8") + b"\n"


class StoredRows(Sequence[Conversation]):
    """The rows of Parquet files one after another, read when they are asked for; iterating holds one batch in memory.

    A row by its number decodes its row group: go through the rows in order where there are many.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = tuple(paths)

    @cached_property
    def _lengths(self) -> tuple[int, ...]:
        return tuple(map(_row_count, self.paths))

    def __len__(self) -> int:
        return sum(self._lengths)

    def __iter__(self) -> Iterator[Conversation]:
        return chain.from_iterable(read_rows(path) for path in self.paths)

    @overload
    def __getitem__(self, index: int) -> Conversation: ...
    @overload
    def __getitem__(self, index: slice) -> list[Conversation]: ...

    def __getitem__(self, index: int | slice) -> Conversation | list[Conversation]:
        """One row, or a list of those that a slice names."""
        if isinstance(index, slice):
            wanted = range(len(self))[index]
            if wanted.step > 0:
                return list(islice(self, wanted.start, wanted.stop, wanted.step))
            return [self[number] for number in wanted]
        number = range(len(self))[index]
        for path, length in zip(self.paths, self._lengths, strict=True):
            if number < length:
                return _row_of(path, number)
            number -= length
        raise AssertionError("the lengths of the files do not add up")

    def __eq__(self, other: object) -> bool:
        """Equal to any sequence of the same rows in the same order."""
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(mine == its for mine, its in zip_longest(self, other))

    __hash__ = None  # type: ignore[assignment]
