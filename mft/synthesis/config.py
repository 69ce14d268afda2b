"""A synthesis as a person writes it: seeds in, a list of steps, rows out."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from mft.config.load import load_config
from mft.config.model import StrictModel
from mft.data.filters.config import CodeLanguage
from mft.data.step_registry import Step
from mft.sandbox.isolation import Isolation
from mft.synthesis.client.config import ClientConfig
from mft.synthesis.feedback.config import AgreementStep, CompileStep, DifficultyStep, TestsBiteStep, TestsPassStep
from mft.synthesis.makers.config import AnswerStep, BacktranslateStep, EvolveStep, MakerStep, TranslateStep, UnitTestsStep

SynthesisStep = Annotated[
    BacktranslateStep | EvolveStep | AnswerStep | UnitTestsStep | TranslateStep
    | CompileStep | TestsPassStep | TestsBiteStep | AgreementStep | DifficultyStep
    | Step,
    Field(discriminator="type")]
"""Makers, feedback filters, and every step that a data recipe knows."""


class JudgingConfig(StrictModel):
    """Where generated code is compiled and run."""

    isolation: Isolation = "auto"
    """Kind of sandbox; `auto` takes the best that this machine has, and stops where it has none."""

    workers: int | None = Field(None, gt=0)
    """Programs at one time; null: one a CPU."""


class SynthesizeOptions(StrictModel):
    """What is made and judged, in which order."""

    client: ClientConfig | None = None
    """The language model that answers; null where all steps only judge."""

    steps: tuple[SynthesisStep, ...] = Field(min_length=1)
    """In this order; each takes the rows that the one before it leaves. A step may stand more than once."""

    seed: int = 1234
    """Decides what is chosen: which operation for which row, which rows become Chinese."""

    task: str | None = Field(None, min_length=1)
    """Training task of all rows; null: the seed's own."""

    code_language: CodeLanguage = "python"
    """Language of seeds' code that no fence and no key `language` names."""

    keep_dropped_texts: bool = False
    """Write the texts of dropped rows into `dropped.jsonl` too; false: ids and reasons alone."""

    judging: JudgingConfig = JudgingConfig()

    @model_validator(mode="after")
    def _order(self) -> "SynthesizeOptions":
        before: list[str] = []
        for number, step in enumerate(self.steps):
            if step.type == "difficulty" and "tests_pass" not in before:
                raise ValueError(f"steps.{number}: difficulty is the share of samples that pass the tests; put tests_pass before it")
            if step.type == "held_out_dedup":
                raise ValueError(f"steps.{number}: held_out_dedup compares the two sides of a recipe's split, which rows here do not "
                                 "have yet; put it into the recipe that reads them")
            before.append(step.type)
        return self

    @property
    def makers(self) -> list[str]:
        """The types of the steps that need a language model."""
        return [step.type for step in self.steps if isinstance(step, MakerStep)]


def load_options(path: Path, overrides: list[str] | None = None) -> SynthesizeOptions:
    """Read and check the YAML of a synthesis.

    Raises:
        ConfigError: every mistake, each as `file:line: key: what is wrong; what is allowed`.
    """
    return load_config(SynthesizeOptions, path, overrides or [], context={"folder": path.parent, "must_exist": True})
