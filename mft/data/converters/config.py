"""How the rows of a source become conversations: a schema by name, with its columns renamed, or a template a role."""

from functools import lru_cache
from typing import Annotated, Any, Literal

from jinja2 import StrictUndefined, TemplateSyntaxError
from jinja2.sandbox import SandboxedEnvironment
from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from mft.config.model import StrictModel
from mft.data.converters.base import shown

SchemaName = Literal["chat_rounds", "messages", "sharegpt", "alpaca", "pairs", "text", "infill", "moss"]
ConverterName = Literal["auto", SchemaName]

SCHEMA_KEYS: dict[str, tuple[str, ...]] = {
    "chat_rounds": ("chat_rounds",),
    "messages": ("messages",),
    "sharegpt": ("conversations", "system"),
    "alpaca": ("instruction", "input", "output", "system", "history"),
    "pairs": ("prompt", "answer", "system"),
    "text": ("text",),
    "infill": ("prefix", "suffix", "middle"),
    "moss": ("chat", "meta_instruction"),
}
"""The keys of each schema that `columns` may rename; `id` too, for all of them."""


@lru_cache(maxsize=1)
def template_environment() -> SandboxedEnvironment:
    """The Jinja environment of `fields`: no access to attributes that reach Python, no missing column taken for empty text,
    no newline removed, nothing escaped."""
    return SandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False, finalize=_written)


def _written(value: Any) -> Any:
    """The value of an expression, unless it would stand in the text as Python writes it."""
    if value is None or isinstance(value, list | tuple | dict | set | bytes):
        raise ValueError(f"an expression gives {shown(value)}, which is no text; use an index, or a filter such as join or tojson")
    return value


def _template(text: str) -> str:
    try:
        template_environment().compile(text)
    except TemplateSyntaxError as error:
        raise ValueError(f"not a Jinja template: line {error.lineno} of it: {error.message}") from error
    return text


class NamedConverter(StrictModel):
    """A known schema whose columns have other names."""

    type: SchemaName

    columns: dict[str, str] = Field(default_factory=dict)
    """Key of the schema -> key of the row: `{prompt: question_text, answer: solution}`; `id` may be renamed too."""

    @model_validator(mode="after")
    def _known_columns(self) -> "NamedConverter":
        allowed = (*SCHEMA_KEYS[self.type], "id")
        if unknown := [key for key in self.columns if key not in allowed]:
            raise ValueError(f"columns: '{unknown[0]}' is no key of the schema '{self.type}'; allowed: {', '.join(allowed)}")
        return self


class FieldsTurn(StrictModel):
    """One round of a `fields` converter."""

    user: str
    """A Jinja template over the row's columns."""

    assistant: str
    """A Jinja template over the row's columns; what it gives is trained, to the character."""

    _check = field_validator("user", "assistant")(_template)


class FieldsConverter(StrictModel):
    """Any row, by a Jinja template for each role: `user: "Translate to C#:\\n{{ java }}"`, `assistant: "{{ cs }}"`."""

    type: Literal["fields"]

    system: str | None = None
    """A Jinja template; where it gives no text there is no system message."""

    user: str | None = None
    """A Jinja template over the row's columns. What it gives is never stripped."""

    assistant: str | None = None
    """A Jinja template over the row's columns."""

    turns: tuple[FieldsTurn, ...] = ()
    """Several rounds, in place of `user` and `assistant`."""

    columns: dict[str, str] = Field(default_factory=dict)
    """Name in the templates -> key of the row, for keys that are no Jinja names (`query-split`); `id` names the row."""

    _check = field_validator("system", "user", "assistant")(lambda text: None if text is None else _template(text))

    @model_validator(mode="after")
    def _rounds(self) -> "FieldsConverter":
        pair = (self.user, self.assistant)
        if self.turns and pair != (None, None):
            raise ValueError("give `user` and `assistant`, or `turns`, not both")
        if not self.turns and None in pair:
            raise ValueError("needs `user` and `assistant`, or `turns` with a user and an assistant each")
        return self

    @property
    def rounds(self) -> tuple[FieldsTurn, ...]:
        """The rounds, however they were written."""
        return self.turns or (FieldsTurn(user=self.user or "", assistant=self.assistant or ""),)


ConverterConfig = NamedConverter | FieldsConverter
ConverterChoice = Annotated[
    Annotated[ConverterName, Tag("name")] | Annotated[Annotated[ConverterConfig, Field(discriminator="type")], Tag("mapping")],
    Discriminator(lambda value: ("name", "mapping")[isinstance(value, dict | StrictModel)])]
"""What a recipe may write: a name, or a mapping with a `type`."""


class WrittenConverter(StrictModel):
    """A converter that stands alone, outside a recipe."""

    converter: ConverterChoice
    """As in a recipe."""
