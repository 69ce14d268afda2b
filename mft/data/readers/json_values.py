"""JSON as RFC 8259 has it, and what to do with what is not: NaN is null, a key that stands twice is a fault."""

import json
import re
from dataclasses import dataclass
from typing import Any

from mft.data.converters.base import RowFault, shown

NOT_UTF8 = re.compile("[\udc80-\udcff]")
"""What a byte that is no UTF-8 becomes with the error handler `surrogateescape`."""

NAN = "nan_as_null"


@dataclass(frozen=True, slots=True)
class Parsed:
    """A value, the index behind it, and what is odd about it."""

    value: Any
    end: int
    notes: tuple[str, ...]
    twice: str | None
    """A key that stands twice in one object."""

    def checked(self) -> Any:
        """The value.

        Raises:
            RowFault: `duplicate_key`.
        """
        if self.twice is not None:
            raise RowFault("duplicate_key", f"{shown(self.twice)} stands twice in one object, and which value counts is anyone's guess")
        return self.value


class JsonValues:
    """Parses values one by one."""

    def __init__(self) -> None:
        self._constants = 0
        self._twice: str | None = None
        self._decoder = json.JSONDecoder(object_pairs_hook=self._object, parse_constant=self._null)

    def parse(self, text: str) -> Parsed:
        """The one value of a text.

        Raises:
            RowFault: `broken_json`.
        """
        parsed = self.parse_at(text, len(text) - len(text.lstrip(" \t\r\n")))
        if text[parsed.end:].strip(" \t\r\n"):
            raise RowFault("broken_json", f"column {parsed.end + 1}: more text after the value")
        return parsed

    def parse_at(self, text: str, start: int) -> Parsed:
        """The value that begins at `start`.

        Raises:
            RowFault: `broken_json`.
        """
        self._constants, self._twice = 0, None
        try:
            value, end = self._decoder.raw_decode(text, start)
        except json.JSONDecodeError as error:
            raise RowFault("broken_json", f"column {error.colno}: {error.msg}") from error
        except (ValueError, RecursionError) as error:   # a number of thousands of digits; thousands of open brackets
            raise RowFault("broken_json", str(error)) from error
        return Parsed(value, end, (NAN,) if self._constants else (), self._twice)

    def _null(self, name: str) -> None:
        self._constants += 1

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        out = dict(pairs)
        if len(out) < len(pairs):
            names = [key for key, _ in pairs]
            self._twice = next(key for key in names if names.count(key) > 1)
        return out
