"""Conversations as Parquet, which `datasets.load_dataset("parquet", ...)` and everyone's tools read."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mft.conversation import Conversation, Message
from mft.errors import DataError

ROWS_PER_GROUP = 10_000

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


def write_rows(path: Path, conversations: Sequence[Conversation]) -> None:
    """Write one Parquet file; no row is a file too."""
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for start in range(0, len(conversations), ROWS_PER_GROUP):
            rows = [to_record(conversation) for conversation in conversations[start:start + ROWS_PER_GROUP]]
            writer.write_table(pa.Table.from_pylist(rows, schema=SCHEMA))


def read_rows(path: Path) -> Iterator[Conversation]:
    """The conversations of a file that `write_rows` wrote, or of any Parquet file with its columns.

    Raises:
        DataError: the file is missing, not Parquet, or lacks a column.
    """
    try:
        file = pq.ParquetFile(path)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: not a Parquet file: {error}") from error
    with file:
        missing = set(SCHEMA.names) - set(file.schema_arrow.names)
        if missing:
            raise DataError(f"{path}: has no column {', '.join(sorted(missing))}; expected {', '.join(SCHEMA.names)}")
        for batch in file.iter_batches(columns=SCHEMA.names):
            for row in batch.to_pylist():
                messages = tuple(_message(message) for message in row["messages"])
                yield Conversation(row["id"], row["task"], messages, row["origin"], row["split_key"])


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
            record = to_record(conversation)
            record["messages"] = [{key: value for key, value in message.items() if key not in OPTIONAL or value not in ([], None)}
                                  for message in record["messages"]]
            line = json.dumps({"part": part, **record}, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
            digest.update(line.encode("utf-8") + b"\n")
    return digest.hexdigest()
