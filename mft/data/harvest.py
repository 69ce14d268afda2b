"""Rows from the functions of source code: four tasks for Python, each with one fixed instruction and an answer cut from the source.

    text2code    signature and docstring            -> the body
    docstring    the function without its docstring -> the docstring
    completion   the first part of the function     -> the rest
    usage        the function without its docstring -> the `>>>` lines of its docstring

Code is cut between lines and never reformatted: what is asked and what is answered are laid together again by a newline.
The answer is exact, its indentation included; blank lines between docstring and body belong to neither side of text2code.
Other languages have the first three tasks: mft/data/code/makers.py. `function` is the whole function, without a question, in every
language: mft/data/code/whole.py.
"""

import doctest
import re
from collections.abc import Callable, Iterable, Iterator
from types import MappingProxyType
from typing import Final

from mft.conversation import Conversation, Message
from mft.data.code.description import docstring_characters
from mft.data.code.functions import CodeFunction, LeftOutFile
from mft.data.code.makers import CODE_MAKERS
from mft.data.code.whole import whole_function
from mft.data.converters.base import RowFault, check_messages
from mft.data.function_limits import MIN_COMPLETION_LINES, MIN_DOCSTRING_CHARACTERS
from mft.data.ledger import Ledger
from mft.data.python_functions import Function, UnreadableFile

PLACEHOLDER_LINE: Final = re.compile(r"^[ \t]*%\(\w+\)s[ \t]*$", re.MULTILINE)
"""`%(kwargs_doc)s` on a line of its own: a decorator puts a text there that does not stand in the source."""


def text2code(function: Function) -> tuple[str, str]:
    """(question, answer): signature and docstring, the body from its first line that is not blank.

    Raises:
        RowFault: `no_docstring`, `docstring_too_short`, `docstring_template`.
    """
    _described(function)
    start = _first_text(function.lines, function.body_start)
    return _ask("Write the body of this Python function.", function.lines[:function.body_start]), "\n".join(function.lines[start:])


def docstring(function: Function) -> tuple[str, str]:
    """(question, answer): the function without its docstring, the docstring's text without its indentation.

    Raises:
        RowFault: `no_docstring`, `docstring_too_short`, `docstring_template`.
    """
    text = _described(function)
    return _ask("Write the docstring of this Python function.", _undocumented(function)), text


def completion(function: Function) -> tuple[str, str]:
    """(question, answer): the function up to the middle of its body, the rest from a line that is not blank.

    Raises:
        RowFault: `body_too_short_to_cut`.
    """
    if sum(bool(line.strip()) for line in function.body) < MIN_COMPLETION_LINES:
        raise RowFault("body_too_short_to_cut")
    cut = _first_text(function.lines, function.body_start + len(function.body) // 2)
    return _ask("Complete this Python function.", function.lines[:cut]), "\n".join(function.lines[cut:])


def usage(function: Function) -> tuple[str, str]:
    """(question, answer): the function without its docstring, the `>>>` and `...` lines of its doctest examples.

    Raises:
        RowFault: `no_docstring`, `no_doctest`, `broken_doctest`.
    """
    if not function.docstring:
        raise RowFault("no_docstring")
    try:
        examples = doctest.DocTestParser().get_examples(function.docstring)
    except ValueError as error:
        raise RowFault("broken_doctest", str(error)) from error
    if not examples:
        raise RowFault("no_doctest")
    text = function.docstring.expandtabs().split("\n")
    shown = [line[example.indent:] for example in examples
             for line in text[example.lineno:example.lineno + example.source.count("\n")]]
    return _ask("Write doctest examples that show how this Python function is used.", _undocumented(function)), "\n".join(shown)


MAKERS: Final = MappingProxyType[str, Callable[[Function], tuple[str, str]]](
    {"text2code": text2code, "docstring": docstring, "completion": completion, "usage": usage})

WHOLE: Final = "function"
"""The kind of row that has no question: a text."""

Found = Function | CodeFunction | UnreadableFile | LeftOutFile
"""What a tree holds: functions, and files that give none."""


def harvest(functions: Iterable[Found], make: str, task: str, ledger: Ledger) -> Iterator[Conversation]:
    """One row of each function that qualifies, the others counted in `ledger` by reason, each unreadable or left-out file as one row.

    A row's id is `make/path:line`, its origin `path:line Qualified.name`, its split key the path.
    """
    for function in functions:
        ledger.read += 1
        if isinstance(function, UnreadableFile):
            ledger.drop(function.reason, function.path, function.detail)
            continue
        if isinstance(function, LeftOutFile):
            ledger.drop(function.reason)
            continue
        try:
            messages = _messages(function, make)
        except RowFault as fault:
            ledger.drop(fault.reason)
            continue
        ledger.kept += 1
        place = f"{function.path}:{function.line}"
        yield Conversation(f"{make}/{place}", task, messages, f"{place} {function.name}", function.path)


def _messages(function: Function | CodeFunction, make: str) -> tuple[Message, ...]:
    if function.fault:
        raise RowFault(function.fault)
    if make == WHOLE:
        text = (Message("assistant", whole_function(function)),)
        check_messages(text, "text")
        return text
    question, answer = MAKERS[make](function) if isinstance(function, Function) else CODE_MAKERS[make](function)
    messages = (Message("user", question), Message("assistant", answer))
    check_messages(messages)
    return messages


def _described(function: Function) -> str:
    """The docstring's text, which says enough and stands whole in the source."""
    if function.docstring is None:
        raise RowFault("no_docstring")
    if docstring_characters(function.docstring) < MIN_DOCSTRING_CHARACTERS:
        raise RowFault("docstring_too_short")
    if PLACEHOLDER_LINE.search(function.docstring):
        raise RowFault("docstring_template")
    return function.docstring


def _undocumented(function: Function) -> tuple[str, ...]:
    return function.lines[:function.docstring_start] + function.body


def _ask(instruction: str, lines: tuple[str, ...]) -> str:
    return "\n".join((instruction, *lines))


def _first_text(lines: tuple[str, ...], index: int) -> int:
    """The first line from `index` on that is not blank."""
    while not lines[index].strip():
        index += 1
    return index
