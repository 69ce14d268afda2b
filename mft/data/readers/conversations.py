"""Rows of any file to conversations. A bad row is a counted drop with its place, never an exception."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from mft.conversation import Conversation, Message
from mft.data.converters.base import Converter, Notes, Row, RowFault, check_messages, has_lone_surrogate, listed, shown
from mft.data.converters.detect import KNOWN, Detector
from mft.data.converters.registry import Choice, find_converter
from mft.data.ids import unique_ids
from mft.data.ledger import Ledger
from mft.data.readers.csv import CsvOptions
from mft.data.readers.files import bare_name, kind_of, place_of, read_file
from mft.data.readers.raw import Kind, Place, RawRow, Rows
from mft.errors import DataError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reading:
    """How rows become conversations, and what they are called.

    `task`: of all rows; None: the row's `task` or `data_name`, else `default_task`. `label` stands for the file in ids, origins
    and split keys. `train`: all answers that a row does not mark untrained, or the last one alone. `split_key`: the key of a row whose
    text is its split key. `may_be_empty`: no usable row is no fault.
    """

    converter: Choice
    label: str
    task: str | None = None
    default_task: str = ""
    train: Literal["all", "last"] = "all"
    split_key: str | None = None
    may_be_empty: bool = False


def read_conversations(path: Path, converter: Choice = "auto", ledger: Ledger | None = None, *, task: str | None = None,
                       label: str | None = None, kind: Kind | None = None, csv: CsvOptions | None = None,
                       train: Literal["all", "last"] = "all", split_key: str | None = None,
                       may_be_empty: bool = False) -> Iterator[Conversation]:
    """The conversations of one file; every row is counted in `ledger` (which the caller closes) as read, kept or dropped.

    The file is JSON lines, a JSON array, Parquet or CSV (`kind`; default: by its name), plain, `.gz` or `.zst`. `converter` is a name
    or a mapping as in a recipe. `task` is the given one, else the row's `task` or `data_name`, else the file's name without its
    endings. `label` stands for the file in ids, origins and split keys (default: its name). A row without an id is called
    `label:number` (line, or place in an array or a table); an id that stands twice in a task gets `@label:number` behind it.
    `split_key`: a key of the rows whose text is the split key, in place of the label; a row without it is dropped as `no_split_key`.

    Raises:
        DataError: the file is missing; it is empty or without one usable row, unless it `may_be_empty`; a row fits several converters.
    """
    ledger = Ledger("read") if ledger is None else ledger
    kind = kind or kind_of(path)
    options = csv or CsvOptions("\t" if ".tsv" in path.suffixes else ",")
    reading = Reading(converter, label or path.name, task, bare_name(path), train, split_key, may_be_empty)
    yield from unique_ids(conversations_of(read_file(path, kind, ledger, options), place_of(path, kind), reading, ledger))


@dataclass(slots=True)
class Findings:
    """What is known of a file when its rows, or those of one piece of it, are read; `conclude` needs that of all pieces."""

    chosen: Counter[str] = field(default_factory=Counter)
    """Rows by the converter that `auto` chose."""
    first_unfit: tuple[str, str] | None = None
    """Place and keys of the first row that fits no converter."""
    seen: set[str] = field(default_factory=set)
    unread: set[str] = field(default_factory=set)
    dropped: Counter[str] = field(default_factory=Counter)
    kept: int = 0

    def add(self, later: "Findings") -> None:
        """Put what the next piece found behind this."""
        self.chosen += later.chosen
        self.first_unfit = self.first_unfit or later.first_unfit
        self.seen |= later.seen
        self.unread |= later.unread
        self.dropped += later.dropped
        self.kept += later.kept


def conversations_of(rows: Rows, place: Place, reading: Reading, ledger: Ledger) -> Iterator[Conversation]:
    """The conversations of rows that a reader has counted as read; the ledger's report says which converters were chosen.

    Raises:
        DataError: no row is usable; a row fits several converters; a declared column stands in no row.
    """
    findings = Findings()
    yield from conversations_of_piece(rows, place, reading, ledger, findings)
    conclude(findings, place, reading, ledger)


def conclude(findings: Findings, place: Place, reading: Reading, ledger: Ledger) -> None:
    """What can be said once all rows of a file are read: is one usable, do declared columns stand there, what did `auto` choose.

    Raises:
        DataError: no row is usable; a declared column stands in no row.
    """
    given = find_converter(reading.converter)
    if not findings.kept:
        if reading.may_be_empty:
            return
        raise DataError(_nothing_usable(place, findings))
    _check_declared(findings, given, place)
    if findings.unread:
        logger.info("%s: keys that are not used: %s", place.path, ", ".join(shown(name)[1:-1] for name in sorted(findings.unread)))
    if given is None:
        _report(findings.chosen, reading.label, place, ledger)


def conversations_of_piece(rows: Rows, place: Place, reading: Reading, ledger: Ledger, findings: Findings) -> Iterator[Conversation]:
    """The conversations of a piece of a file, whose `findings` are filled in.

    Raises:
        DataError: a row fits several converters.
    """
    given, detector = find_converter(reading.converter), Detector()
    before = ledger.dropped.copy()
    for raw in rows:
        where, notes = place.at(raw.number), set(raw.notes)
        try:
            if not isinstance(raw.value, dict):
                raise RowFault("not_an_object", f"found {shown(raw.value)}")
            findings.seen |= raw.value.keys()
            converter = given or detector.choose(raw.value, where)
            if converter is None:
                raise RowFault("no_converter", f"its keys are {listed(raw.value)}")
            conversation = _conversation(raw, converter, reading, where, notes)
        except RowFault as fault:
            ledger.drop(fault.reason, where, str(fault))
            continue
        findings.unread |= converter.unread(raw.value) - {reading.split_key}
        for note in sorted(notes):
            ledger.note(note)
        findings.kept += 1
        ledger.kept += 1
        yield conversation
    findings.chosen, findings.first_unfit, findings.dropped = detector.chosen, detector.first_unfit, ledger.dropped - before


def _conversation(raw: RawRow, converter: Converter, reading: Reading, where: str, notes: Notes) -> Conversation:
    row = converter.view(raw.value)
    try:
        messages = converter.convert(row, notes)
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    if reading.train == "last":
        messages = last_alone(messages)
    check_messages(messages, converter.shape)
    notes |= _text_notes(messages)
    own, place = row.get("id"), f"{reading.label}:{raw.number}"
    name = str(own) if isinstance(own, str | int | float) and not isinstance(own, bool) and own != "" else place
    task = reading.task or _task_of(row, reading.default_task)
    if has_lone_surrogate(name) or has_lone_surrogate(task):
        raise RowFault("lone_surrogate", "in the id or the task")
    split_key = reading.label if reading.split_key is None else _split_key_of(raw.value, reading.split_key)
    return Conversation(id=name, task=task, messages=messages, origin=place, split_key=split_key)


def last_alone(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The messages with every answer but the last left untrained (that one as the row says)."""
    last = max((index for index, message in enumerate(messages) if message.role == "assistant"), default=-1)
    return tuple(replace(message, train=False) if message.role == "assistant" and index != last else message
                 for index, message in enumerate(messages))


def _text_notes(messages: Iterable[Message]) -> Notes:
    signs = {"\0": "nul", "\r": "carriage_return"}
    return {note for sign, note in signs.items() if any(sign in message.content for message in messages)}


def _task_of(row: Row, default: str) -> str:
    task = row.get("task")
    task = row.get("data_name") if task is None else task
    if task is None:
        return default
    if not isinstance(task, str) or not task:
        raise RowFault("task_not_text", f"found {shown(task)}")
    return task


def _split_key_of(row: Row, key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value:
        raise RowFault("no_split_key", f"'{key}' is {shown(value) if key in row else 'not there'}, and decides on training or validation")
    if has_lone_surrogate(value):
        raise RowFault("lone_surrogate", f"in '{key}'")
    return value


def _nothing_usable(place: Place, findings: Findings) -> str:
    reasons = ", ".join(f"{reason} {count}" for reason, count in findings.dropped.items())
    if not reasons:
        return f"{place.path}:1: the file is empty" if place.by_line else f"{place.path}: holds no row"
    if findings.first_unfit is None:
        return f"{place.path}: no usable row; dropped: {reasons}"
    where, keys = findings.first_unfit
    return (f"{where}: no converter fits this row; its keys are {keys} (dropped: {reasons}); known: {KNOWN}; say which column is what, "
            "`converter: {type: pairs, columns: {prompt: ..., answer: ...}}`, or write it out, "
            "`converter: {type: fields, user: '...', assistant: '...'}`")


def _report(chosen: Counter[str], label: str, place: Place, ledger: Ledger) -> None:
    logger.info("%s: auto chose %s", place.path, ", ".join(f"{name} for {count} rows" for name, count in chosen.most_common()))
    files: dict[str, dict[str, int]] = ledger.report.setdefault("converters", {})
    files[label] = dict(sorted((Counter(files.get(label, {})) + chosen).items()))


def _check_declared(findings: Findings, converter: Converter | None, place: Place) -> None:
    """The columns that a recipe declares must stand in a row."""
    for key, column in converter.columns.items() if converter else ():
        if column not in findings.seen:
            raise DataError(f"{place.path}: no row has the column {column!r}, which the recipe declares as '{key}'; "
                            f"columns: {listed(sorted(findings.seen))}")
