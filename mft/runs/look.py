"""What `mft data show` and `mft data stats` say of data: samples with their mask, lengths and shares in tokens."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mft.data.pipeline import read_built
from mft.data.statistics import build_statistics, histogram, length_summary
from mft.errors import DataError
from mft.files import MANIFEST, read_json
from mft.runs.inputs import ANY_LENGTH, encode_parts, read_input, resolve_tokenizer, tasks_of, with_reading
from mft.tokenization.compatibility import format_for
from mft.tokenization.encode import TokenizedSample
from mft.tokenization.load import TextTokenizer, load_tokenizer
from mft.tokenization.store import EncodedSet, encode_conversations, read_tokens, statistics


@dataclass(frozen=True, slots=True)
class Shown:
    """Samples to look at. `tasks[sample.task_id]` is a sample's task."""

    samples: Sequence[TokenizedSample]
    tokenizer: TextTokenizer
    tasks: Sequence[str]


def show_input(source: Path, format_name: str, tokenizer: str, number: int, converter: str, task: str | None = None) -> Shown:
    """The first `number` samples of an input, of one task if it is named.

    Raises:
        DataError: there is no such input, or no such task in it.
    """
    loaded = load_tokenizer(resolve_tokenizer(tokenizer))
    rows, _ = read_input(source, converter)
    tasks = tasks_of(rows)
    if task is not None and task not in tasks:
        raise DataError(f"{source}: has no task '{task}'; its tasks are {', '.join(sorted(tasks))}")
    chosen = [row for row in rows if task in (None, row.task)]
    prompt_format = format_for(format_name, loaded)
    samples: list[TokenizedSample] = []
    for start in range(0, len(chosen), 64):
        if len(samples) >= number:
            break
        samples += encode_conversations(chosen[start:start + 64], prompt_format, loaded, ANY_LENGTH, tasks).samples
    return Shown(samples[:number], loaded, tasks)


def stats_of(folder: Path, format_name: str | None = None, tokenizer: str | None = None, context: int | None = None) -> dict[str, Any]:
    """`mft data stats`: of a built folder `build_statistics`, and with a format and a tokenizer `token_statistics` beside it;
    of an encoded folder `token_statistics`.

    Raises:
        DataError: the folder is neither, or it is encoded and a format, tokenizer or context is given.
    """
    manifest = read_json(folder / MANIFEST) if (folder / MANIFEST).is_file() else {}
    given = [name for name, value in (("--format", format_name), ("--tokenizer", tokenizer), ("--context", context)) if value is not None]
    if "statistics" in manifest:
        if given:
            raise DataError(f"{folder}: holds tokens already; {' and '.join(given)} go with a built folder")
        reading = manifest.get("reading", {})
        encoded = read_tokens(folder)
        facts = token_statistics(encoded, (manifest.get("parts") or {}).get("train", len(encoded.samples)), manifest.get("mixture"))
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
    encoded, train = encode_parts(parts, format_for(format_name, loaded), loaded, context or ANY_LENGTH, list(built["per_task"]))
    if context is None:     # packing is then into rows of the longest sample, and says nothing
        encoded.context = max((len(sample.input_ids) for sample in encoded.samples), default=1)
    tokens = token_statistics(encoded, train, built["mixture"])
    if context is None:
        tokens |= {"context": None, "rows": None, "fill": None}
    per_task = {task: {**built["per_task"][task], **counts} for task, counts in tokens["per_task"].items()}
    return {**built, **tokens, "per_task": per_task, "building": {key: built[key] for key in ("read", "kept", "emitted", "dropped")}}


def token_statistics(encoded: EncodedSet, train_samples: int, mixture: Mapping[str, Any] | None) -> dict[str, Any]:
    """The contract keys of `mft data encode`, with for each task `lengths` in tokens, and

        "unit": "tokens", "histogram": of the lengths,
        "mixture": that of the build, each task with `tokens`, `token_share`, `trained_tokens`, `trained_token_share`,
                   of training samples, beside the `requested_share` and `realised_share` of rows; null where no build is known

    The first `train_samples` samples are the training rows'.
    """
    lengths: dict[str, list[int]] = {task: [] for task in encoded.tasks}
    for sample in encoded.samples:
        lengths[encoded.tasks[sample.task_id]].append(len(sample.input_ids))
    facts = statistics(encoded)
    per_task = {task: {**counts, "lengths": length_summary(lengths[task])} for task, counts in facts["per_task"].items()}
    return {**facts, "kind": "tokens", "unit": "tokens", "context": encoded.context, "per_task": per_task,
            "parts": {"train": train_samples, "validation": len(encoded.samples) - train_samples},
            "mixture": _token_mixture(encoded, train_samples, mixture), "histogram": histogram(lengths)}


def _token_mixture(encoded: EncodedSet, train_samples: int, mixture: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if mixture is None:
        return None
    tokens: Counter[str] = Counter()
    trained: Counter[str] = Counter()
    for sample in encoded.samples[:train_samples]:
        tokens[encoded.tasks[sample.task_id]] += len(sample.input_ids)
        trained[encoded.tasks[sample.task_id]] += sample.trained_tokens
    tasks = {task: {**counts, "tokens": tokens[task], "token_share": _share(tokens[task], tokens.total()),
                    "trained_tokens": trained[task], "trained_token_share": _share(trained[task], trained.total())}
             for task, counts in mixture["tasks"].items()}
    return {**mixture, "tasks": tasks}


def _share(part: int, whole: int) -> float:
    return round(part / whole, 6) if whole else 0.0
