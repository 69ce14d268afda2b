"""The data of a run as token ids: encoded once, kept beside the run, checked by hash when it goes on."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mft.conversation import Conversation
from mft.data.pipeline import read_built
from mft.errors import CheckFailed
from mft.files import MANIFEST, read_json, sha256_json
from mft.formats.base import PromptFormat
from mft.modeling.config import ModelConfig
from mft.tokenization.compatibility import format_for
from mft.tokenization.encode import TokenizedSample
from mft.tokenization.load import TextTokenizer, load_tokenizer
from mft.tokenization.show import spans
from mft.tokenization.store import EncodedSet, encode_conversations, read_tokens, statistics, write_tokens

logger = logging.getLogger(__name__)

PARTS = ("train", "validation")


@dataclass(frozen=True, slots=True)
class RunTokens:
    """Encoded training and validation samples. `sha256` depends on the rows, the format, the tokenizer and the context."""

    tokenizer: TextTokenizer
    prompt_format: PromptFormat
    parts: dict[str, EncodedSet]
    origins: dict[str, str]
    sha256: str

    @property
    def task_names(self) -> Sequence[str]:
        """Tasks in the order of their ids."""
        return self.parts["train"].tasks

    @property
    def train(self) -> list[TokenizedSample]:
        """Samples to train on."""
        return self.parts["train"].samples

    @property
    def validation(self) -> list[TokenizedSample]:
        """Held-out samples."""
        return self.parts["validation"].samples

    def summary(self) -> dict[str, Any]:
        """For each part: the counts of `mft data encode`, the context and a histogram of the lengths."""
        return {name: {**statistics(part), "context": part.context, "lengths": _histogram(part)} for name, part in self.parts.items()}

    def examples(self, number: int) -> list[dict[str, Any]]:
        """Training samples of `number` tasks as `{id, task, origin, spans: [{text, trained}]}`: of each task the one of median length."""
        by_task: dict[int, list[TokenizedSample]] = {}
        for sample in self.train:
            by_task.setdefault(sample.task_id, []).append(sample)
        chosen = [sorted(samples, key=lambda sample: len(sample.input_ids))[len(samples) // 2] for _, samples in sorted(by_task.items())]
        return [{"id": sample.id, "task": self.task_names[sample.task_id], "origin": self.origins.get(sample.id, ""),
                 "spans": [{"text": span.text, "trained": span.trained} for span in spans(sample, self.tokenizer)]}
                for sample in chosen[:number]]


def encode_run(data: Path, tokenizer_folder: Path, model: ModelConfig, cache: Path) -> RunTokens:
    """Encode a built data folder for a model; what `cache` holds is used when it was made from the same.

    Raises:
        DataError: `data` is no built folder.
        TokenizerError: the tokenizer failed the parity gate, or does not go with the format.
    """
    tokenizer = load_tokenizer(tokenizer_folder)
    prompt_format = format_for(model.format, tokenizer)
    rows = read_built(data)
    manifest = read_json(data / MANIFEST)
    tasks = list(manifest["per_task"])
    key = sha256_json({"rows": manifest["sha256"], "tokenizer": tokenizer.sha256, "context": model.context, "tasks": tasks,
                       "format": [prompt_format.reference, prompt_format.chat_template()]})
    parts = {name: _part(cache / name, rows[name], prompt_format, tokenizer, model.context, tasks, key) for name in PARTS}
    origins = {row.id: row.origin for row in rows["train"]}
    return RunTokens(tokenizer, prompt_format, parts, origins, key)


def _part(folder: Path, rows: Sequence[Conversation], prompt_format: PromptFormat, tokenizer: TextTokenizer, context: int,
          tasks: Sequence[str], key: str) -> EncodedSet:
    if (folder / MANIFEST).is_file() and read_json(folder / MANIFEST).get("key") == key:
        try:
            return read_tokens(folder)
        except CheckFailed as error:
            logger.warning("%s: damaged, encoded again (%s)", folder, str(error).splitlines()[0])
    encoded = encode_conversations(rows, prompt_format, tokenizer, context, tasks)
    dropped = sum(encoded.dropped.values())
    logger.info("encoded %d conversations into %d samples, dropped %d %s", encoded.read, len(encoded.samples), dropped,
                dict(encoded.dropped) if dropped else "")
    write_tokens(folder, encoded, {"key": key, "format": prompt_format.name, "tokenizer_sha256": tokenizer.sha256}, replace=True)
    return encoded


def _histogram(part: EncodedSet) -> dict[str, list[int]]:
    """Twenty equal bins of sample lengths, of whole tokens, that reach the longest: `edges` (21) and `counts`."""
    lengths = [len(sample.input_ids) for sample in part.samples]
    if not lengths:
        return {"edges": [], "counts": []}
    edges = np.arange(21) * -(-(max(lengths) + 1) // 20)
    return {"edges": edges.tolist(), "counts": np.histogram(lengths, bins=edges)[0].tolist()}

