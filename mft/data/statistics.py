"""Lengths, languages and shares of a built folder, in rows and characters: no tokenizer is needed."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mft.conversation import Conversation
from mft.data.filters.config import LanguageStep
from mft.data.filters.language import language_of
from mft.data.filters.parts import texts_of
from mft.data.mixture.emit import trained_characters
from mft.data.pipeline import read_built
from mft.files import MANIFEST, read_json

BINS = 40
"""Bins of a histogram of lengths: equal on a logarithmic axis, since rows of one data set differ a thousandfold."""

PERCENTILES = {"p50": 50, "p90": 90, "p99": 99}

LANGUAGES = ("zh", "en", "other", "none")
HAN_SHARE: float = LanguageStep.model_fields["han_share"].default
"""Rows are judged as the step `language` judges them by default: by the script of what the user says, code taken out."""


def build_statistics(folder: Path) -> dict[str, Any]:
    """What a folder of `mft data build` holds, of both parts together:

        {"kind": "data", "unit": "characters", "read", "kept", "emitted", "dropped": {reason: n}, "steps": [...], "joined": {...},
         "samples", "characters", "trained_characters",
         "languages": {"zh", "en", "other", "none"}: rows by the script of their questions,
         "per_task": {t: {"train", "validation", "samples", "characters", "trained_characters", "languages", "lengths": {...}}},
         "mixture": of training rows (mft/data/mixture/emit.py), "histogram": `histogram` of the lengths}

    A length is the characters of all messages of a row; `trained_characters` are those of answers that are trained.

    Raises:
        DataError: it is no such folder.
    """
    parts = read_built(folder)
    manifest = read_json(folder / MANIFEST)
    lengths: dict[str, list[int]] = {task: [] for task in manifest["per_task"]}
    trained = dict.fromkeys(lengths, 0)
    languages: dict[str, Counter[str]] = {task: Counter() for task in lengths}
    for row in (row for rows in parts.values() for row in rows):
        lengths[row.task].append(sum(len(message.content) for message in row.messages))
        trained[row.task] += trained_characters(row)
        languages[row.task][_language(row)] += 1
    per_task = {task: {**manifest["per_task"][task], "samples": len(values), "characters": sum(values),
                       "trained_characters": trained[task], "languages": _in_order(languages[task]), "lengths": length_summary(values)}
                for task, values in lengths.items()}
    ledger = {key: manifest.get(key) for key in ("read", "kept", "emitted", "dropped", "steps", "joined", "mixture")}
    return {"kind": "data", "unit": "characters", **ledger, "samples": sum(map(len, lengths.values())),
            "characters": sum(map(sum, lengths.values())), "trained_characters": sum(trained.values()), "per_task": per_task,
            "languages": _in_order(sum(languages.values(), Counter())), "histogram": histogram(lengths)}


def _language(row: Conversation) -> str:
    return language_of("\n".join(texts_of(row, "user")), HAN_SHARE)


def _in_order(counts: Counter[str]) -> dict[str, int]:
    return {language: counts[language] for language in LANGUAGES}


def length_summary(values: Sequence[int]) -> dict[str, float]:
    """`{mean, p50, p90, p99, max}`; a percentile is the smallest length that is not exceeded by that share of the rows.

    >>> length_summary([1, 2, 3, 10])
    {'mean': 4.0, 'p50': 2, 'p90': 10, 'p99': 10, 'max': 10}
    """
    if not values:
        return {"mean": 0.0, **dict.fromkeys(PERCENTILES, 0), "max": 0}
    found = np.percentile(values, list(PERCENTILES.values()), method="inverted_cdf")
    return {"mean": round(float(np.mean(values)), 1), **{name: int(value) for name, value in zip(PERCENTILES, found, strict=True)},
            "max": max(values)}


def histogram(lengths: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """`{"edges": [...], "tasks": {t: counts}}`: bin i holds the lengths from edges[i] up to, not including, edges[i+1].

    Edges are whole numbers, at most `BINS` + 1 of them, from the shortest length to one above the longest.
    """
    every = [length for values in lengths.values() for length in values]
    if not every:
        return {"edges": [], "tasks": {task: [] for task in lengths}}
    low, high = min(every), max(every) + 1
    edges = np.unique(np.geomspace(max(1, low), high, BINS + 1).round().astype(int))
    edges[0], edges[-1] = low, high
    return {"edges": edges.tolist(), "tasks": {task: np.histogram(values, bins=edges)[0].tolist() for task, values in lengths.items()}}
