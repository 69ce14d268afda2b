"""The base class of everything a person writes in YAML."""

from pydantic import BaseModel, ConfigDict


class StrictModel(BaseModel):
    """Unknown keys are refused, defaults are checked, values do not change after loading."""

    # hide_input_in_errors: pydantic's own text of an error, which tracebacks show, would repeat a key that was put here by mistake.
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, coerce_numbers_to_str=True, allow_inf_nan=False,
                              use_attribute_docstrings=True, hide_input_in_errors=True)
