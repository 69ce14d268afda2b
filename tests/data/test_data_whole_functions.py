"""`make: function`: a whole function as one fenced block, which a synthesis reads as code."""

import pytest

from mft.conversation import shape_of
from mft.data import build
from mft.data.code.parse import parse_code
from mft.data.code.whole import whole_function
from mft.data.harvest import harvest
from mft.data.ledger import Ledger
from mft.data.python_functions import parse_functions
from mft.synthesis.code import code_of, language_of_code

METHOD = '''\
class Shelf:
    @cache
    def count(self, kind):   # odd  spacing
        """Count the boxes.

          of one kind "only
        """

        found = [box for box in self.boxes
                   if box.kind == kind]
        return len(found)
'''


def first_text(source, path="a.py"):
    """The row of the first function of a source text."""
    return whole_function(parse_functions(source, path)[0])


def test_a_python_method_stands_at_the_left_edge_with_decorators_and_docstring():
    assert first_text(METHOD) == '''\
```python
@cache
def count(self, kind):   # odd  spacing
    """Count the boxes.

      of one kind "only
    """

    found = [box for box in self.boxes
               if box.kind == kind]
    return len(found)
```'''


def test_a_string_of_several_lines_keeps_the_lines_as_they_are():
    for marks in ('"""', "'''"):
        source = f"class A:\n    def text(self):\n        x = {marks}one\n    two{marks}\n        return x\n"
        assert first_text(source) == f"```python\n{source.removeprefix('class A:').strip(chr(10))}\n```"


def test_a_line_left_of_the_head_keeps_the_lines_as_they_are():
    source = 'class A:\n    def text(self):\n        x = 1\n# far left\n        return x\n'
    assert first_text(source) == "```python\n    def text(self):\n        x = 1\n# far left\n        return x\n```"


def test_a_fence_is_longer_than_any_backquotes_inside_so_that_the_code_is_found_whole():
    source = 'def f(x):\n    """Show it.\n\n    ````\n    f(1)\n    ````\n    """\n    y = x\n    return y\n'
    text = first_text(source)
    assert text == f"`````python\n{source}`````"
    assert code_of(text, "python") == source


@pytest.mark.parametrize(("language", "file", "source", "expected"), [
    ("java", "A.java",
     "class A {\n    /** Twice x. */\n    @Pure\n    int twice(int x) {\n        int y = x;\n        return 2 * y;\n    }\n}\n",
     "```java\n/** Twice x. */\n@Pure\nint twice(int x) {\n    int y = x;\n    return 2 * y;\n}\n```"),
    ("javascript", "a.js", "class A {\n  twice(x) {\n    const y = `a\n      b`;\n    return y + x;\n  }\n}\n",
     "```javascript\n  twice(x) {\n    const y = `a\n      b`;\n    return y + x;\n  }\n```"),
    ("go", "a.go", "package a\n\n// Twice x.\nfunc twice(x int) int {\n\ty := x\n\treturn 2 * y\n}\n",
     "```go\n// Twice x.\nfunc twice(x int) int {\n\ty := x\n\treturn 2 * y\n}\n```"),
], ids=["java", "javascript", "go"])
def test_functions_of_other_languages_bring_their_documentation_and_are_known_by_their_fence(language, file, source, expected):
    row, = harvest(parse_code(source, file, language).functions, "function", "t", Ledger("read"))
    assert row.messages[0].content == expected
    assert shape_of(row.messages) == "text"
    assert language_of_code(expected, "python") == language


def test_what_no_other_task_takes_is_counted_here_too_but_documentation_is_not_asked_for():
    source = ("def bare(x):\n    y = x\n    return y\n\ndef short(x):\n    return x\n\ndef stub(x):\n    pass\n\n"
              "def outer(x):\n    def inner(y):\n        z = y\n        return z\n    return inner(x)\n")
    ledger = Ledger("read")
    rows = list(harvest(parse_functions(source, "a.py"), "function", "t", ledger))
    assert [(row.id, row.origin, row.split_key) for row in rows] == [
        ("function/a.py:1", "a.py:1 bare", "a.py"), ("function/a.py:11", "a.py:11 outer", "a.py")]
    assert dict(ledger.dropped) == {"body_too_short": 1, "body_is_a_stub": 1, "nested_function": 1}
    assert (ledger.read, ledger.kept) == (5, 2)


@pytest.mark.parametrize("kind", ["code", "python_code"])
def test_both_code_sources_make_them(kind, tmp_path):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "shelf.py").write_text(METHOD)
    (tmp_path / "r.yaml").write_text(
        f"name: r\ntasks: {{functions: {{sources: [{{type: {kind}, path: tree, make: function}}]}}}}\nsplit: {{validation: 0}}\n")
    row, = build(tmp_path / "r.yaml").rows["train"]
    assert row.messages[0].content == first_text(METHOD)
