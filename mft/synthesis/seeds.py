"""Rows that a synthesis starts from: another synthesis, a built data folder, or a file of rows or of code."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from mft.conversation import Conversation, shape_of
from mft.data.ledger import Ledger
from mft.data.pipeline import read_built
from mft.data.readers.conversations import read_conversations
from mft.data.readers.csv import CsvOptions
from mft.data.readers.files import kind_of, place_of, read_file
from mft.errors import DataError
from mft.files import MANIFEST
from mft.hashes import hash_file, sha256_json
from mft.synthesis.code import LANGUAGES, code_of, language_of_code
from mft.synthesis.config import SynthesizeOptions
from mft.synthesis.row import Lineage, Row, Solution, solution_of

ROWS: Final = "rows.jsonl"
"""The rows of a finished synthesis."""

OWN_KEYS: Final = frozenset({"code", "tests", "lineage"})
"""A row with one of these is read as a row of a synthesis; so is an instruction that waits for an answer."""

ANSWER_KEYS: Final = frozenset({"output", "response", "answer", "messages"})


def seed_files(seeds: Path) -> list[Path]:
    """The files that decide the seeds.

    Raises:
        DataError: there is none.
    """
    if seeds.is_file():
        return [seeds]
    if (seeds / ROWS).is_file():
        return [seeds / ROWS]
    if (seeds / MANIFEST).is_file():
        return [path for part in read_built(seeds).values() for path in part.paths]  # type: ignore[attr-defined]
    raise DataError(f"{seeds}: is no file of rows, no folder of `mft synthesize` and none of `mft data build`")


def seeds_hash(seeds: Path) -> str:
    """Hash of the names and contents of all files of the seeds."""
    return sha256_json([(path.name, hash_file(path)["sha256"]) for path in seed_files(seeds)])


def read_seeds(seeds: Path, options: SynthesizeOptions, ledger: Ledger) -> list[Row]:
    """The rows, each with an id of its own; counted in `ledger`, which the caller closes.

    Of a built folder the training part is read: what is held out stays out. Drops besides those of the converters: `not_one_turn` (a
    system message, several turns, infilling), `nothing_there` (neither instruction nor code), `unknown_language`.

    Raises:
        DataError: a file cannot be read, or no row is usable.
    """
    if seeds.is_dir() and not (seeds / ROWS).is_file():
        seed_files(seeds)
        rows = list(_of_conversations(_counted(read_built(seeds)["train"], ledger), options, ledger, built=True))
    else:
        path = seed_files(seeds)[0]
        own = _is_own(path)
        rows = list(_own_rows(path, options, ledger) if own else
                    _of_conversations(read_conversations(path, "auto", ledger, task=options.task), options, ledger))
    if not rows:
        raise DataError(f"{seeds}: no usable seed; {ledger.summary()}")
    return list(_unique(rows))


def _is_own(path: Path) -> bool:
    """True where the first row that is an object is one of a synthesis."""
    for raw in read_file(path, kind_of(path), Ledger("look", level=logging.DEBUG), CsvOptions()):
        if isinstance(raw.value, dict):
            keys = raw.value.keys()
            return bool(OWN_KEYS & keys) or ("instruction" in keys and not ANSWER_KEYS & keys)
    return False


def _counted(rows: Iterable[Conversation], ledger: Ledger) -> Iterator[Conversation]:
    for row in rows:
        ledger.read += 1
        ledger.kept += 1
        yield row


def _drop(ledger: Ledger, reason: str) -> None:
    """A row that a reader has kept goes after all."""
    ledger.kept -= 1
    ledger.drop(reason)


def _of_conversations(rows: Iterable[Conversation], options: SynthesizeOptions, ledger: Ledger, *, built: bool = False) -> Iterator[Row]:
    """`built`: the rows are those of a data folder, whose split keys name what each is from."""
    for row in rows:
        texts = {message.role: message.content for message in row.messages}
        shape = shape_of(row.messages)
        if shape == "infill" or (shape == "chat" and [message.role for message in row.messages] not in (["user", "assistant"], ["user"])):
            _drop(ledger, "not_one_turn")
            continue
        answer = texts.get("assistant", "")
        language = language_of_code(answer or texts.get("user", ""), options.code_language)
        if shape == "text":
            solution = Solution(answer, code_of(answer, language) if "```" in answer else answer)
        else:
            solution = solution_of(answer, language)
        solutions = (solution,) if answer else ()
        lineage = Lineage(row.id, split_key=row.split_key if built else "")
        yield Row(row.id, options.task or row.task, lineage, texts.get("user", ""), solutions, language=language)


def _own_rows(path: Path, options: SynthesizeOptions, ledger: Ledger) -> Iterator[Row]:
    kind = kind_of(path)
    place = place_of(path, kind)
    for raw in read_file(path, kind, ledger, CsvOptions()):
        where = place.at(raw.number)
        row = _own_row(raw.value, f"{path.name}:{raw.number}", path.name.split(".")[0], options)
        if isinstance(row, str):
            ledger.drop(row, where)
        else:
            ledger.kept += 1
            yield row


def _own_row(value: Any, name: str, task: str, options: SynthesizeOptions) -> Row | str:
    """The row of a line, or the reason why it is none."""
    if not isinstance(value, dict):
        return "not_an_object"
    found = {key: value.get(key) or "" for key in ("instruction", "input", "output", "code", "tests", "language", "task", "split_key")}
    lineage, measured, more = value.get("lineage") or {}, value.get("measured") or {}, value.get("more_outputs") or []
    texts_fit = all(isinstance(text, str) for text in [*found.values(), *more])
    if not texts_fit or not isinstance(lineage, dict) or not isinstance(measured, dict):
        return "wrong_type"
    instruction = "\n".join(filter(None, [found["instruction"], found["input"]]))
    text = found["output"] or found["code"]
    if not instruction.strip() and not text.strip():
        return "nothing_there"
    language = found["language"] or language_of_code(text, options.code_language)
    if language not in LANGUAGES:
        return "unknown_language"
    first = Solution(text, found["code"] or (code_of(text, language) if "```" in text or instruction else text))
    solutions = (first, *(solution_of(each, language) for each in more)) if text else ()
    own = str(value.get("id") or name)
    name_of_task = options.task or found["task"] or task
    return Row(own, name_of_task, _lineage(lineage, own, found["split_key"]), instruction, solutions, found["tests"], language, measured)


def _lineage(written: Mapping[str, Any], own: str, split_key: str) -> Lineage:
    number = written.get("round")
    return Lineage(str(written.get("seed") or own), str(written.get("parent") or ""), str(written.get("operation") or ""),
                   number if isinstance(number, int) else 0, split_key)


def _unique(rows: Iterable[Row]) -> Iterator[Row]:
    """The same rows; an id that was there already gets a number behind it, in any task, since verdicts go by id."""
    taken: Counter[str] = Counter()
    for row in rows:
        taken[row.id] += 1
        yield row if taken[row.id] == 1 else replace(row, id=f"{row.id}#{taken[row.id]}")
