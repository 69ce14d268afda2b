"""Source code is cut, never rewritten."""

import ast

import pytest

from mft.data.harvest import MAKERS, harvest
from mft.data.ledger import Ledger
from mft.data.python_functions import UnreadableFile, parse_functions, read_tree
from mft.data.walk import standard_library

MODULE = '''\
"""A module."""
import functools
from typing import overload


class Shelf:
    """Holds boxes."""

    @functools.cache
    def count(self, kind,  *, deep=False):   # odd  spacing stays
        """Count the boxes of one kind.

            >>> Shelf().count("red")
            2
            >>> total = 0
            >>> for kind in ("red", "blue"):
            ...     total += Shelf().count(kind)

        Boxes in boxes count if `deep`.
        """

        # a comment before the code
        found = [box
                 for box in self.boxes if box.kind==kind]

        if deep:
            found += [x for box in found for x in box]
        return len(found)  # the end

    def size(self): return self.boxes[
        0]

    @overload
    def get(self, a: int) -> int:
        """An overload, described at length."""
        x = 1
        return x

    def missing(self):
        """Abstract, described at length."""
        raise NotImplementedError("later")

    def short(self):
        """One line only, described at length."""
        return 1


async def plain(x):
    def inner(y):
        """Nested, described at length enough."""
        y += 1
        return y
    x = inner(x)
    name = "café"; y = """
  text"""
    return x, name, y


def brief(x):
    """Too brief."""
    x += 1
    return x


def crowded(x):
    """A docstring that shares its line."""; x += 1
    x += 2
    return x


if True:
    def in_branch(x):
        "A docstring of one line."  # with a comment
        x += 1

        return x
'''

COUNT_HEAD = '''\
    @functools.cache
    def count(self, kind,  *, deep=False):   # odd  spacing stays'''
COUNT_DOCSTRING = '''\
        """Count the boxes of one kind.

            >>> Shelf().count("red")
            2
            >>> total = 0
            >>> for kind in ("red", "blue"):
            ...     total += Shelf().count(kind)

        Boxes in boxes count if `deep`.
        """'''
COUNT_BODY = '''\
        # a comment before the code
        found = [box
                 for box in self.boxes if box.kind==kind]

        if deep:
            found += [x for box in found for x in box]
        return len(found)  # the end'''


def rows_of(make, text=MODULE):
    ledger = Ledger("read")
    rows = list(harvest(parse_functions(text, "pkg/shelf.py"), make, make, ledger))
    ledger.close()
    return {row.origin.split(" ")[1]: row for row in rows}, dict(ledger.dropped)


def texts(row):
    return tuple(message.content for message in row.messages)


def test_text2code_asks_with_signature_and_docstring_and_answers_with_the_exact_body():
    rows, dropped = rows_of("text2code")
    assert texts(rows["Shelf.count"]) == (f"Write the body of this Python function.\n{COUNT_HEAD}\n{COUNT_DOCSTRING}", COUNT_BODY)
    assert texts(rows["in_branch"]) == (
        'Write the body of this Python function.\n    def in_branch(x):\n        "A docstring of one line."  # with a comment',
        "        x += 1\n\n        return x")
    assert set(rows) == {"Shelf.count", "in_branch"}
    assert dropped == {"body_is_a_stub": 1, "body_too_short": 1, "overload_stub": 1, "nested_function": 1, "docstring_too_short": 1,
                       "no_docstring": 1, "unusual_layout": 2}


@pytest.mark.parametrize(("text", "fault"), [
    ("Sets the colour of the box.\n\n    %(box_doc)s", "docstring_template"),
    ("Writes `%(box)s` for every box.", None),
    ("\n    .. versionchanged:: 3.2\n       Empty boxes have a lid too.", "docstring_too_short"),
    ("@cached opens the box but once.\n\n    @cached\n    def g(x): ...", None),
    ("Fix for https://example.org/boxes/issues/6066", "docstring_too_short"),
])
def test_a_docstring_has_to_stand_whole_in_the_source_and_to_describe(text, fault):
    rows, dropped = rows_of("docstring", f'def f(x):\n    """{text}\n    """\n    g(x)\n    return h(x)\n')
    assert (len(rows), dropped) == ((0, {fault: 1}) if fault else (1, {}))


def test_docstring_asks_with_the_code_alone_and_answers_with_the_dedented_text():
    rows, _ = rows_of("docstring")
    question, answer = texts(rows["Shelf.count"])
    assert question == f"Write the docstring of this Python function.\n{COUNT_HEAD}\n\n{COUNT_BODY}"
    assert answer == ('Count the boxes of one kind.\n\n    >>> Shelf().count("red")\n    2\n    >>> total = 0\n'
                      '    >>> for kind in ("red", "blue"):\n    ...     total += Shelf().count(kind)\n\nBoxes in boxes count if `deep`.')


def test_completion_cuts_the_body_in_the_middle_at_a_line_that_is_not_blank():
    rows, dropped = rows_of("completion")
    assert texts(rows["plain"]) == (
        'Complete this Python function.\nasync def plain(x):\n    def inner(y):\n        """Nested, described at length enough."""\n'
        "        y += 1\n        return y",
        '    x = inner(x)\n    name = "café"; y = """\n  text"""\n    return x, name, y')
    question, answer = texts(rows["Shelf.count"])
    assert question.endswith("box.kind==kind]\n")
    assert answer == "        if deep:\n            found += [x for box in found for x in box]\n        return len(found)  # the end"
    assert dropped["body_too_short_to_cut"] == 2


def test_usage_answers_with_the_input_lines_of_the_examples():
    rows, dropped = rows_of("usage")
    assert set(rows) == {"Shelf.count"}
    assert texts(rows["Shelf.count"]) == (
        f"Write doctest examples that show how this Python function is used.\n{COUNT_HEAD}\n\n{COUNT_BODY}",
        '>>> Shelf().count("red")\n>>> total = 0\n>>> for kind in ("red", "blue"):\n...     total += Shelf().count(kind)')
    assert dropped["no_doctest"] == 2


def test_a_broken_doctest_is_counted():
    text = 'def f(x):\n    """Say it.\n\n    >>>f(1)\n    """\n    x += 1\n    return x\n'
    assert rows_of("usage", text) == ({}, {"broken_doctest": 1})


def test_provenance_names_file_line_and_qualified_name():
    row = rows_of("text2code")[0]["Shelf.count"]
    assert (row.id, row.origin, row.split_key, row.task) == (
        "text2code/pkg/shelf.py:10", "pkg/shelf.py:10 Shelf.count", "pkg/shelf.py", "text2code")


def test_question_and_answer_laid_together_are_the_source():
    row = rows_of("completion")[0]["Shelf.count"]
    question, answer = texts(row)
    assert f"{question}\n{answer}".removeprefix("Complete this Python function.\n") in MODULE


@pytest.mark.parametrize("name", ["json/decoder.py", "dataclasses.py", "_pydecimal.py", "textwrap.py", "typing.py"])
def test_on_real_files_every_row_is_a_slice_of_the_source_that_parses(name):
    text = (standard_library() / name).read_text(encoding="utf-8")
    functions = parse_functions(text, name)
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert sorted(function.line for function in functions) == sorted(node.lineno for node in nodes)
    used = 0
    for row in harvest(functions, "completion", "t", Ledger("read")):
        question, answer = texts(row)
        code = question.split("\n", 1)[1] + "\n" + answer
        assert code in text
        ast.parse("if True:\n" + code if code.startswith(" ") else code)
        used += 1
    for row in harvest(functions, "text2code", "t", Ledger("read")):
        question, answer = texts(row)
        assert question.split("\n", 1)[1] in text
        assert answer in text
        assert answer.split("\n")[0].strip()
        assert answer.split("\n")[-1].strip()
        used += 1
    assert used > 5


def test_every_function_is_counted_for_every_task():
    functions = parse_functions(MODULE, "m.py")
    assert len(functions) == 10
    for make in MAKERS:
        ledger = Ledger("read")
        kept = len(list(harvest(functions, make, make, ledger)))
        assert (ledger.read, ledger.kept) == (10, kept)
        ledger.close()


def test_files_that_cannot_be_read_are_counted_and_the_others_used(tmp_path, caplog):
    (tmp_path / "a.py").write_text("def f(:\n")
    (tmp_path / "b.py").write_bytes(b"x = '\xff'\n")
    (tmp_path / "c.py").write_bytes(b"# coding: nonsense\nx = 1\n")
    (tmp_path / "d.py").write_bytes(b"x = 1\0\n")
    (tmp_path / "e.py").write_bytes("# coding: latin-1\ndef f(x):\n    y = 'é'\n    return y + x\n".encode("latin-1"))
    (tmp_path / "f.py").write_bytes(b"\xef\xbb\xbfdef g(x):\r\n    y = 1\r\n    return y + x\r\n")
    (tmp_path / "g.py").write_text("")
    found = list(read_tree(tmp_path))
    assert [(item.path, item.reason) for item in found if isinstance(item, UnreadableFile)] == [
        ("a.py", "does_not_parse"), ("b.py", "not_text"), ("c.py", "not_text"), ("d.py", "does_not_parse")]
    assert [item.lines for item in found if not isinstance(item, UnreadableFile)] == [
        ("def f(x):", "    y = 'é'", "    return y + x"), ("def g(x):", "    y = 1", "    return y + x")]
    ledger = Ledger("read")
    list(harvest(found, "text2code", "t", ledger))
    ledger.close()
    assert dict(ledger.dropped) == {"does_not_parse": 2, "not_text": 2, "no_docstring": 2}
    assert any("a.py: dropped: does_not_parse" in message for message in caplog.messages)


def test_a_function_of_too_many_lines_is_counted():
    text = 'def f(x):\n    """A docstring that is long enough."""\n' + "    x += 1\n" * 98
    assert rows_of("text2code", text)[1] == {}
    assert rows_of("text2code", text + "    x += 1\n") == ({}, {"too_many_lines": 1})


def test_other_peoples_warnings_are_not_shown(recwarn):
    parse_functions('def f():\n    x = "\\d"\n    return x is 1\n', "m.py")
    assert not recwarn.list


def test_functions_are_found_in_every_kind_of_block():
    text = ("try:\n    def a(): pass\nexcept ValueError:\n    def b(): pass\nelse:\n    def c(): pass\nfinally:\n    def d(): pass\n"
            "for x in y:\n    class E:\n        def e(self): pass\nelse:\n    with x:\n        def f(): pass\n"
            "match x:\n    case 1:\n        async def g(): pass\n")
    assert [function.name for function in parse_functions(text, "m.py")] == ["a", "b", "c", "d", "E.e", "f", "g"]


def test_code_behind_a_docstring_of_many_bytes_is_not_lost():
    text = 'def f(x):\n    "éééééééééééééééééééééééé"; x += 1\n    x += 2\n    return x\n'
    assert rows_of("text2code", text) == ({}, {"unusual_layout": 1})
