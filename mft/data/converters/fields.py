"""Any row by a Jinja template for each role: what a template gives is the message, to the character."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from jinja2 import Template, TemplateError, UndefinedError, meta

from mft.conversation import Message
from mft.data.converters.base import Converter, Notes, Row, RowFault
from mft.data.converters.config import FieldsConverter, template_environment

FAULTS = (TemplateError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError, RecursionError)
"""What an expression of a template can raise on a row it does not suit."""


def fields_converter(config: FieldsConverter) -> Converter:
    """The converter of a recipe's templates."""
    rounds = config.rounds

    def convert(row: Row, notes: Notes) -> tuple[Message, ...]:
        messages = []
        if config.system is not None and (system := _render(config.system, row, "system")):
            messages.append(Message("system", system))
        for turn in rounds:
            messages.append(Message("user", _render(turn.user, row, "user")))
            messages.append(Message("assistant", _render(turn.assistant, row, "assistant")))
        return tuple(messages)

    texts = [text for turn in rounds for text in (turn.user, turn.assistant)] + [config.system or ""]
    return Converter("fields", convert, frozenset(name for text in texts for name in _names(text)), columns=config.columns)


def _render(text: str, row: Mapping[str, Any], role: str) -> str:
    """The text that a template gives.

    Raises:
        RowFault: `missing_column`: it uses a column that the row has not. `template_failed`: an expression cannot be worked out,
            or gives something that is no text and no number (a list, null), which would stand in the row as Python writes it.
    """
    try:
        return _compiled(text).render(row)
    except UndefinedError as error:
        raise RowFault("missing_column", f"{role}: {error.message}") from error
    except FAULTS as error:
        raise RowFault("template_failed", f"{role}: {error}") from error


@lru_cache(maxsize=64)
def _compiled(text: str) -> Template:
    return template_environment().from_string(text)


def _names(text: str) -> set[str]:
    environment = template_environment()
    return meta.find_undeclared_variables(environment.parse(text))
