"""The steps of `dedup/` as a recipe writes them."""

from typing import Literal

from mft.config.model import StrictModel


class ExactDedupStep(StrictModel):
    """Keep the first of the rows whose roles and NFC, whitespace-collapsed texts are equal; the others are `duplicate`."""

    type: Literal["exact_dedup"]
