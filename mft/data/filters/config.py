"""The steps of `filters/` as a recipe writes them."""

from typing import Literal

from pydantic import Field, model_validator

from mft.config.model import StrictModel


class LengthStep(StrictModel):
    """Drop rows by the characters of their user and assistant messages together; system messages are not counted."""

    type: Literal["length"]

    min_characters: int = Field(0, ge=0)
    """A row with fewer is dropped as `too_short`."""

    max_characters: int | None = Field(None, gt=0)
    """A row with more is dropped as `too_long`; null: no limit."""

    @model_validator(mode="after")
    def _in_order(self) -> "LengthStep":
        if self.max_characters is not None and self.max_characters < self.min_characters:
            raise ValueError(f"max_characters is {self.max_characters}, below min_characters ({self.min_characters}); no row would be left")
        return self
