"""What a YAML says about an evaluation."""

from typing import Literal

from pydantic import Field, field_validator

from mft.config.model import StrictModel


class LossOptions(StrictModel):
    """Held-out loss of several models on the same rows."""

    benchmark: Literal["loss"]

    models: list[str] = Field(min_length=1)
    """The first is what the others are compared with: `base` is the base model, held as it was while the adapter was
    trained; any other name is a train stage (its adapter) or a merge stage."""

    generations: int = Field(3, ge=0)
    """Answers written out for the report, by every model."""

    max_new_tokens: int = Field(128, ge=1)
    """Length at which a written-out answer is stopped, in tokens."""

    @field_validator("models")
    @classmethod
    def _named_once(cls, models: list[str]) -> list[str]:
        if repeated := sorted({name for name in models if models.count(name) > 1}):
            raise ValueError(f"each model once; {', '.join(repeated)} stands here more than once")
        return models
