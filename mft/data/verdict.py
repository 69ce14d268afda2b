"""What a step says of a row, and the two kinds of step."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mft.conversation import Conversation


@dataclass(frozen=True, slots=True)
class Verdict:
    """Keep the row, keep another in its place (`changed`), or drop it with a reason that is counted.

    `note` counts a kept row that was changed, by what was changed; `detail` is logged for the first drops of a reason.
    """

    keep: bool
    reason: str = ""
    detail: str = ""
    changed: Conversation | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if self.keep == bool(self.reason):
            raise ValueError("a row is dropped with a reason, and kept without one")


KEEP = Verdict(keep=True)


def drop(reason: str, detail: str = "") -> Verdict:
    """The verdict that drops a row."""
    return Verdict(keep=False, reason=reason, detail=detail)


@dataclass(frozen=True, slots=True)
class RowName:
    """What a row is called: ids are unique within a task."""

    id: str
    task: str


class RowStep(ABC):
    """A step that judges each row by itself, so that rows may be judged in any order and in any process."""

    @abstractmethod
    def judge(self, row: Conversation) -> Verdict:
        """The verdict on one row."""

    def report(self) -> dict[str, Any]:
        """What the build's manifest says of this step beside its counts; empty for most."""
        return {}

    def lists(self) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """What is too long for the manifest: name of a JSON lines file beside the rows -> its lines; empty for most."""
        return {}


class GroupStep(ABC):
    """A step that must see all rows: the verdict on one depends on others (duplicates, quotas), or it makes a list over all of them.

    It sees them as keys: what it must know of a row is made of that row alone, by any process, and all keys are judged in one.
    So its memory is that of the keys, whatever the length of the rows.
    """

    @abstractmethod
    def key(self, row: Conversation) -> bytes:
        """All that the step must know of a row beside its task and id. The id of `row` may yet change, so no key holds it."""

    @abstractmethod
    def judge_keys(self, keys: Sequence[bytes], names: Sequence[RowName]) -> Sequence[Verdict]:
        """One verdict for each key, in the order of the rows."""

    def judge_all(self, rows: Sequence[Conversation]) -> Sequence[Verdict]:
        """One verdict for each row, in order."""
        return self.judge_keys([self.key(row) for row in rows], [RowName(row.id, row.task) for row in rows])

    def report(self) -> dict[str, Any]:
        """What the build's manifest says of this step beside its counts; empty for most."""
        return {}

    def lists(self) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """What is too long for the manifest: name of a JSON lines file beside the rows -> its lines; empty for most."""
        return {}
