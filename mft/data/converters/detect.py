"""`auto`: the converter of a row by its keys, or a refusal to guess."""

from collections import Counter
from dataclasses import dataclass
from typing import Final

from mft.data.converters.base import Converter, Row, listed
from mft.data.converters.config import SCHEMA_KEYS
from mft.data.converters.pairs import PAIRS_CONVERTER, line_for, pairs_in
from mft.data.converters.registry import CONVERTERS
from mft.errors import DataError

NEEDED: Final = {
    "chat_rounds": ("chat_rounds",), "messages": ("messages",), "sharegpt": ("conversations",), "moss": ("chat",),
    "alpaca": ("instruction", "output"), "infill": ("prefix", "suffix", "middle"),
}
"""The keys by which a schema is known."""

BESIDE_TEXT: Final = frozenset({
    "added", "created", "dataset", "data_name", "date", "domain", "file", "filename", "id", "idx", "index", "lang", "language", "license",
    "meta", "metadata", "name", "path", "repo", "repo_name", "score", "source", "subset", "task", "text", "timestamp", "title",
    "token_count", "url", "uuid",
})
"""With no other keys than these a row with `text` is a text; with others the text may be a question about them."""

MOST_KEYS: Final = 1000
"""Sets of keys of which the candidates are remembered."""

KNOWN: Final = ("chat_rounds, messages, conversations (sharegpt), chat (moss), instruction + output (alpaca), a question and an answer "
                "(pairs), prefix + suffix + middle (infill), text")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A converter that could read a row, and the line that asks for it."""

    converter: Converter
    keys: tuple[str, ...]
    line: str

    @property
    def name(self) -> str:
        """`alpaca`, or `pairs (prompt, answer)`: pairs differ by their keys."""
        return f"pairs ({', '.join(self.keys)})" if self.converter.name == "pairs" else self.converter.name


def candidates(row: Row) -> list[Candidate]:
    """The converters that could read a row, by its keys alone.

    `alpaca` stands before the pairs it is made of, so that an instruction is never lost to input and output.
    """
    found = [Candidate(CONVERTERS[name], tuple(key for key in SCHEMA_KEYS[name] if key in row), f"converter: {name}")
             for name, keys in NEEDED.items() if all(key in row for key in keys)]
    for question, answer in pairs_in(row):
        if answer == "output" and "instruction" in row:
            continue
        found.append(Candidate(PAIRS_CONVERTER, (question, answer), line_for(question, answer)))
        if question == "instruction" and "input" in row and "output" not in row:
            found.append(Candidate(CONVERTERS["alpaca"], ("instruction", "input", answer),
                                   f"converter: {{type: alpaca, columns: {{output: {answer}}}}}"))
    if "text" in row and row.keys() <= BESIDE_TEXT:
        found.append(Candidate(CONVERTERS["text"], ("text",), "converter: text"))
    return found


class Detector:
    """Chooses a converter for each row of a file and remembers what it chose."""

    def __init__(self) -> None:
        self.chosen: Counter[str] = Counter()
        self._by_keys: dict[tuple[str, ...], list[Candidate]] = {}
        self.first_unfit: tuple[str, str] | None = None
        """Place and keys of the first row that fits none."""

    def choose(self, row: Row, where: str) -> Converter | None:
        """The converter of a row; None if none fits. Where several do, those whose keys are null are left out first.

        Raises:
            DataError: several fit; the message names them and the line to write for each.
        """
        keys = tuple(row)   # which converters fit depends on the keys alone, and most rows of a file have the same
        if keys not in self._by_keys:
            if len(self._by_keys) > MOST_KEYS:
                self._by_keys.clear()
            self._by_keys[keys] = candidates(row)
        found = self._by_keys[keys]
        if len(found) > 1:
            filled = candidates({key: value for key, value in row.items() if value is not None})
            found = filled if len(filled) == 1 else found
        if len(found) > 1:
            ways = "; or ".join(f"'{candidate.line}' reads {', '.join(candidate.keys)}" for candidate in found)
            raise DataError(f"{where}: the row fits {' and '.join(candidate.name for candidate in found)}; name one: {ways}")
        if not found:
            self.first_unfit = self.first_unfit or (where, listed(row))
            return None
        self.chosen[found[0].name] += 1
        return found[0].converter
