"""`cap`: at most so many rows of a task, file, question, answer or id prefix."""

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from mft.conversation import Conversation
from mft.data.filters.config import CapStep
from mft.data.filters.parts import CHOICE_BYTES, choice_of, choice_rank, texts_of
from mft.data.ids import own_id
from mft.data.verdict import KEEP, GroupStep, RowName, Verdict, drop
from mft.hashes import sha256_json

PLACE: Final = re.compile(r"(.*?):\d+(?= |$)")
"""The file of an origin such as `json/decoder.py:69 JSONDecoder.decode`."""


class Cap(GroupStep):
    """`over_cap`: enough rows of its group stay. Which ones is decided by hash, not by order."""

    def __init__(self, config: CapStep) -> None:
        self.config = config
        self._groups = self._capped = 0

    def key(self, row: Conversation) -> bytes:
        """48 bytes: what decides which rows of a group stay, and a hash of what the rows of one group share."""
        return choice_of(row) + bytes.fromhex(sha256_json(self._shared(row)))

    def judge_keys(self, keys: Sequence[bytes], names: Sequence[RowName]) -> Sequence[Verdict]:
        groups: defaultdict[bytes, list[int]] = defaultdict(list)
        for index, key in enumerate(keys):
            groups[key[CHOICE_BYTES:]].append(index)
        ranks = [choice_rank(key[:CHOICE_BYTES], name.task, "cap", self.config.seed) for key, name in zip(keys, names, strict=True)]
        verdicts = [KEEP] * len(keys)
        for members in groups.values():
            by_hash = sorted(members, key=ranks.__getitem__)
            for index in by_hash[self.config.rows:]:
                verdicts[index] = drop("over_cap", f"of {len(members)} rows")
        self._groups, self._capped = len(groups), sum(len(members) > self.config.rows for members in groups.values())
        return verdicts

    def report(self) -> dict[str, int]:
        """`groups`, and how many of them had too many rows."""
        return {"groups": self._groups, "capped": self._capped}

    def _prefix(self, row: Conversation) -> tuple[str, ...]:
        prefix, found, _ = own_id(row).partition(self.config.separator)
        return (prefix,) if found else ("", prefix, choice_of(row).hex())   # a group of its own

    def _shared(self, row: Conversation) -> str | tuple[str, ...]:
        if self.config.by == "task":
            return row.task
        if self.config.by == "file":
            place = PLACE.match(row.origin)
            return place[1] if place else row.origin
        if self.config.by == "id_prefix":
            return self._prefix(row)
        return tuple(" ".join(text.split()) for text in texts_of(row, self.config.by))
