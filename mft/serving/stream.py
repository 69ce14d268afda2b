"""An answer's text while it is being written: only what no later token can change."""

from collections.abc import Callable, Collection, Sequence

from mft.generation.completion import stop_position
from mft.tokenization.load import TextTokenizer

REPLACEMENT = "\ufffd"


class TextStream:
    """Called with the ids of each row so far; hands on the new text of the first row.

    Held back: the bytes of a character that is not whole yet, and the end of the text where a stop string may be beginning. `text` is
    what has been handed on.
    """

    def __init__(self, prompt: Sequence[int], tokenizer: TextTokenizer, write: Callable[[str], None], *, stop_ids: Collection[int],
                 stop_strings: Collection[str]) -> None:
        self.text = ""
        self._prompt, self._tokenizer, self._write = prompt, tokenizer, write
        self._stop_ids, self._stop_strings = frozenset(stop_ids), tuple(stop_strings)

    def __call__(self, written: list[list[int]]) -> None:
        """Take in the ids of the answer so far."""
        ids = [token for token in written[0] if token not in self._stop_ids]
        whole = self._tokenizer.decode_continuation(self._prompt, ids)
        cut = stop_position(whole, self._stop_strings)
        self._hand_on(whole[:cut] if cut is not None else whole[:len(whole) - self._held_back(whole)])

    def finish(self, text: str) -> None:
        """Hand on what is left of the finished answer."""
        self._hand_on(text)

    def _hand_on(self, text: str) -> None:
        if len(text) > len(self.text):
            self._write(text[len(self.text):])
            self.text = text

    def _held_back(self, text: str) -> int:
        """How many characters at the end may still change."""
        unfinished = len(text) - len(text.rstrip(REPLACEMENT))
        starts = (size for stop in self._stop_strings for size in range(1, len(stop)) if text.endswith(stop[:size]))
        return max(unfinished, max(starts, default=0))
