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
from mft.files import MANIFEST, locked, read_json
from mft.formats.base import PromptFormat
from mft.hashes import sha256_json
from mft.modeling.config import ModelConfig
from mft.tokenization.compatibility import format_for
from mft.tokenization.load import TextTokenizer, load_tokenizer
from mft.tokenization.show import spans
from mft.tokenization.store import EncodedSet, encode_conversations, read_tokens, statistics, write_tokens
from mft.tokenization.token_store import TokenStore

logger = logging.getLogger(__name__)

PARTS = ("train", "validation")
ENCODER = 2
"""Raised when the same rows give other ids, masks or files, so that an old cache is not taken for the new one."""


@dataclass(frozen=True, slots=True)
class RunTokens:
    """Encoded training and validation samples. `sha256` depends on the rows, the format, the tokenizer and the context."""

    tokenizer: TextTokenizer
    prompt_format: PromptFormat
    parts: dict[str, EncodedSet]
    data: Path
    sha256: str

    @property
    def task_names(self) -> Sequence[str]:
        """Tasks in the order of their ids."""
        return self.parts["train"].tasks

    @property
    def train(self) -> TokenStore:
        """Samples to train on."""
        return self.parts["train"].samples

    @property
    def validation(self) -> TokenStore:
        """Held-out samples."""
        return self.parts["validation"].samples

    def summary(self) -> dict[str, Any]:
        """For each part: the counts of `mft data encode`, the context and a histogram of the lengths."""
        return {name: {**statistics(part), "context": part.context, "lengths": _histogram(part)} for name, part in self.parts.items()}

    def examples(self, number: int) -> list[dict[str, Any]]:
        """Training samples of `number` tasks as `{id, task, origin, spans: [{text, trained}]}`: of each task the one of median length."""
        tasks, lengths = self.train.records["task"], self.train.lengths
        chosen = []
        for task in np.unique(tasks)[:number]:
            own = np.flatnonzero(tasks == task)
            chosen.append(self.train[int(own[np.argsort(lengths[own], kind="stable")][len(own) // 2])])
        wanted = {sample.id.split("#")[0] for sample in chosen}
        origins = {row.id: row.origin for row in read_built(self.data)["train"] if row.id in wanted}
        return [{"id": sample.id, "task": self.task_names[sample.task_id], "origin": origins.get(sample.id.split("#")[0], ""),
                 "spans": [{"text": span.text, "trained": span.trained} for span in spans(sample, self.tokenizer)]} for sample in chosen]


def encode_run(data: Path, tokenizer_folder: Path, model: ModelConfig, cache: Path) -> RunTokens:
    """Encode a built data folder for a model; what `cache` holds is used when it was made from the same rows, format and tokenizer.

    The cache holds samples of every length, so another context needs no encoding. Of several processes that ask for it at once,
    on one machine or on a shared disk, one encodes and the others wait.

    Raises:
        DataError: `data` is no built folder.
        TokenizerError: the tokenizer failed the parity gate, or does not go with the format.
    """
    tokenizer = load_tokenizer(tokenizer_folder)
    prompt_format = format_for(model.format, tokenizer)
    if not (data / MANIFEST).is_file():
        read_built(data)   # says what is missing
    manifest = read_json(data / MANIFEST)
    tasks = list(manifest["per_task"])
    key = sha256_json({"rows": manifest["sha256"], "tokenizer": tokenizer.sha256, "tasks": tasks, "encoder": ENCODER,
                       "format": [prompt_format.reference, prompt_format.chat_template()]})
    cache.mkdir(parents=True, exist_ok=True)
    with locked(cache / "encode.lock"):
        found = {name: _cached(cache / name, key, model.context) for name in PARTS}
        if missing := [name for name, part in found.items() if part is None]:
            rows = read_built(data)
            for name in missing:
                found[name] = _encode(cache / name, rows[name], prompt_format, tokenizer, model.context, tasks, key)
    parts = {name: part for name, part in found.items() if part is not None}
    return RunTokens(tokenizer, prompt_format, parts, data, sha256_json([key, model.context]))


def _cached(folder: Path, key: str, context: int) -> EncodedSet | None:
    if not (folder / MANIFEST).is_file() or read_json(folder / MANIFEST).get("key") != key:
        return None
    try:
        return read_tokens(folder, context)
    except CheckFailed as error:
        logger.warning("%s: damaged, encoded again (%s)", folder, str(error).splitlines()[0])
        return None


def _encode(folder: Path, rows: Sequence[Conversation], prompt_format: PromptFormat, tokenizer: TextTokenizer, context: int,
            tasks: Sequence[str], key: str) -> EncodedSet:
    encoded = encode_conversations(rows, prompt_format, tokenizer, context, tasks)
    dropped = sum(encoded.dropped.values())
    logger.info("encoded %d conversations into %d samples, dropped %d %s", encoded.read, len(encoded.samples), dropped,
                dict(encoded.dropped) if dropped else "")
    write_tokens(folder, encoded, {"key": key, "format": prompt_format.reference, "tokenizer_sha256": tokenizer.sha256}, replace=True)
    return read_tokens(folder, context)


def _histogram(part: EncodedSet) -> dict[str, list[int]]:
    """Twenty equal bins of sample lengths, of whole tokens, that reach the longest: `edges` (21) and `counts`."""
    lengths = part.samples.lengths
    if not len(lengths):
        return {"edges": [], "counts": []}
    edges = np.arange(21) * -(-(int(lengths.max()) + 1) // 20)
    return {"edges": edges.tolist(), "counts": np.histogram(lengths, bins=edges)[0].tolist()}
