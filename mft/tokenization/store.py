"""Whole inputs to encoded sets, with a ledger; encoded sets to disk and back."""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from mft.conversation import Conversation
from mft.errors import DataError
from mft.files import atomic_file, atomic_folder, check_manifest, write_manifest
from mft.formats.base import PromptFormat
from mft.tokenization.encode import EncodedRow, TokenizedSample, encode_many, encoding_fault
from mft.tokenization.packing import pack

if TYPE_CHECKING:
    from mft.tokenization.load import TextTokenizer

logger = logging.getLogger(__name__)

TOKENS_FILE = "tokens.parquet"
BATCH = 256
SCHEMA = pa.schema([("id", pa.string()), ("task", pa.string()),
                    ("input_ids", pa.list_(pa.int32())), ("labels", pa.list_(pa.int32()))])


@dataclass(slots=True)
class EncodedSet:
    """Samples of at most `context` tokens, and what became of every conversation: `read == kept + sum(dropped)`.

    `tasks[sample.task_id]` is a sample's task. There are more samples than `kept` where a conversation gave several rows.
    """

    tasks: tuple[str, ...]
    context: int
    samples: list[TokenizedSample] = field(default_factory=list)
    read: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)


def encode_conversations(rows: Iterable[Conversation], prompt_format: PromptFormat, tokenizer: "TextTokenizer", context: int,
                         tasks: Sequence[str]) -> EncodedSet:
    """Encode conversations in order. Task ids are positions in `tasks`.

    A conversation is dropped, whole and counted, when the format cannot render it (the reasons of `PromptFormat.fault`), the
    vocabulary cannot say it (`half_surrogate`, `space_mark`) or it is longer than `context` tokens (`over_context`). Nothing is cut.

    Raises:
        DataError: a conversation is of a task that is not in `tasks`.
    """
    encoded = EncodedSet(tuple(tasks), context)
    for _ in _encode(rows, prompt_format, tokenizer, encoded):
        pass
    return encoded


def write_jsonl(path: Path, rows: Iterable[Conversation], prompt_format: PromptFormat, tokenizer: "TextTokenizer", context: int,
                tasks: Sequence[str]) -> EncodedSet:
    """As `encode_conversations`, and write each sample as a line `{"id", "task", "text", "input_ids", "labels"}`.

    `text` is all that was rendered for the sample; it is not kept in memory.
    """
    encoded = EncodedSet(tuple(tasks), context)
    with atomic_file(path) as partial, partial.open("w", encoding="utf-8") as stream:
        for row in _encode(rows, prompt_format, tokenizer, encoded):
            sample = row.sample
            line = {"id": sample.id, "task": encoded.tasks[sample.task_id], "text": row.text,
                    "input_ids": sample.input_ids, "labels": sample.labels}
            stream.write(json.dumps(line, ensure_ascii=False) + "\n")
    return encoded


def statistics(encoded: EncodedSet, seed: int = 0) -> dict[str, Any]:
    """Counts of an encoded set, with the rows that packing would need; the keys are a contract (DESIGN.md).

    `tokens` and `trained_tokens` count every sample once; `fill` is tokens / (rows * context).
    """
    lengths = [len(sample.input_ids) for sample in encoded.samples]
    rows = len(pack(lengths, encoded.context, seed))
    per_task = {task: {"samples": 0, "tokens": 0, "trained_tokens": 0} for task in encoded.tasks}
    for sample, length in zip(encoded.samples, lengths, strict=True):
        counts = per_task[encoded.tasks[sample.task_id]]
        counts["samples"] += 1
        counts["tokens"] += length
        counts["trained_tokens"] += sample.trained_tokens
    return {
        "read": encoded.read, "kept": encoded.kept, "emitted": len(lengths), "dropped": dict(encoded.dropped.most_common()),
        "samples": len(lengths), "tokens": sum(lengths), "trained_tokens": sum(task["trained_tokens"] for task in per_task.values()),
        "rows": rows, "fill": sum(lengths) / (rows * encoded.context) if rows else 0.0, "per_task": per_task,
    }


def write_tokens(folder: Path, encoded: EncodedSet, facts: Mapping[str, Any], *, replace: bool = False) -> dict[str, Any]:
    """Write `tokens.parquet` (id, task, input_ids, labels) and `manifest.json`, whole or not at all; returns the manifest.

    `facts` says what made the set (format, tokenizer hash, input); tasks, context and the statistics are added.

    Raises:
        OutputError: the folder exists and is not empty, unless `replace`.
    """
    with atomic_folder(folder, replace=replace) as partial:
        with pq.ParquetWriter(partial / TOKENS_FILE, SCHEMA, compression="zstd") as writer:
            for start in range(0, len(encoded.samples), 8192):
                samples = encoded.samples[start:start + 8192]
                writer.write_table(pa.table({
                    "id": [sample.id for sample in samples],
                    "task": [encoded.tasks[sample.task_id] for sample in samples],
                    "input_ids": [sample.input_ids for sample in samples],
                    "labels": [sample.labels for sample in samples],
                }, schema=SCHEMA))
        return write_manifest(partial, {
            **facts, "tasks": list(encoded.tasks), "context": encoded.context, "statistics": statistics(encoded)})


def read_tokens(folder: Path) -> EncodedSet:
    """Read what `write_tokens` wrote.

    Raises:
        CheckFailed: there is no manifest, or a file is not as the manifest says.
    """
    manifest = check_manifest(folder)
    encoded = EncodedSet(tuple(manifest["tasks"]), manifest["context"], read=manifest["statistics"]["read"],
                         kept=manifest["statistics"]["kept"], dropped=Counter(manifest["statistics"]["dropped"]))
    task_ids = {task: index for index, task in enumerate(encoded.tasks)}
    for batch in pq.ParquetFile(folder / TOKENS_FILE).iter_batches():
        columns = (batch.column(name).to_pylist() for name in SCHEMA.names)
        encoded.samples += [TokenizedSample(tuple(input_ids), tuple(labels), task_ids[task], name)
                            for name, task, input_ids, labels in zip(*columns, strict=True)]
    return encoded


def _encode(rows: Iterable[Conversation], prompt_format: PromptFormat, tokenizer: "TextTokenizer",
            encoded: EncodedSet) -> Iterator[EncodedRow]:
    """Encode in batches, count in `encoded`, and hand on each row whose sample was kept."""
    task_ids = {task: index for index, task in enumerate(encoded.tasks)}
    source = iter(rows)
    while batch := list(islice(source, BATCH)):
        sound = []
        for conversation in batch:
            if conversation.task not in task_ids:
                raise DataError(f"{conversation.id}: task '{conversation.task}' is not one of {', '.join(encoded.tasks)}")
            if reason := encoding_fault(conversation.messages, prompt_format, tokenizer):
                encoded.dropped[reason] += 1
            else:
                sound.append(conversation)
        encoded.read += len(batch)
        for kept in encode_many(sound, prompt_format, tokenizer, [task_ids[conversation.task] for conversation in sound]):
            # All rows of a conversation share its fate: whether it fits must not depend on how its answers begin.
            if any(len(row.sample.input_ids) > encoded.context for row in kept):
                encoded.dropped["over_context"] += 1
                continue
            encoded.kept += 1
            encoded.samples += [row.sample for row in kept]
            yield from kept
    logger.info("encode (%s): read %d, kept %d, emitted %d, dropped %s", prompt_format.name, encoded.read, encoded.kept,
                len(encoded.samples), dict(encoded.dropped) or "none")
