"""Which steps there are: the union that a recipe is checked against, and the code behind each type."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Annotated, Any, Final

from pydantic import Field

from mft.data.decontamination.config import DecontaminateStep
from mft.data.dedup.config import ExactDedupStep, HeldOutDedupStep, NearDedupStep
from mft.data.filters.config import (
    CapStep,
    LanguageStep,
    LengthStep,
    NormaliseStep,
    RepetitionStep,
    SampleStep,
    SecretsStep,
    SyntaxStep,
)
from mft.data.verdict import GroupStep, RowStep

Step = Annotated[
    NormaliseStep | LengthStep | LanguageStep | SyntaxStep | RepetitionStep | SecretsStep | ExactDedupStep | NearDedupStep
    | HeldOutDedupStep | DecontaminateStep | SampleStep | CapStep,
    Field(discriminator="type")]

STEPS: Final[Mapping[str, tuple[str, str]]] = {
    "normalise": ("mft.data.filters.normalise", "Normalise"),
    "length": ("mft.data.filters.length", "Length"),
    "language": ("mft.data.filters.language", "Language"),
    "syntax": ("mft.data.filters.syntax", "Syntax"),
    "repetition": ("mft.data.filters.repetition", "Repetition"),
    "secrets": ("mft.data.filters.secrets", "Secrets"),
    "exact_dedup": ("mft.data.dedup.exact", "ExactDedup"),
    "near_dedup": ("mft.data.dedup.near", "NearDedup"),
    "held_out_dedup": ("mft.data.dedup.held_out", "HeldOutDedup"),
    "decontaminate": ("mft.data.decontamination.step", "Decontaminate"),
    "sample": ("mft.data.filters.sample", "Sample"),
    "cap": ("mft.data.filters.cap", "Cap"),
}
"""Type of a step -> module and class, imported when a recipe uses it: some bring a library of their own."""


def make_step(config: Any) -> RowStep | GroupStep:
    """The step that a recipe asks for."""
    module, name = STEPS[config.type]
    make: Callable[[Any], RowStep | GroupStep] = getattr(import_module(module), name)
    return make(config)


def is_group_step(config: Any) -> bool:
    """Must the step see all rows?"""
    module, name = STEPS[config.type]
    return issubclass(getattr(import_module(module), name), GroupStep)
