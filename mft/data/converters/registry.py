"""The converters by name, with the columns that a recipe declares."""

from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from typing import Any, Final

from mft.config.load import validate
from mft.config.yaml import Document
from mft.data.converters.alpaca import ALPACA
from mft.data.converters.base import Converter
from mft.data.converters.chat_rounds import CHAT_ROUNDS
from mft.data.converters.config import ConverterConfig, FieldsConverter, WrittenConverter
from mft.data.converters.fields import fields_converter
from mft.data.converters.messages import MESSAGES
from mft.data.converters.moss import MOSS
from mft.data.converters.pairs import DECLARED_PAIR, PAIRS_CONVERTER
from mft.data.converters.sharegpt import SHAREGPT
from mft.data.converters.text import INFILL, TEXT
from mft.errors import ConfigError, DataError

CONVERTERS: Final[Mapping[str, Converter]] = {converter.name: converter for converter in (
    CHAT_ROUNDS, MESSAGES, SHAREGPT, ALPACA, PAIRS_CONVERTER, TEXT, INFILL, MOSS)}

Choice = str | Mapping[str, Any] | ConverterConfig
"""A name, or a mapping as in a recipe, or that mapping checked."""


def find_converter(choice: Choice) -> Converter | None:
    """The converter of a name or mapping; None for `auto`, which is decided row by row.

    Raises:
        DataError: there is none such; the message lists what is allowed.
    """
    if isinstance(choice, str):
        return _named(choice)
    config = _checked(choice) if isinstance(choice, Mapping) else choice
    if isinstance(config, FieldsConverter):
        return fields_converter(config)
    if config.type == "pairs" and {"prompt", "answer"} <= config.columns.keys():
        return replace(DECLARED_PAIR, columns=config.columns)
    return replace(CONVERTERS[config.type], columns=config.columns)


def _checked(written: Mapping[str, Any]) -> ConverterConfig:
    try:
        config = validate(WrittenConverter, Document("converter", {"converter": dict(written)})).converter
    except ConfigError as error:
        raise DataError("; ".join(problem.removeprefix("converter:1: ") for problem in error.problems)) from error
    assert not isinstance(config, str)   # a mapping never becomes a name
    return config


def _named(name: str) -> Converter | None:
    if name == "auto":
        return None
    if name == "fields":
        raise DataError("converter 'fields' needs its templates: {type: fields, user: '...', assistant: '...'}")
    if name not in CONVERTERS:
        close = get_close_matches(name, ["auto", *CONVERTERS], n=1)
        raise DataError(f"converter '{name}' is not known; expected auto, {', '.join(CONVERTERS)}, fields"
                        + (f"; did you mean '{close[0]}'?" if close else ""))
    return CONVERTERS[name]
