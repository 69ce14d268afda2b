"""Whole inputs to encoded sets, with a ledger; encoded sets to disk and back."""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mft.conversation import Conversation
from mft.errors import DataError
from mft.files import atomic_file
from mft.formats.base import PromptFormat
from mft.tokenization.encode import IdRow, encode_many
from mft.tokenization.packing import pack
from mft.tokenization.sections import encoding_fault
from mft.tokenization.token_store import StoreBuilder, TokenStore, open_store, write_store

if TYPE_CHECKING:
    from mft.tokenization.load import TextTokenizer

logger = logging.getLogger(__name__)

BATCH = 1024
"""Conversations that are encoded at once."""


@dataclass(frozen=True, slots=True)
class EncodedSet:
    """What became of every conversation: `read == kept + sum(dropped)`; `samples` have at most `context` tokens.

    `tasks[sample.task_id]` is a sample's task. There are more samples than `kept` where a conversation gave several rows. `store`
    holds samples of every length, so that another context needs no encoding; `faults` are the drops that no context would mend.
    """

    tasks: tuple[str, ...]
    context: int
    store: TokenStore
    read: int
    faults: Counter[str]
    samples: TokenStore = field(init=False)
    kept: int = field(init=False)
    dropped: Counter[str] = field(init=False)

    def __post_init__(self) -> None:
        samples, over = self.store.within(self.context)
        object.__setattr__(self, "samples", samples)
        object.__setattr__(self, "dropped", self.faults + Counter({"over_context": over}))
        object.__setattr__(self, "kept", self.read - self.faults.total() - over)

    def at(self, context: int) -> "EncodedSet":
        """The same with another context."""
        return replace(self, context=context)


def encode_conversations(rows: Iterable[Conversation], prompt_format: PromptFormat, tokenizer: "TextTokenizer", context: int,
                         tasks: Sequence[str] | None = None) -> EncodedSet:
    """Encode conversations in order, taking them as they are needed. Task ids are positions in `tasks`, or without it in the order in
    which tasks first appear.

    A conversation is dropped, whole and counted, when the format cannot render it (the reasons of `PromptFormat.fault`), the
    vocabulary cannot say it (`half_surrogate`, `space_mark`) or it is longer than `context` tokens (`over_context`). Nothing is cut.

    Raises:
        DataError: a conversation is of a task that is not in `tasks`.
    """
    return encode_in_turn([rows], prompt_format, tokenizer, context, tasks)[0]


def encode_in_turn(parts: Iterable[Iterable[Conversation]], prompt_format: PromptFormat, tokenizer: "TextTokenizer", context: int,
                   tasks: Sequence[str] | None = None) -> tuple[EncodedSet, list[int]]:
    """`encode_conversations` of several parts as one set, and behind each part how many conversations the store holds."""
    run, ends = _Encoding(prompt_format, tokenizer, tasks), []
    for rows in parts:
        for _ in run.rows(rows):
            pass
        ends.append(run.stored)
    return run.result(context), ends


def write_jsonl(path: Path, rows: Iterable[Conversation], prompt_format: PromptFormat, tokenizer: "TextTokenizer", context: int,
                tasks: Sequence[str] | None = None) -> EncodedSet:
    """As `encode_conversations`, and write each sample as a line `{"id", "task", "text", "input_ids", "labels"}`.

    `text` is all that was rendered for the sample; it is not kept in memory.
    """
    run = _Encoding(prompt_format, tokenizer, tasks)
    with atomic_file(path) as partial, partial.open("w", encoding="utf-8") as stream:
        for task_id, own in run.rows(rows):
            for row in own if all(row.tokens <= context for row in own) else ():
                sample = row.sample(task_id, tokenizer.id_type)
                line = {"id": sample.id, "task": run.tasks[task_id], "text": row.text, "input_ids": sample.input_ids,
                        "labels": sample.labels}
                stream.write(json.dumps(line, ensure_ascii=False) + "\n")
    return run.result(context)


def statistics(encoded: EncodedSet, seed: int = 0) -> dict[str, Any]:
    """Counts of an encoded set, with the rows that packing would need; the keys are a contract (DESIGN.md).

    `tokens` and `trained_tokens` count every sample once; `fill` is tokens / (rows * context).
    """
    records = encoded.samples.records
    lengths, total = encoded.samples.lengths, int(records["tokens"].sum())
    rows = len(pack(lengths.tolist(), encoded.context, seed))
    sums = {key: np.bincount(records["task"], weights=weights, minlength=len(encoded.tasks)).astype(int).tolist()
            for key, weights in (("samples", None), ("tokens", records["tokens"]), ("trained_tokens", records["trained"]))}
    per_task = {task: {key: values[index] for key, values in sums.items()} for index, task in enumerate(encoded.tasks)}
    return {
        "read": encoded.read, "kept": encoded.kept, "emitted": len(lengths), "dropped": dict(encoded.dropped.most_common()),
        "samples": len(lengths), "tokens": total, "trained_tokens": int(records["trained"].sum()),
        "rows": rows, "fill": total / (rows * encoded.context) if rows else 0.0, "per_task": per_task,
    }


def write_tokens(folder: Path, encoded: EncodedSet, facts: Mapping[str, Any], *, replace: bool = False) -> dict[str, Any]:
    """Write the store of an encoded set (mft/tokenization/token_store.py), whole or not at all; returns the manifest.

    `facts` says what made the set (format, tokenizer hash, input); tasks, context, counts and the statistics are added. Samples of
    every length are written: whoever opens the folder may ask for another context.

    Raises:
        OutputError: the folder exists and is not empty, unless `replace`.
    """
    return write_store(folder, encoded.store, {
        **facts, "tasks": list(encoded.tasks), "context": encoded.context, "read": encoded.read, "faults": dict(encoded.faults),
        "statistics": statistics(encoded)}, replace=replace)


def read_tokens(folder: Path, context: int | None = None, *, verify: bool = False) -> EncodedSet:
    """Open what `write_tokens` wrote, at the context it was written for or another; ids stay on disk until they are read.

    Raises:
        CheckFailed: there is no manifest, or a file is not as the manifest says (with `verify` every byte is looked at).
    """
    store, manifest = open_store(folder, verify=verify)
    return EncodedSet(tuple(manifest["tasks"]), context or manifest["context"], store, manifest["read"], Counter(manifest["faults"]))


class _Encoding:
    """One pass over conversations."""

    def __init__(self, prompt_format: PromptFormat, tokenizer: "TextTokenizer", tasks: Sequence[str] | None) -> None:
        self._format, self._tokenizer, self._takes_all = prompt_format, tokenizer, tasks is None
        self.tasks = list(tasks or ())
        self._task_ids = {task: index for index, task in enumerate(self.tasks)}
        self._builder = StoreBuilder(tokenizer.id_type)
        self._read = 0
        self._faults: Counter[str] = Counter()
        self.stored = 0

    def rows(self, conversations: Iterable[Conversation]) -> Iterator[tuple[int, list[IdRow]]]:
        """(task id, rows) of each conversation that can be encoded."""
        source = iter(conversations)
        while batch := list(islice(source, BATCH)):
            sound = []
            for conversation in batch:
                if conversation.task not in self._task_ids:
                    self._add_task(conversation)
                if reason := encoding_fault(conversation.messages, self._format, self._tokenizer):
                    self._faults[reason] += 1
                else:
                    sound.append(conversation)
            self._read += len(batch)
            for conversation, own in zip(sound, encode_many(sound, self._format, self._tokenizer), strict=True):
                task_id = self._task_ids[conversation.task]
                self._builder.add(own, task_id)
                self.stored += 1
                yield task_id, own

    def _add_task(self, conversation: Conversation) -> None:
        if not self._takes_all:
            raise DataError(f"{conversation.id}: task '{conversation.task}' is not one of {', '.join(self.tasks)}")
        self._task_ids[conversation.task] = len(self.tasks)
        self.tasks.append(conversation.task)

    def result(self, context: int) -> EncodedSet:
        encoded = EncodedSet(tuple(self.tasks), context, self._builder.store(), self._read, self._faults)
        logger.info("encode (%s): read %d, kept %d, emitted %d, dropped %s", self._format.name, encoded.read, encoded.kept,
                    len(encoded.samples), dict(encoded.dropped) or "none")
        return encoded
