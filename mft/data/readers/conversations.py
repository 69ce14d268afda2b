"""Rows of any file to conversations. A bad row is a counted drop with its place, never an exception."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
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
    and split keys. `train`: all answers that a row does not mark untrained, or the last one alone.
    """

    converter: Choice
    label: str
    task: str | None = None
    default_task: str = ""
    train: Literal["all", "last"] = "all"


def read_conversations(path: Path, converter: Choice = "auto", ledger: Ledger | None = None, *, task: str | None = None,
                       label: str | None = None, kind: Kind | None = None, csv: CsvOptions | None = None,
                       train: Literal["all", "last"] = "all") -> Iterator[Conversation]:
    """The conversations of one file; every row is counted in `ledger` (which the caller closes) as read, kept or dropped.

    The file is JSON lines, a JSON array, Parquet or CSV (`kind`; default: by its name), plain, `.gz` or `.zst`. `converter` is a name
    or a mapping as in a recipe. `task` is the given one, else the row's `task` or `data_name`, else the file's name without its
    endings. `label` stands for the file in ids, origins and split keys (default: its name). A row without an id is called
    `label:number` (line, or place in an array or a table); an id that stands twice in a task gets `@label:number` behind it.

    Raises:
        DataError: the file is missing, empty or without one usable row; a row fits several converters.
    """
    ledger = Ledger("read") if ledger is None else ledger
    kind = kind or kind_of(path)
    options = csv or CsvOptions("\t" if ".tsv" in path.suffixes else ",")
    reading = Reading(converter, label or path.name, task, bare_name(path), train)
    yield from unique_ids(conversations_of(read_file(path, kind, ledger, options), place_of(path, kind), reading, ledger))


def conversations_of(rows: Rows, place: Place, reading: Reading, ledger: Ledger) -> Iterator[Conversation]:
    """The conversations of rows that a reader has counted as read; the ledger's report says which converters were chosen.

    Raises:
        DataError: no row is usable; a row fits several converters; a declared column stands in no row.
    """
    given, detector, columns = find_converter(reading.converter), Detector(), _Columns()
    before, kept = ledger.dropped.copy(), 0
    for raw in rows:
        where, notes = place.at(raw.number), set(raw.notes)
        try:
            if not isinstance(raw.value, dict):
                raise RowFault("not_an_object", f"found {shown(raw.value)}")
            columns.see(raw.value)
            converter = given or detector.choose(raw.value, where)
            if converter is None:
                raise RowFault("no_converter", f"its keys are {listed(raw.value)}")
            conversation = _conversation(raw, converter, reading, where, notes)
        except RowFault as fault:
            ledger.drop(fault.reason, where, str(fault))
            continue
        columns.note(raw.value, converter)
        for note in notes:
            ledger.note(note)
        kept += 1
        ledger.kept += 1
        yield conversation
    if not kept:
        raise DataError(_nothing_usable(place, ledger.dropped - before, detector))
    columns.check_declared(given, place)
    columns.log(place)
    if given is None:
        _report(detector.chosen, reading.label, place, ledger)


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
    return Conversation(id=name, task=task, messages=messages, origin=place, split_key=reading.label)


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


def _nothing_usable(place: Place, dropped: Mapping[str, int], detector: Detector) -> str:
    reasons = ", ".join(f"{reason} {count}" for reason, count in dropped.items())
    if not reasons:
        return f"{place.path}:1: the file is empty" if place.by_line else f"{place.path}: holds no row"
    if detector.first_unfit is None:
        return f"{place.path}: no usable row; dropped: {reasons}"
    where, keys = detector.first_unfit
    return (f"{where}: no converter fits this row; its keys are {keys} (dropped: {reasons}); known: {KNOWN}; say which column is what, "
            "`converter: {type: pairs, columns: {prompt: ..., answer: ...}}`, or write it out, "
            "`converter: {type: fields, user: '...', assistant: '...'}`")


def _report(chosen: Counter[str], label: str, place: Place, ledger: Ledger) -> None:
    logger.info("%s: auto chose %s", place.path, ", ".join(f"{name} for {count} rows" for name, count in chosen.most_common()))
    files: dict[str, dict[str, int]] = ledger.report.setdefault("converters", {})
    files[label] = dict(sorted((Counter(files.get(label, {})) + chosen).items()))


class _Columns:
    """The columns of a file: those that its converter does not read are named once, declared ones must stand in a row."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._unread: set[str] = set()

    def see(self, row: Row) -> None:
        self._seen |= row.keys()

    def note(self, row: Row, converter: Converter) -> None:
        self._unread |= converter.unread(row)

    def check_declared(self, converter: Converter | None, place: Place) -> None:
        for key, column in converter.columns.items() if converter else ():
            if column not in self._seen:
                raise DataError(f"{place.path}: no row has the column {column!r}, which the recipe declares as '{key}'; "
                                f"columns: {listed(sorted(self._seen))}")

    def log(self, place: Place) -> None:
        if self._unread:
            logger.info("%s: keys that are not used: %s", place.path, ", ".join(shown(name)[1:-1] for name in sorted(self._unread)))
