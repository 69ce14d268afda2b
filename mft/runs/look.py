"""What `mft data show` and `mft data stats` say of data: samples with their mask, lengths and shares in tokens."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from mft.conversation import Conversation
from mft.data.pipeline import PARTS, read_built
from mft.data.statistics import build_statistics, histogram, length_summary
from mft.errors import DataError
from mft.files import MANIFEST, read_json
from mft.runs.inputs import ANY_LENGTH, open_input, resolve_tokenizer, with_reading
from mft.tokenization.compatibility import format_for
from mft.tokenization.encode import TokenizedSample
from mft.tokenization.load import TextTokenizer, load_tokenizer
from mft.tokenization.store import EncodedSet, encode_conversations, encode_in_turn, read_tokens, statistics
from mft.tokenization.token_store import TokenStore

SHOWN_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Shown:
    """Samples to look at. `tasks[sample.task_id]` is a sample's task."""

    samples: Sequence[TokenizedSample]
    tokenizer: TextTokenizer
    tasks: Sequence[str]


def show_input(source: Path, format_name: str, tokenizer: str, number: int, converter: str, task: str | None = None) -> Shown:
    """The first `number` samples of an input, of one task if it is named; no more rows are read than these need.

    Raises:
        DataError: there is no such input, or no such task in it.
    """
    loaded = load_tokenizer(resolve_tokenizer(tokenizer))
    prompt_format = format_for(format_name, loaded)
    tasks: dict[str, None] = {}     # in the order in which they first appear
    rows = _noting_tasks(open_input(source, converter).rows, tasks)
    chosen = (row for row in rows if task in (None, row.task))
    samples: list[TokenizedSample] = []
    while len(samples) < number and (batch := list(islice(chosen, min(SHOWN_AT_ONCE, number)))):
        samples += encode_conversations(batch, prompt_format, loaded, ANY_LENGTH, list(tasks)).samples
    if task is not None and task not in tasks:
        raise DataError(f"{source}: has no task '{task}'; its tasks are {', '.join(sorted(tasks))}")
    return Shown(samples[:number], loaded, list(tasks))


def _noting_tasks(rows: Iterator[Conversation], tasks: dict[str, None]) -> Iterator[Conversation]:
    for row in rows:
        tasks.setdefault(row.task)
        yield row


def stats_of(folder: Path, format_name: str | None = None, tokenizer: str | None = None, context: int | None = None) -> dict[str, Any]:
    """`mft data stats`: of a built folder `build_statistics`, and with a format and a tokenizer `token_statistics` beside it;
    of an encoded folder `token_statistics`.

    Raises:
        DataError: the folder is neither, or it is encoded and a format, tokenizer or context is given.
    """
    manifest = read_json(folder / MANIFEST) if (folder / MANIFEST).is_file() else {}
    given = [value for value in (format_name, tokenizer, context) if value is not None]
    if "statistics" in manifest:
        if format_name is not None or tokenizer is not None:
            raise DataError(f"{folder}: holds tokens already; --format and --tokenizer go with a built folder")
        reading = manifest.get("reading", {})
        facts = token_statistics(read_tokens(folder, context), manifest.get("train_conversations"), manifest.get("mixture"))
        return with_reading(facts, facts["read"] + sum(reading.values()), reading)
    if manifest.get("kind") != "data":
        raise DataError(f"{folder}: is neither a folder that `mft data build` wrote nor one of `mft data encode --out`")
    if not given:
        return build_statistics(folder)
    if format_name is None or tokenizer is None:
        raise DataError("counting the tokens of a built folder needs both --format and --tokenizer")
    return _stats_with_tokens(folder, format_name, tokenizer, context)


def _stats_with_tokens(folder: Path, format_name: str, tokenizer: str, context: int | None) -> dict[str, Any]:
    """The statistics of a built folder and those of its tokens; drops of both, reads of the build."""
    built, loaded = build_statistics(folder), load_tokenizer(resolve_tokenizer(tokenizer))
    parts = read_built(folder)
    encoded, ends = encode_in_turn([parts[part] for part in PARTS], format_for(format_name, loaded), loaded, context or ANY_LENGTH,
                                   list(built["per_task"]))
    if context is None:     # packing is then into rows of the longest sample, and says nothing
        encoded = encoded.at(int(encoded.samples.lengths.max(initial=1)))
    tokens = token_statistics(encoded, ends[0], built["mixture"])
    if context is None:
        tokens |= {"context": None, "rows": None, "fill": None}
    per_task = {task: {**built["per_task"][task], **counts} for task, counts in tokens["per_task"].items()}
    return {**built, **tokens, "per_task": per_task, "building": {key: built[key] for key in ("read", "kept", "emitted", "dropped")}}


def token_statistics(encoded: EncodedSet, train_conversations: int | None, mixture: Mapping[str, Any] | None) -> dict[str, Any]:
    """The contract keys of `mft data encode`, with for each task `lengths` in tokens, and

        "unit": "tokens", "histogram": of the lengths,
        "mixture": that of the build, each task with `tokens`, `token_share`, `trained_tokens`, `trained_token_share`,
                   of training samples, beside the `requested_share` and `realised_share` of rows; null where no build is known

    The first `train_conversations` conversations of the set are the training rows; None: all.
    """
    lengths: dict[str, list[int]] = {task: [] for task in encoded.tasks}
    records = encoded.samples.records
    for index, task in enumerate(encoded.tasks):
        lengths[task] = records["tokens"][records["task"] == index].tolist()
    facts = statistics(encoded)
    conversations = encoded.samples.records["conversation"]
    train = encoded.samples if train_conversations is None else encoded.samples.select(conversations < train_conversations)
    per_task = {task: {**counts, "lengths": length_summary(lengths[task])} for task, counts in facts["per_task"].items()}
    return {**facts, "kind": "tokens", "unit": "tokens", "context": encoded.context, "per_task": per_task,
            "parts": {"train": len(train), "validation": len(encoded.samples) - len(train)},
            "mixture": _token_mixture(train, encoded.tasks, mixture), "histogram": histogram(lengths)}


def _token_mixture(train: TokenStore, tasks: Sequence[str], mixture: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if mixture is None:
        return None
    own = train.records["task"]
    sums = (np.bincount(own, weights=train.records[key], minlength=len(tasks)).astype(int).tolist() for key in ("tokens", "trained"))
    tokens, trained = (dict(zip(tasks, values, strict=True)) for values in sums)
    counts = {task: {**facts, "tokens": tokens[task], "token_share": _share(tokens[task], sum(tokens.values())),
                     "trained_tokens": trained[task], "trained_token_share": _share(trained[task], sum(trained.values()))}
              for task, facts in mixture["tasks"].items()}
    return {**mixture, "tasks": counts}


def _share(part: int, whole: int) -> float:
    return round(part / whole, 6) if whole else 0.0
