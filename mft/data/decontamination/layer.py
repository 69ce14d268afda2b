"""What a layer is given, what it finds, and what it must be able to do."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mft.conversation import Conversation
from mft.data.decontamination.config import LayerName
from mft.data.decontamination.normalise import View, clean, tokenize


@dataclass(frozen=True, slots=True)
class Hit:
    """A problem that a layer sees in a row. `score` is in (0, 1]; `contaminated`: enough to drop the row, else it is only listed."""

    problem: str
    layer: LayerName
    evidence: str
    score: float
    contaminated: bool

    def to_json(self, row: str) -> dict[str, Any]:
        """`{row, problem, layer, evidence, score, contaminated}`."""
        return {"row": row, "problem": self.problem, "layer": self.layer, "evidence": self.evidence, "score": round(self.score, 3),
                "contaminated": self.contaminated}


class RowText:
    """The messages of a row, system included, joined by line feeds: a problem may be spread over several turns."""

    def __init__(self, row: Conversation) -> None:
        self._messages = [message.content for message in row.messages]
        self._tokens: dict[View, list[str]] = {}

    @cached_property
    def text(self) -> str:
        """The cleaned text of all messages."""
        return clean("\n".join(self._messages))

    @cached_property
    def messages(self) -> list[str]:
        """The cleaned text of each message."""
        return [clean(message) for message in self._messages]

    def tokens(self, view: View) -> list[str]:
        """The tokens of the whole row, made once for each view."""
        if view not in self._tokens:
            self._tokens[view] = tokenize(self.text, view)
        return self._tokens[view]


class Layer(ABC):
    """One way of looking for the problems that it was made with."""

    @abstractmethod
    def find(self, row: RowText) -> Sequence[Hit]:
        """The problems that stand in the row; at most one hit for each problem, the best."""

    @abstractmethod
    def unseen(self) -> list[str]:
        """Names of the problems that this layer can never name as contaminated, in order: they are left to the other layers."""


def excerpt(text: str, most: int = 100) -> str:
    """The beginning of a text in one line, for a person to recognise.

    >>> excerpt("return  x +\\n y", 8)
    'return x...'
    """
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[:most]}..."
