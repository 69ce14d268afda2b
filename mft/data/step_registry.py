"""Which steps there are: the union that a recipe is checked against, and the code behind each type."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Annotated, Any, Final

from pydantic import Field

from mft.data.dedup.config import ExactDedupStep
from mft.data.filters.config import LengthStep
from mft.data.verdict import GroupStep, RowStep

Step = Annotated[LengthStep | ExactDedupStep, Field(discriminator="type")]

STEPS: Final[Mapping[str, tuple[str, str]]] = {
    "length": ("mft.data.filters.length", "Length"),
    "exact_dedup": ("mft.data.dedup.exact", "ExactDedup"),
}
"""Type of a step -> module and class, imported when a recipe uses it: some bring a library of their own."""


def make_step(config: Any) -> RowStep | GroupStep:
    """The step that a recipe asks for."""
    module, name = STEPS[config.type]
    make: Callable[[Any], RowStep | GroupStep] = getattr(import_module(module), name)
    return make(config)
