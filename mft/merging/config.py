"""What a person may choose about a merge."""

from typing import Literal

from pydantic import Field, field_validator

from mft.config.model import StrictModel
from mft.config.sizes import parse_size


class MergeOptions(StrictModel):
    """How an adapter is merged into its base model."""

    onto: Literal["original", "quantised"] = "original"
    """The weights that the adapter is added to. `original`: those of the base folder, also when it was trained on their 4-bit copy.
    `quantised`: what that copy computed with, the base's linear layers after their way through NF4 as the adapter's mft.json tells
    it. The distance of the result from the model that was trained is reported for both."""

    dtype: Literal["bf16", "fp16", "fp32"] = "bf16"
    """Number type of the merged weights. The sum is computed in fp32 and rounded to it once."""

    shard_size: str = Field("5GB")
    """Largest size of one weight file, in decimal units. A tensor that is larger has a file of its own."""

    verify: Literal["layers", "logits", "none"] = "layers"
    """`layers`: every tensor of the output against base and adapter, inside the memory bound. `logits`: that, and the
    outputs of the whole model, held in memory twice in turn. `none`: nothing."""

    @field_validator("shard_size")
    @classmethod
    def _is_a_size(cls, value: str) -> str:
        parse_size(value)
        return value

    @property
    def shard_bytes(self) -> int:
        """`shard_size` in bytes."""
        return parse_size(self.shard_size)
