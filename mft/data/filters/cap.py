"""`cap`: at most so many rows of a task, file, question, answer or id prefix."""

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from mft.conversation import Conversation
from mft.data.filters.config import CapStep
from mft.data.filters.parts import row_hash, texts_of
from mft.data.verdict import KEEP, GroupStep, RowName, Verdict, drop
from mft.files import sha256_json

PLACE: Final = re.compile(r"(.*?):\d+(?= |$)")
"""The file of an origin such as `json/decoder.py:69 JSONDecoder.decode`."""


class Cap(GroupStep):
    """`over_cap`: enough rows of its group stay. Which ones is decided by hash, not by order."""

    def __init__(self, config: CapStep) -> None:
        self.config = config
        self._groups = self._capped = 0

    def key(self, row: Conversation) -> bytes:
        """32 bytes: a hash of what the rows of one group share; nothing where that is part of the id, which is not final here."""
        return b"" if self.config.by == "id_prefix" else bytes.fromhex(sha256_json(self._shared(row)))

    def judge_keys(self, keys: Sequence[bytes], names: Sequence[RowName]) -> Sequence[Verdict]:
        groups: defaultdict[bytes | tuple[str, ...], list[int]] = defaultdict(list)
        for index, (key, name) in enumerate(zip(keys, names, strict=True)):
            groups[self._prefix(name.id) if self.config.by == "id_prefix" else key].append(index)
        verdicts = [KEEP] * len(keys)
        for members in groups.values():
            by_hash = sorted(members, key=lambda index: row_hash(names[index], "cap", self.config.seed))
            for index in by_hash[self.config.rows:]:
                verdicts[index] = drop("over_cap", f"of {len(members)} rows")
        self._groups, self._capped = len(groups), sum(len(members) > self.config.rows for members in groups.values())
        return verdicts

    def report(self) -> dict[str, int]:
        """`groups`, and how many of them had too many rows."""
        return {"groups": self._groups, "capped": self._capped}

    def _prefix(self, name: str) -> tuple[str, ...]:
        prefix, found, _ = name.partition(self.config.separator)
        return (prefix,) if found else ("", name)

    def _shared(self, row: Conversation) -> str | tuple[str, ...]:
        if self.config.by == "task":
            return row.task
        if self.config.by == "file":
            place = PLACE.match(row.origin)
            return place[1] if place else row.origin
        if self.config.by == "id_prefix":
            return self._prefix(row.id)
        return tuple(" ".join(text.split()) for text in texts_of(row, self.config.by))
