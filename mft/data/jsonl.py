"""JSON lines, plain or gzip, to conversations. A bad row is a counted drop with its file and line, never an exception."""

import gzip
import json
import logging
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, cast

from mft.conversation import Conversation
from mft.data.converters.base import Converter, RowFault, check_messages, has_lone_surrogate
from mft.data.converters.registry import detect, find_converter
from mft.data.ledger import Ledger
from mft.errors import DataError

logger = logging.getLogger(__name__)

BOM = b"\xef\xbb\xbf"


def read_conversations(path: Path, converter: str = "auto", ledger: Ledger | None = None, *, task: str | None = None,
                       label: str | None = None) -> Iterator[Conversation]:
    """The conversations of one file; every line is counted in `ledger` (which the caller closes) as read, kept or dropped.

    `task` is the given one, else the row's `task` or `data_name`, else the file's name without `.jsonl(.gz)`. `label`
    stands for the file in ids, origins and split keys (default: its name). A row without an id is called `label:line`; an
    id that stands twice in a task gets `@label:line` behind it.

    Raises:
        DataError: the file is missing, empty or without one usable row; `auto` finds no converter for a row, or several.
    """
    ledger = Ledger("read") if ledger is None else ledger
    yield from unique_ids(_conversations(path, find_converter(converter), ledger, task, label or path.name))


def unique_ids(conversations: Iterable[Conversation]) -> Iterator[Conversation]:
    """The same rows; an id that its task has had already gets its place behind it (and a number if need be)."""
    taken: defaultdict[str, set[str]] = defaultdict(set)
    for conversation in conversations:
        name, number = conversation.id, 1
        while name in taken[conversation.task]:
            place = conversation.origin.split(" ", 1)[0]
            name = f"{conversation.id}@{place}" + (f"#{number}" if number > 1 else "")
            number += 1
        taken[conversation.task].add(name)
        yield conversation if name == conversation.id else replace(conversation, id=name)


def _conversations(path: Path, given: Converter | None, ledger: Ledger, task: str | None, label: str) -> Iterator[Conversation]:
    before, kept, lines, unread = ledger.dropped.copy(), 0, 0, _UnreadKeys()
    for lines, row in read_rows_of(path, ledger):
        where = f"{path}:{lines}"
        try:
            if not isinstance(row, dict):
                raise RowFault("not_an_object", f"found {type(row).__name__}")
            converter = given or detect(row, where)
            conversation = _conversation(row, converter, f"{label}:{lines}", task or _task_of(row, path), label)
        except RowFault as fault:
            ledger.drop(fault.reason, where, str(fault))
            continue
        unread.note(row, converter)
        kept += 1
        ledger.kept += 1
        yield conversation
    if not kept:
        reasons = ", ".join(f"{reason} {count}" for reason, count in (ledger.dropped - before).items())
        raise DataError(f"{path}: no usable row; dropped: {reasons}" if reasons else f"{path}:1: the file is empty")
    unread.log(path)


def _conversation(row: Mapping[str, Any], converter: Converter, place: str, task: str, label: str) -> Conversation:
    if converter.key not in row:
        raise RowFault("missing_key", f"'{converter.key}', which converter {converter.name} needs; keys: {', '.join(row) or 'none'}")
    messages = converter.convert(row)
    check_messages(messages)
    own = row.get("id")
    name = str(own) if isinstance(own, str | int | float) and not isinstance(own, bool) and own != "" else place
    if has_lone_surrogate(name) or has_lone_surrogate(task):
        raise RowFault("lone_surrogate", "in the id or the task")
    return Conversation(id=name, task=task, messages=messages, origin=place, split_key=label)


def _task_of(row: Mapping[str, Any], path: Path) -> str:
    task = row.get("task", row.get("data_name"))
    if task is None:
        return path.name.removesuffix(".gz").removesuffix(".jsonl") or path.name
    if not isinstance(task, str) or not task:
        raise RowFault("task_not_text", f"found {task!r}")
    return task


def read_rows_of(path: Path, ledger: Ledger) -> Iterator[tuple[int, Any]]:
    """(line number, parsed value) of every line that is JSON. What is not is dropped here: `blank_line`, `invalid_utf8`,
    `broken_json`, and one `truncated_gzip` or `damaged_gzip` for all that lies behind the fault.

    Raises:
        DataError: the file cannot be opened.
    """
    number = 0
    with _open_bytes(path) as stream:
        while True:
            try:
                line = stream.readline()
            except EOFError:
                ledger.read += 1
                ledger.drop("truncated_gzip", f"{path}:{number + 1}", f"the file ends too early; {number} lines could be read")
                return
            except (gzip.BadGzipFile, zlib.error) as error:
                ledger.read += 1
                ledger.drop("damaged_gzip", f"{path}:{number + 1}", f"{error}; {number} lines could be read")
                return
            if not line:
                return
            number += 1
            ledger.read += 1
            try:
                value = _parse(line.removeprefix(BOM) if number == 1 else line)
            except RowFault as fault:
                ledger.drop(fault.reason, f"{path}:{number}" if fault.reason != "blank_line" else "", str(fault))
            else:
                yield number, value


def _parse(line: bytes) -> Any:
    if not line.strip():
        raise RowFault("blank_line")
    try:
        return json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise RowFault("invalid_utf8", f"byte {error.start + 1} of the line") from error
    except json.JSONDecodeError as error:
        raise RowFault("broken_json", f"column {error.colno}: {error.msg}") from error
    except (ValueError, RecursionError) as error:   # a number of thousands of digits; thousands of open brackets
        raise RowFault("broken_json", str(error)) from error


def _open_bytes(path: Path) -> IO[bytes]:
    try:
        return cast("IO[bytes]", gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


class _UnreadKeys:
    """Keys that rows have and their converter does not read, named once per file."""

    def __init__(self) -> None:
        self._names: set[str] = set()

    def note(self, row: Mapping[str, Any], converter: Converter) -> None:
        self._names |= row.keys() - converter.row_keys
        for message in row[converter.key]:
            self._names |= {f"{converter.key}[].{name}" for name in message.keys() - converter.message_keys}

    def log(self, path: Path) -> None:
        if self._names:
            logger.info("%s: keys that are not used: %s", path, ", ".join(sorted(self._names)))
