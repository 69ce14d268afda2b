"""The row that flows through a synthesis, and its two other shapes: a conversation, and a line of JSON."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mft.conversation import Conversation, Message
from mft.data.filters.language import ProseLanguage, language_of
from mft.synthesis.code import code_of

HAN_SHARE = 0.1
"""Share of Han letters from which an instruction is Chinese, as in the step `language`."""


@dataclass(frozen=True, slots=True)
class Solution:
    """An answer. `text` is what is trained; `code` is the code in it, empty where there is none."""

    text: str
    code: str


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where a row comes from: its seed, the row it was made of, by which operation, in which round (0: a seed).

    `split_key`: the file of the seed, where a data folder says which; it decides on which side of a split all that is made of it stands.
    """

    seed: str
    parent: str = ""
    operation: str = ""
    round: int = 0
    split_key: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One row. The first of `solutions` is the chosen one, and the one that is written as the answer.

    A row may be without an instruction (code that waits for one) or without a solution (an instruction that waits for an answer).
    """

    id: str
    task: str
    lineage: Lineage
    instruction: str = ""
    solutions: tuple[Solution, ...] = ()
    tests: str = ""
    """Python source that tests the solution, as it was written."""
    language: str = "python"
    """Programming language of the solutions."""
    measured: Mapping[str, Any] = field(default_factory=dict)
    """What steps found out: `pass_share`, `mutants_killed`, `checked_by`."""

    @property
    def code(self) -> str:
        """The code of the chosen solution; empty where there is none."""
        return self.solutions[0].code if self.solutions else ""

    @property
    def natural_language(self) -> ProseLanguage:
        """The language of the instruction's prose: `zh`, `en`, `other`, `none`."""
        return language_of(self.instruction, HAN_SHARE)

    def measure(self, **found: Any) -> "Row":
        """The row with more measurements."""
        return replace(self, measured={**self.measured, **found})

    def child(self, operation: str, round_number: int, instruction: str, *, keeps_answer: bool = False) -> "Row":
        """A row made of this one; it has answers and tests only where they still fit."""
        lineage = Lineage(self.lineage.seed, self.id, operation, round_number, self.lineage.split_key)
        made = Row(f"{self.id}/{operation}-{round_number}", self.task, lineage, instruction, language=self.language)
        return replace(made, solutions=self.solutions, tests=self.tests) if keeps_answer else made

    def to_conversation(self) -> Conversation:
        """As the steps of `mft.data` see it: the instruction, then the chosen answer, each where there is one."""
        messages = [Message("user", self.instruction)] if self.instruction else []
        messages += [Message("assistant", self.solutions[0].text)] if self.solutions else []
        return Conversation(self.id, self.task, tuple(messages), split_key=self.lineage.seed)

    def rewritten(self, changed: Conversation) -> "Row":
        """The row with the texts that a step of `mft.data` has changed."""
        texts = {message.role: message.content for message in changed.messages}
        first = (solution_of(texts["assistant"], self.language),) if "assistant" in texts else ()
        return replace(self, instruction=texts.get("user", ""), solutions=first + self.solutions[1:])

    def to_json(self) -> dict[str, Any]:
        """A line of `rows.jsonl`: Alpaca's keys, which `mft data build` reads, and the row's own beside them."""
        line: dict[str, Any] = {"id": self.id, "task": self.task, "instruction": self.instruction, "input": "",
                                "output": self.solutions[0].text if self.solutions else "", "language": self.language,
                                "natural_language": self.natural_language, "tests": self.tests}
        if len(self.solutions) > 1:
            line["more_outputs"] = [solution.text for solution in self.solutions[1:]]
        lineage = self.lineage
        if lineage.split_key:
            line["split_key"] = lineage.split_key
        return {**line, "lineage": {"seed": lineage.seed, "parent": lineage.parent, "operation": lineage.operation, "round": lineage.round},
                "measured": dict(sorted(self.measured.items()))}


def solution_of(text: str, language: str) -> Solution:
    """An answer with its code found."""
    return Solution(text, code_of(text, language))
