"""The converters by name, and the choice of one by the keys of a row."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Final

from mft.data.converters.base import Converter
from mft.data.converters.chat_rounds import CHAT_ROUNDS
from mft.data.converters.messages import MESSAGES
from mft.data.converters.sharegpt import SHAREGPT
from mft.errors import DataError

CONVERTERS: Final[Mapping[str, Converter]] = {converter.name: converter for converter in (CHAT_ROUNDS, MESSAGES, SHAREGPT)}


def find_converter(name: str) -> Converter | None:
    """The converter of this name; None for `auto`, which is decided row by row.

    Raises:
        DataError: there is none of this name; the message lists them.
    """
    if name == "auto":
        return None
    if name not in CONVERTERS:
        close = get_close_matches(name, ["auto", *CONVERTERS], n=1)
        raise DataError(f"converter '{name}' is not known; expected auto, {', '.join(CONVERTERS)}"
                        + (f"; did you mean '{close[0]}'?" if close else ""))
    return CONVERTERS[name]


def detect(row: Mapping[str, Any], where: str) -> Converter:
    """The one converter whose key the row has.

    Raises:
        DataError: none or several; the message names the row's place, its keys and the candidates.
    """
    fitting = [converter for converter in CONVERTERS.values() if converter.key in row]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = " and ".join(f"{converter.name} (key '{converter.key}')" for converter in fitting)
        raise DataError(f"{where}: the row fits {names}; name one: 'converter: {fitting[0].name}'")
    known = ", ".join(f"{converter.name} (key '{converter.key}')" for converter in CONVERTERS.values())
    raise DataError(f"{where}: no converter fits this row; its keys are {', '.join(row) or 'none'}; known: {known}")
