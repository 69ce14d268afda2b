"""Answers to a file of prompts: in batches, in the file's order, resumable, each row once.

    {"id": "q7", "text": "4", "finish_reason": "stop", "tokens": 1, "prompt_tokens": 34}
    {"id": "q8", "error": "prompt: format 'codefuse' cannot render this (role_tag_in_text): ...", "reason": "role_tag_in_text"}

While it runs, answers stand in a hidden journal beside the output, one line a batch. The batches follow from the input and the settings
alone, and each draws from a seed of its own, so that a run that was killed and goes on writes what one that was never killed writes.
"""

import json
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mft.errors import DataError, FormatError, OutputError
from mft.files import locked, write_faults, write_text
from mft.generation.chat import ChatModel
from mft.generation.hf import context_limit, generate
from mft.generation.prompts import PromptRow, read_prompts
from mft.hashes import hash_file, sha256_json
from mft.tokenization.compatibility import stop_ids
from mft.tokenization.encode import encode_prompt

logger = logging.getLogger(__name__)

WINDOW = 16
"""Prompts are sorted by length inside this many batches, so that little is padded and answers still come in the file's order, roughly."""


@dataclass(frozen=True, slots=True)
class AnswerSettings:
    """How answers are written; with the input and the model they are the job that a journal belongs to."""

    max_new_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    batch_size: int = 8


def answer_file(chat: ChatModel, model_path: Path, source: Path, out: Path, settings: AnswerSettings, *, overwrite: bool = False,
                progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Answer every row of `source`; `out` appears whole when the last one is done.

    Returns `{"read", "answered", "errors": {reason: n}, "finish_reasons": {...}, "resumed": rows found done, "prompt_tokens", "tokens",
    "seconds", "output"}`.

    Raises:
        DataError: `source` cannot be read, or has no row. OutputError: `out` is there, unless `overwrite`; it cannot be written.
    """
    started = time.perf_counter()
    if out.exists() and (not overwrite or out.is_dir()):
        raise OutputError(f"{out}: exists; give another --output" + ("" if out.is_dir() else ", or --overwrite to answer anew"))
    rows = read_prompts(source)
    job = sha256_json({"input": hash_file(source)["sha256"], "model": _identity(model_path), "format": chat.prompt_format.reference,
                       **asdict(settings)})
    journal = out.with_name(f".{out.name}.answers.partial")
    with write_faults(out):
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            with locked(journal):
                found = _answer(chat, rows, Journal(journal, job), settings, progress)
                write_text(out, "".join(json.dumps(found.rows[index], ensure_ascii=False) + "\n" for index in range(len(rows))))
                journal.unlink(missing_ok=True)
        except (PermissionError, NotADirectoryError) as error:
            raise OutputError(f"{out}: cannot be written: {error.strerror}") from error
    facts = _summary(list(found.rows.values()))
    return {"read": len(rows), **facts, "resumed": found.resumed, "seconds": time.perf_counter() - started, "output": str(out)}


@dataclass(slots=True)
class Answers:
    """Output rows by their place in the input; `resumed` of them were found in the journal."""

    rows: dict[int, dict[str, Any]]
    resumed: int = 0


class Journal:
    """Finished batches in a file, a line each, behind a line that names the job; a torn last line is cut off."""

    def __init__(self, path: Path, job: str) -> None:
        self._path = path
        lines = path.read_bytes().split(b"\n") if path.is_file() else []
        whole = [json.loads(line) for line in lines[:-1]]   # what follows the last newline was torn
        self.batches: dict[int, dict[int, dict[str, Any]]] = {}
        if not whole or whole[0].get("job") != job:
            if whole:
                logger.warning("%s: belongs to another input, model or setting; its answers are not used", path)
            self._write(json.dumps({"job": job}), start=True)
            return
        os.truncate(path, sum(len(line) + 1 for line in lines[:-1]))
        self.batches = {entry["batch"]: {int(index): row for index, row in entry["rows"].items()} for entry in whole[1:]}

    def add(self, batch: int, rows: Mapping[int, dict[str, Any]]) -> None:
        """Keep a batch: it is on the disk when this returns."""
        self._write(json.dumps({"batch": batch, "rows": rows}, ensure_ascii=False))

    def _write(self, line: str, *, start: bool = False) -> None:
        with self._path.open("w" if start else "a", encoding="utf-8") as stream:
            stream.write(line + "\n")
            stream.flush()
            os.fsync(stream.fileno())


def _answer(chat: ChatModel, rows: Sequence[PromptRow], journal: Journal, settings: AnswerSettings,
            progress: Callable[[int, int], None] | None) -> Answers:
    prompts, failed = _encode(chat, rows, settings.max_new_tokens)
    answers = Answers(dict(failed))
    for number, batch in enumerate(_batches(prompts, settings.batch_size)):
        if number in journal.batches:
            answers.rows |= journal.batches[number]
            answers.resumed += len(batch)
        else:
            made = _answer_batch(chat, rows, prompts, batch, number, settings)
            journal.add(number, made)
            answers.rows |= made
        if progress:
            progress(len(answers.rows), len(rows))
    return answers


def _answer_batch(chat: ChatModel, rows: Sequence[PromptRow], prompts: Mapping[int, list[int]], batch: Sequence[int], number: int,
                  settings: AnswerSettings) -> dict[int, dict[str, Any]]:
    completions = generate(
        chat.model, chat.tokenizer, [prompts[index] for index in batch], max_new_tokens=settings.max_new_tokens,
        temperature=settings.temperature, top_p=settings.top_p, seed=settings.seed + number, batch_size=len(batch),
        stop_ids=stop_ids(chat.prompt_format, chat.tokenizer), stop_strings=chat.prompt_format.stop_strings)
    return {index: {"id": rows[index].id, "text": completion.text, "finish_reason": completion.finish_reason,
                    "tokens": len(completion.token_ids), "prompt_tokens": len(prompts[index])}
            for index, completion in zip(batch, completions, strict=True)}


def _encode(chat: ChatModel, rows: Sequence[PromptRow], max_new_tokens: int) -> tuple[dict[int, list[int]], dict[int, dict[str, Any]]]:
    """Ids of the prompts that can be answered, and the output rows of the others."""
    prompts: dict[int, list[int]] = {}
    failed: dict[int, dict[str, Any]] = {}
    limit = context_limit(chat.model)
    for index, row in enumerate(rows):
        fault = ("bad_row", row.fault) if row.fault else None
        if fault is None:
            try:
                prompts[index] = encode_prompt(row.messages, chat.prompt_format, chat.tokenizer)
            except (FormatError, DataError) as error:
                fault = chat.prompt_format.fault(row.messages, prompt=True) or "cannot_be_encoded", str(error)
        if index in prompts and limit is not None and len(prompts[index]) + max_new_tokens > limit:
            length = len(prompts.pop(index))
            fault = "over_context", f"{length} tokens and {max_new_tokens} new ones are more than the model's {limit}"
        if fault:
            failed[index] = {"id": row.id, "error": fault[1], "reason": fault[0]}
    return prompts, failed


def _batches(prompts: Mapping[int, Sequence[int]], size: int) -> list[list[int]]:
    """Places of the input in batches of like length."""
    places, window = list(prompts), size * WINDOW
    ordered = [sorted(places[start:start + window], key=lambda place: -len(prompts[place])) for start in range(0, len(places), window)]
    return [part[start:start + size] for part in ordered for start in range(0, len(part), size)]


def _summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    good = [row for row in rows if "error" not in row]
    return {"answered": len(good), "errors": dict(Counter(row["reason"] for row in rows if "error" in row)),
            "finish_reasons": dict(Counter(row["finish_reason"] for row in good)),
            "prompt_tokens": sum(row["prompt_tokens"] for row in good), "tokens": sum(row["tokens"] for row in good)}


def _identity(model: Path) -> list[Any]:
    """What tells a model folder from another, or from itself after a change, without reading its weights."""
    files = sorted(path for path in model.iterdir() if path.suffix in (".json", ".safetensors"))
    return [str(model.resolve()), *([path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files)]
