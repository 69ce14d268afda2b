"""Question and answer of one function in a language other than Python: three tasks, as `mft.data.harvest` has them for Python."""

from collections.abc import Callable
from types import MappingProxyType
from typing import Final

from mft.data.code.description import described_characters
from mft.data.code.functions import CodeFunction
from mft.data.code.languages import LANGUAGES
from mft.data.converters.base import RowFault
from mft.data.function_limits import MIN_COMPLETION_LINES, MIN_DOCSTRING_CHARACTERS


def text2code(function: CodeFunction) -> tuple[str, str]:
    """(question, answer): doc comment and head up to the brace that opens the body; the body with the brace that closes it.

    Raises:
        RowFault: `no_docstring`, `docstring_too_short`.
    """
    _described(function)
    start = _first_text(function.lines, function.body_start)
    return _ask("Write the body of this {title} {unit}.", function, function.lines[:function.body_start]), "\n".join(function.lines[start:])


def docstring(function: CodeFunction) -> tuple[str, str]:
    """(question, answer): the function without its doc comment, the comment's text without its markers.

    Raises:
        RowFault: `no_docstring`, `docstring_too_short`.
    """
    text = _described(function)
    return _ask("Write the {doc_word} of this {title} {unit}.", function, function.undocumented), text


def completion(function: CodeFunction) -> tuple[str, str]:
    """(question, answer): the function up to the middle of its body, the rest from a line that is not blank.

    Raises:
        RowFault: `body_too_short_to_cut`.
    """
    inside = function.lines[function.body_start:-1]
    if sum(bool(line.strip()) for line in inside) < MIN_COMPLETION_LINES:
        raise RowFault("body_too_short_to_cut")
    cut = _first_text(function.lines, function.body_start + len(inside) // 2)
    if cut == len(function.lines) - 1:
        raise RowFault("body_too_short_to_cut", "nothing but blank lines in its second half")
    return _ask("Complete this {title} {unit}.", function, function.lines[:cut]), "\n".join(function.lines[cut:])


CODE_MAKERS: Final = MappingProxyType[str, Callable[[CodeFunction], tuple[str, str]]](
    {"text2code": text2code, "docstring": docstring, "completion": completion})


def _described(function: CodeFunction) -> str:
    if function.docstring is None:
        raise RowFault("no_docstring")
    if described_characters(function.docstring) < MIN_DOCSTRING_CHARACTERS:
        raise RowFault("docstring_too_short")
    return function.docstring


def _ask(instruction: str, function: CodeFunction, lines: tuple[str, ...]) -> str:
    spec = LANGUAGES[function.language]
    return "\n".join((instruction.format(title=spec.title, unit=spec.unit, doc_word=spec.doc_word), *lines))


def _first_text(lines: tuple[str, ...], index: int) -> int:
    """The first line from `index` on that is not blank; the closing brace at the latest."""
    while not lines[index].strip():
        index += 1
    return index
