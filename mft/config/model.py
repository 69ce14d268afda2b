"""The base class of everything a person writes in YAML."""

from pydantic import BaseModel, ConfigDict


class StrictModel(BaseModel):
    """Unknown keys are refused, defaults are checked, values do not change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, coerce_numbers_to_str=True, allow_inf_nan=False,
                              use_attribute_docstrings=True)
