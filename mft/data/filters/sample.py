"""`sample`: a part of the rows, by hash."""

from collections.abc import Sequence

from mft.conversation import Conversation
from mft.data.filters.config import SampleStep
from mft.data.filters.parts import choice_of, choice_rank
from mft.data.verdict import KEEP, GroupStep, RowName, Verdict, drop

WHOLE = 1 << 256
"""One more than the largest hash."""


class Sample(GroupStep):
    """`not_sampled`: not chosen. The hash differs from those of the split and of `cap`, so the choices are independent."""

    def __init__(self, config: SampleStep) -> None:
        self.config = config
        self._short_by = 0

    def key(self, row: Conversation) -> bytes:
        """16 bytes: what decides beside the task."""
        return choice_of(row)

    def judge_keys(self, keys: Sequence[bytes], names: Sequence[RowName]) -> Sequence[Verdict]:
        hashes = [choice_rank(key, name.task, "sample", self.config.seed) for key, name in zip(keys, names, strict=True)]
        if self.config.fraction is not None:
            limit = int(self.config.fraction * WHOLE)
            return [KEEP if value < limit else drop("not_sampled") for value in hashes]
        chosen = set(sorted(range(len(hashes)), key=hashes.__getitem__)[:self.config.rows])
        self._short_by = (self.config.rows or 0) - len(chosen)
        return [KEEP if index in chosen else drop("not_sampled") for index in range(len(hashes))]

    def report(self) -> dict[str, int]:
        """`short_by`: how many rows fewer there were than `rows` asks for."""
        return {"short_by": self._short_by} if self._short_by else {}
