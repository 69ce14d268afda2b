"""The steps of `dedup/` as a recipe writes them."""

from typing import Literal

from pydantic import Field

from mft.config.model import StrictModel
from mft.data.filters.parts import Part


class ExactDedupStep(StrictModel):
    """Keep the first of the rows whose roles and NFC, whitespace-collapsed texts are equal; the others are `duplicate`."""

    type: Literal["exact_dedup"]


class NearDedupStep(StrictModel):
    """Of rows that say nearly the same keep the one with the longest answers; the others are `near_duplicate`.

    StarCoder's data (arXiv:2305.06161) took runs of 5 and 0.7 over whole files. Instructions are short: at 0.7 "sort an array"
    and "deduplicate an array" with the same array are alike, so 0.8 is the default.
    """

    type: Literal["near_dedup"]

    on: Part = "all"
    """What is compared: `user` (rows that ask the same), `answer` (rows that answer the same) or `all`.

    Where rows share a long context, such as the schema of a database, `all` finds rows alike that ask different things.
    """

    threshold: float = Field(0.8, ge=0.3, le=1.0)
    """Jaccard of the shingle sets from which two rows are near-duplicates."""

    ngram: int = Field(5, ge=1, le=32)
    """Tokens of a shingle: words, signs, or single characters of Chinese. Shorter ones make short rows alike sooner."""
