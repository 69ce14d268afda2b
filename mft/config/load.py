"""From a YAML file and `key=value` overrides to a checked model, with every mistake reported at once."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from mft.config.overrides import apply_override
from mft.config.problems import describe, found
from mft.config.yaml import Document, parse_yaml, read_yaml
from mft.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)


def load_config(model: type[Model], path: Path, overrides: Sequence[str] = (), *, context: dict[str, Any] | None = None,
                prepare: Callable[[Document], list[str]] = lambda document: []) -> Model:
    """Read `path`, apply overrides (`training.epochs=2`, `stages.train.training.seed=7`), check everything.

    In an override a list item is named by its index or by its `name`. `prepare` may change the document before it is checked, and
    returns what is wrong with it.

    Raises:
        ConfigError: every mistake, each as `file:line: key: what is allowed, what was found`.
    """
    document = read_yaml(path)
    _check_top(document)
    problems = [problem for text in overrides if (problem := apply_override(document, text))]
    problems += prepare(document)
    try:
        loaded = validate(model, document, context=context)
    except ConfigError as error:
        raise ConfigError([*problems, *error.problems]) from error
    if problems:
        raise ConfigError(problems)
    return loaded


def parse_config(model: type[Model], text: str, path: str = "<text>") -> Model:
    """As `load_config`, for YAML text that is at hand."""
    return validate(model, parse_yaml(text, path))


def validate(model: type[Model], document: Document, *, context: dict[str, Any] | None = None) -> Model:
    """Check parsed YAML against a model.

    Raises:
        ConfigError: every mistake, with its line.
    """
    _check_top(document)
    try:
        return model.model_validate(document.data, context=context)
    except ValidationError as error:
        raise ConfigError(describe(error, document, model)) from error


def _check_top(document: Document) -> None:
    if document.data is None:
        raise ConfigError([f"{document.path}:1: the file is empty"])
    if not isinstance(document.data, dict):
        raise ConfigError([f"{document.path}:1: expected keys and values, found {found(document.data)}"])
