"""The config of another tool as it stands in its file: values by key, lines for messages, one type at a time."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from mft.config.overrides import apply_override
from mft.config.problems import found
from mft.config.yaml import Document, KeyPath, WrittenFloat, WrittenInt, parse_yaml, read_yaml
from mft.errors import ConfigError

WORDS: Final = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
LEVELS_UP: Final = 6
"""Folders above a config in which a relative path of it is looked for."""


def read_source(path: Path, overrides: Sequence[str] = ()) -> Document:
    """Parse a JSON or YAML file, and put `key=value` over it. JSON is read as the YAML that it is.

    Raises:
        ConfigError: missing, not UTF-8, neither JSON nor YAML, a key that stands twice, or no keys and values.
    """
    if path.suffix == ".json" and path.is_file():
        try:   # a tab is white space in JSON and a fault in YAML; inside a string JSON allows none
            document = parse_yaml(path.read_text(encoding="utf-8-sig").replace("\t", " "), str(path))
        except (UnicodeDecodeError, OSError) as error:
            raise ConfigError([f"{path}: cannot be read as UTF-8 text: {error}"]) from error
    else:
        document = read_yaml(path)
    if not isinstance(document.data, dict):
        raise ConfigError([f"{path}:1: expected keys and values, found {found(document.data)}"])
    if problems := [problem for text in overrides if (problem := apply_override(document, text))]:
        raise ConfigError(problems)
    return document


def plain(value: Any) -> Any:
    """A parsed value without the parser's number types; `true` and `false` as booleans.

    >>> plain(["true", 3, {"a": "x"}])
    [True, 3, {'a': 'x'}]
    """
    if isinstance(value, dict):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [plain(part) for part in value]
    if isinstance(value, WrittenInt):
        return int(value)
    if isinstance(value, WrittenFloat):
        return float(value)
    return {"true": True, "false": False}.get(value.lower(), value) if isinstance(value, str) else value


def is_off(value: Any) -> bool:
    """Whether a switch with this value does nothing: null, false, 0, empty, `none`."""
    if isinstance(value, str):
        return value.strip().lower() in ("", "none", "null", "no", "off", "false")
    return value in (None, False, 0, [], {})


@dataclass(slots=True)
class Source:
    """A parsed file. A getter gives None where the key is absent, null or of another type, which it notes as a problem."""

    document: Document
    problems: list[str] = field(default_factory=list)

    def at(self, *key: str | int) -> Any:
        """The value of a key, a nested one by its path; None where there is none."""
        return plain(self._raw(key))

    def has(self, *key: str | int) -> bool:
        """Whether the key is there and not null."""
        return self.at(*key) is not None

    def number(self, *key: str | int) -> float | None:
        """A number, also one in quotes."""
        value = self.at(*key)
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                self._wrong(key, "a number")
                return None
        if isinstance(value, bool) or (value is not None and not isinstance(value, int | float)):
            self._wrong(key, "a number")
            return None
        return value

    def whole(self, *key: str | int) -> int | None:
        """A whole number."""
        value = self.number(*key)
        if value is not None and not (abs(value) < 1e15 and float(value).is_integer()):
            self._wrong(key, "a whole number")
            return None
        return None if value is None else int(value)

    def flag(self, *key: str | int) -> bool | None:
        """True or false, in any of YAML's spellings."""
        value = self.at(*key)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in WORDS:
            return WORDS[value.lower()]
        if isinstance(value, int | float) and value in (0, 1):
            return bool(value)
        self._wrong(key, "true or false")
        return None

    def text(self, *key: str | int) -> str | None:
        """Text; a number as it was written."""
        value = self._raw(key)
        if value is None or isinstance(value, str | int | float):
            return None if value is None else str(value)
        self._wrong(key, "text")
        return None

    def words(self, *key: str | int) -> list[str] | None:
        """A list of words, or words with commas between them, also in brackets."""
        value = self.at(*key)
        if isinstance(value, list):
            if all(isinstance(part, str | int | float) for part in value):
                return [str(part).strip() for part in value]
            self._wrong(key, "a list of words")
            return None
        text = self.text(*key)
        return None if text is None else [part for word in text.strip("[] ").split(",") if (part := word.strip().strip("'\""))]

    def refuse(self, key: KeyPath, sentence: str) -> None:
        """Note a mistake, with file, line and key."""
        name = ".".join(map(str, key))
        self.problems.append(": ".join(part for part in (self.document.where(key), name, sentence) if part))

    def find(self, path: str) -> Path | None:
        """A file that the config names: as it stands, or relative to the config's folder or one above it."""
        folders = [Path(), *Path(self.document.path).resolve().parents[:LEVELS_UP]]
        return next((folder / path for folder in folders if (folder / path).exists()), None)

    def _raw(self, key: KeyPath) -> Any:
        value = self.document.data
        for step in key:
            if isinstance(value, dict):
                value = value.get(step)
            elif isinstance(value, list) and isinstance(step, int) and step < len(value):
                value = value[step]
            else:
                return None
        return value

    def _wrong(self, key: KeyPath, expected: str) -> None:
        self.refuse(key, f"expected {expected}, found {found(plain(self.at(*key)))}")
