"""What a person writes of the steps in which a model writes."""

from typing import Literal

from pydantic import Field, model_validator

from mft.config.model import StrictModel

ProseLanguage = Literal["en", "zh"]
Operation = Literal["constraint", "rarer", "reasoning", "misdirection", "complexity"]

OPERATIONS: tuple[Operation, ...] = ("constraint", "rarer", "reasoning", "misdirection", "complexity")


class Maker(StrictModel):
    """What all steps in which a model writes have in common."""

    temperature: float = Field(0.7, ge=0, le=2)
    """0 gives the likeliest answer, the same to the same question."""

    top_p: float = Field(0.95, gt=0, le=1)

    max_tokens: int = Field(2048, gt=0)
    """Longest answer in tokens; one that is cut there is dropped as `answer_cut`."""


class BacktranslateStep(Maker):
    """Code without an instruction gets the instruction that it answers; rows that have one pass as they are."""

    type: Literal["backtranslate"]

    language: ProseLanguage | Literal["mixed"] = "en"
    """Language of the instructions. `mixed`: `zh_share` of the rows in Chinese, the others in English, chosen by hash and seed."""

    zh_share: float = Field(0.22, ge=0, le=1)
    """Of `mixed` alone. Ziya-Coding-34B's first stage had 100,000 Chinese rows of 450,000."""

    min_characters: int = Field(20, ge=0)
    """A shorter instruction is dropped as `too_short`."""

    most_lines_shared: float = Field(0.2, ge=0, le=1)
    """Share of the code's telling lines that may stand in the instruction; above it the row is dropped as `code_in_instruction`."""


class EvolveStep(Maker):
    """Make instructions harder, by one operation a row and round. What came out badly is dropped, and its parent tried again."""

    type: Literal["evolve"]

    rounds: int = Field(1, ge=1, le=10)
    """Each round starts from what survived the last one."""

    operations: tuple[Operation, ...] = Field(OPERATIONS, min_length=1)
    """`constraint`: one more requirement; `rarer`: a common requirement for a less common one; `reasoning`: more steps of thought;
    `misdirection`: wrong code to be misled by; `complexity`: less time or memory. One is chosen by a hash of seed, row and round."""

    keep_parents: bool = True
    """Keep the rows that were evolved beside what became of them; false: only evolved rows leave this step."""

    language: ProseLanguage | Literal["same"] = "same"
    """Language of the prompt, and so of what is written; `same`: that of the row. An evolution in another language is dropped."""

    min_characters: int = Field(30, ge=0)
    """A shorter evolution is dropped as `too_short`."""

    min_new_words: int = Field(5, ge=0)
    """An evolution that adds fewer words to those of its parent is dropped as `copied`. A Han letter counts as a word."""

    @model_validator(mode="after")
    def _once(self) -> "EvolveStep":
        if len(set(self.operations)) < len(self.operations):
            raise ValueError(f"operations: each once, found {', '.join(self.operations)}")
        return self


class AnswerStep(Maker):
    """Write the solutions of instructions that have none."""

    type: Literal["answer"]

    samples: int = Field(1, ge=1, le=64)
    """Solutions for each instruction. More than one is what `agreement` and `difficulty` work on."""

    replace: bool = False
    """Write anew what has an answer already; false: such rows pass as they are."""

    @model_validator(mode="after")
    def _samples_differ(self) -> "AnswerStep":
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(f"samples is {self.samples}, but at temperature 0 they are all the same; set temperature above 0")
        return self


class UnitTestsStep(Maker):
    """Write tests of the chosen solution, as Python functions with plain assertions. Only Python is tested."""

    type: Literal["unit_tests"]

    tests: int = Field(5, ge=1, le=50)
    """Tests that are asked for; fewer are taken too, `tests_bite` says whether they are enough."""

    sees_solution: bool = True
    """Show the solution to the model, which then knows names and arguments; false: it sees only the instruction and the signatures."""

    replace: bool = False
    """Write anew the tests of rows that have some; false: such rows pass as they are."""

    other_languages: Literal["drop", "keep"] = "drop"
    """Rows whose code is not Python: dropped as `not_python`, or kept untested and counted."""


class TranslateStep(Maker):
    """Instructions from English to Chinese or back, with the code in them as it was."""

    type: Literal["translate_instruction"]

    to: ProseLanguage

    share: float = Field(1.0, gt=0, le=1)
    """Share of the rows that are translated, chosen by hash and seed; the others pass as they are."""

    keep_parents: bool = False
    """Keep the row that was translated beside its translation."""


MakerStep = BacktranslateStep | EvolveStep | AnswerStep | UnitTestsStep | TranslateStep
"""The steps that need a language model."""
