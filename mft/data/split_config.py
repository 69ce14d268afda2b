"""The `split` of a recipe."""

from typing import Literal

from pydantic import Field

from mft.config.model import StrictModel


class SplitConfig(StrictModel):
    """Which rows are held out, by a stable hash: the same on every machine and in every later build."""

    validation: float = Field(0.05, ge=0, lt=1)
    """Share of the keys (not of the rows) that are held out."""

    by: Literal["file", "id"] = "file"
    """The key: the path of the row's file, so that no file is on both sides, or the id that the row was read with."""
