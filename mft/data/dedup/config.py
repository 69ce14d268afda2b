"""The steps of `dedup/` as a recipe writes them."""

from typing import Literal

from pydantic import Field, PrivateAttr

from mft.config.model import StrictModel
from mft.data.filters.parts import Part
from mft.data.split_config import SplitConfig


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


class HeldOutDedupStep(StrictModel):
    """Held-out rows that say nearly what a training row says, of any task and any file, go as `like_training`.

    Training rows stay. What is held out is then text that the model has not seen: a function that was copied and edited from file to
    file, or that one task shows to the model and another asks for.
    """

    type: Literal["held_out_dedup"]

    threshold: float = Field(0.7, ge=0.3, le=1.0)
    """Jaccard of the shingle sets of all messages from which two rows are alike."""

    ngram: int = Field(3, ge=1, le=32)
    """Tokens of a shingle. Short ones, so that two tasks of one function are alike, though the docstring stands at its head in one and at
    the end in the other: of 768 functions of rich and pydantic 95% of the pairs (docstring, completion) have 0.74 or more with 3 tokens,
    0.64 with 5."""

    _split: SplitConfig = PrivateAttr(default_factory=SplitConfig)

    @property
    def split(self) -> SplitConfig:
        """The split of the recipe that the step stands in."""
        return self._split

    def learn(self, split: SplitConfig) -> None:
        """Note the split of the recipe."""
        self._split = split
