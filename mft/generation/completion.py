"""What a model wrote after a prompt, and where it ends."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from mft.tokenization.load import TextTokenizer


@dataclass(frozen=True, slots=True)
class Completion:
    """The answer without what stopped it.

    `token_ids`: the ids of `text`; where a stop string begins inside a token, that token is the last one.
    `finish_reason`: `stop` (a stop token or a stop string came) or `length` (`max_new_tokens` was reached first).
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: Literal["stop", "length"]


def stop_position(text: str, stop_strings: Collection[str]) -> int | None:
    """Where the first stop string begins in `text`, or None.

    >>> stop_position("a = 1\\n# b\\ndef f", ["\\ndef", "\\n#"])
    5
    """
    found = [position for stop in stop_strings if (position := text.find(stop)) >= 0]
    return min(found, default=None)


def complete(prompt: Sequence[int], ids: Sequence[int], tokenizer: TextTokenizer, *, stop_ids: Collection[int],
             stop_strings: Collection[str]) -> Completion:
    """The completion in the ids that a model wrote after `prompt`, up to the first stop token or stop string.

    The text is decoded in the context of the prompt: alone, ids that begin with a space would lose it.
    """
    end = next((index for index, token in enumerate(ids) if token in stop_ids), None)
    kept = list(ids[:end])
    text = tokenizer.decode_continuation(prompt, kept)
    cut = stop_position(text, stop_strings)
    if cut is None:
        return Completion(text, tuple(kept), "length" if end is None else "stop")
    text = text[:cut]
    while kept and tokenizer.decode_continuation(prompt, kept[:-1]).startswith(text):
        kept.pop()
    return Completion(text, tuple(kept), "stop")
