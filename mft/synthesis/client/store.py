"""Every answer that was paid for, kept in a file of lines by the hash of what was asked.

    {"sum":"91c0...","entry":{"record":"started","key":"5e1f...","purpose":"answer","worst":[90,2048,"0.0012",1]}}
    {"sum":"02ab...","entry":{"record":"answer","key":"5e1f...","text":"...","cut":false,"known":[31,88,"0.00006",1]}}

`started` is written before a request leaves, `answer` or `failed` when it is settled. An answer is on the disk before anybody is given it.
A process that is killed leaves at most a torn last line, which is cut off, and `started` lines without an end: requests that were in
flight. The file holds answers; of prompts it has the hash alone, and no key.
"""

import hashlib
import json
import logging
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from mft.errors import OutputError
from mft.files import fsync_path, take_lock, write_faults

logger = logging.getLogger(__name__)

ANSWERS: Final = "answers.jsonl"
VERSION: Final = 1
LINE: Final = re.compile(rb'\{"sum":"([0-9a-f]{16})","entry":(\{.*\})\}\n')

Entry = dict[str, Any]


class AnswerStore:
    """The file of one folder, held by one process at a time. Threads may share it."""

    def __init__(self, folder: Path, replay: Callable[[Entry], None]) -> None:
        """Open the store of `folder`, made if it is not there; `replay` is given every line but the answers' texts, in order.

        Raises:
            OutputError: another process holds it, it cannot be opened, or a line is damaged.
        """
        self.path = folder / ANSWERS
        self._write_lock, self._sync_lock = threading.Lock(), threading.Lock()
        self._places: dict[str, tuple[int, int]] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be opened: {error.strerror}") from error
        try:
            take_lock(self._descriptor, f"{self.path}: another process is asking with it; wait for it, or use another folder")
            self._size = self._synced = self._load(replay)
            if not self._size:
                self.append({"record": "answers", "version": VERSION}, durable=True)
                fsync_path(folder)
        except BaseException:
            os.close(self._descriptor)
            raise

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return len(self._places)

    def answer(self, key: str) -> Entry:
        """The entry of an answer.

        Raises:
            KeyError: there is none. OutputError: the file was changed since it was opened.
        """
        start, size = self._places[key]
        entry = _parsed(os.pread(self._descriptor, size, start))
        if entry is None or entry.get("key") != key:
            raise OutputError(f"{self.path}: was changed while it was in use")
        return entry

    def append(self, entry: Entry, *, durable: bool = False) -> None:
        """Write an entry. It outlives this process when this returns; with `durable` also a machine that goes down.

        Raises:
            OutputError: the disk is full or write-protected.
        """
        line = _line(entry)
        with self._write_lock, write_faults(self.path):
            self._write(line)
            if entry["record"] == "answer":
                self._places[entry["key"]] = (self._size, len(line))
            self._size += len(line)
            size = self._size
        if durable:
            self._sync(size)

    def _write(self, line: bytes) -> None:
        try:
            written = 0
            while written < len(line):
                written += os.write(self._descriptor, line[written:])
        except OSError:
            os.ftruncate(self._descriptor, self._size)
            raise

    def _sync(self, size: int) -> None:
        """Flush what was written so far; threads that wait meanwhile find their lines flushed with it."""
        with self._sync_lock:
            if self._synced < size:
                with self._write_lock:
                    reached = self._size
                with write_faults(self.path):
                    os.fsync(self._descriptor)
                self._synced = reached

    def close(self) -> None:
        """Flush and let go of the file."""
        self._sync(self._size)
        with self._sync_lock, self._write_lock:     # its number may be another file's soon: no thread that was left behind may write to it
            descriptor, self._descriptor = self._descriptor, -1
        os.close(descriptor)

    def _load(self, replay: Callable[[Entry], None]) -> int:
        """Read all lines; returns the size of the file, without a torn last line."""
        size = 0
        for number, line in enumerate(self._lines(), start=1):
            entry = _parsed(line)
            if entry is None and not line.rstrip(b"\0").endswith(b"\n"):
                logger.warning("%s: line %d was torn when a process or the machine was stopped, and is left out", self.path, number)
                os.ftruncate(self._descriptor, size)
                break
            if entry is None or not self._known(entry, first=number == 1):
                raise OutputError(f"{self.path}:{number}: is damaged, or not a line of answers that mft wrote; without this line its "
                                  "request is asked and paid again, all else is kept")
            if entry["record"] == "answer":
                self._places[entry["key"]] = (size, len(line))
                entry = {name: value for name, value in entry.items() if name != "text"}
            if number > 1:
                replay(entry)
            size += len(line)
        return size

    def _lines(self) -> Iterator[bytes]:
        with open(os.dup(self._descriptor), "rb") as stream:
            stream.seek(0)
            yield from stream

    def _known(self, entry: Entry, *, first: bool) -> bool:
        if first and entry.get("record") == "answers" and entry.get("version") != VERSION:
            raise OutputError(f"{self.path}: was written by another version of mft (layout {entry.get('version')}, expected {VERSION})")
        return entry.get("record") in (("answers",) if first else ("started", "failed", "answer"))


def _line(entry: Entry) -> bytes:
    text = json.dumps(entry, separators=(",", ":")).encode()
    return b'{"sum":"%s","entry":%s}\n' % (_sum(text).encode(), text)


def _parsed(line: bytes) -> Entry | None:
    """The entry of a whole line whose sum is right, or None."""
    if not line.endswith(b"\n"):
        return None
    found = LINE.fullmatch(line)
    if found is None or found[1].decode() != _sum(found[2]):
        return None
    entry: Entry = json.loads(found[2])
    return entry


def _sum(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()[:16]
