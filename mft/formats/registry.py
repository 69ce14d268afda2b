"""Which prompt formats there are, by name."""

from difflib import get_close_matches
from typing import Final

from mft.errors import FormatError
from mft.formats.base import PromptFormat
from mft.formats.codefuse import CodeFuse, CodeFuse2023
from mft.formats.ziya import Ziya

FORMATS: Final[dict[str, type[PromptFormat]]] = {kind.name: kind for kind in (CodeFuse, CodeFuse2023, Ziya)}


def names() -> list[str]:
    """The names that `get` knows, in the order in which messages list them."""
    return list(FORMATS)


def get(name: str, bos: str = "<s>", eos: str = "</s>") -> PromptFormat:
    """The prompt format of this name, for a tokenizer with these control tokens.

    Raises:
        FormatError: there is no such format; the message lists those there are.
    """
    if name in FORMATS:
        return FORMATS[name](bos=bos, eos=eos)
    close = get_close_matches(name, FORMATS, n=1, cutoff=0.5)
    hint = f"; did you mean '{close[0]}'?" if close else ""
    raise FormatError(f"'{name}' is not a prompt format; expected one of {', '.join(FORMATS)}{hint}")
