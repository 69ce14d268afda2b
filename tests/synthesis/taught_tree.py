"""A small code base with keys planted in it, and a teacher that answers by rules. The word of a file is in all that comes of it."""

import re
from pathlib import Path

PLANTED = "AKIA" + "IOSFODNN7" + "QWERTYU"
"""Stands in a function of the tree: no server and no row may ever see it."""
MADE_UP = "AKIA" + "JKLMNOPQ2" + "ZXCVBNM"
"""Stands in what the teacher writes: no trained row may hold it."""

TRAINED = ("anchor", "dolphin", "ember", "falcon", "garden", "harbor", "island", "jacket")
HELD_OUT = ("basket", "candle", "kettle")
GO_TRAINED, GO_HELD_OUT = ("bronze", "desert"), ("alpine",)
"""Words whose files stand on that side of a split that holds out a fifth of the files."""

PYTHON = '''\
def sum_{word}(values, {word}_limit={limit}):
    """Add up the {word} values that stay below the {word} limit, each counted {factor} times."""
    {word}_sum = 0
    for {word}_value in values:
        if {word}_value < {word}_limit:
            {word}_sum += {factor} * {word}_value
    return {word}_sum


class {title}Store:
    def take_{word}(self, {word}_count):
        """Take some {word} pieces out of the {word} store, and say how many {word} pieces are left."""
        self.{word}_left -= {word}_count
        if self.{word}_left < {factor}:
            raise ValueError("{word}")
        return self.{word}_left
'''
GO = '''\
package store

// Count{title} counts the {word} items of a {word} store that are larger than {factor}.
func Count{title}({word}Items []int) int {{
\t{word}Open := 0
\tfor _, {word}Item := range {word}Items {{
\t\tif {word}Item > {factor} {{
\t\t\t{word}Open++
\t\t}}
\t}}
\treturn {word}Open
}}
'''
LEAK = f'''\
def connect_{{word}}(host):
    """Open the connection to the {{word}} store of the backups."""
    {{word}}_key = "{PLANTED}"
    {{word}}_region = "eu-west-1"
    return open_session(host, {{word}}_key, {{word}}_region)
'''


def plant(tree: Path) -> Path:
    """Write the files; one of each side holds the planted key beside its functions."""
    tree.mkdir()
    for factor, word in enumerate(TRAINED + HELD_OUT, start=2):
        leak = "\n\n" + LEAK.format(word=word) if word in ("anchor", "basket") else ""
        (tree / f"{word}.py").write_text(PYTHON.format(word=word, title=word.title(), limit=10 * factor, factor=factor) + leak)
    for factor, word in enumerate(GO_TRAINED + GO_HELD_OUT, start=3):
        (tree / f"{word}.go").write_text(GO.format(word=word, title=word.title(), factor=factor))
    return tree


def teacher(messages: list[dict[str, str]]) -> str:
    """What is asked for, or tests of it. Of `jacket` the request holds a key, of `island` a test; methods get tests that fail."""
    text = messages[-1]["content"]
    code = re.findall(r"```\w*\n(.*?)\n*```", text, re.DOTALL)[-1]
    name, word = re.findall(r"(?:def|func) ((?:sum_|take_|Count)(\w+))", code)[0]
    if "named `solution`" in text:
        return tests_of(name, word, code)
    key = f" Log in with {MADE_UP}." if name == "sum_jacket" else ""
    return (f"Our {word} desk needs `{name}`; {word} clerks call `{name}` when {word} goods come in, "
            f"and read the {word} figure that it returns.{key}")


def tests_of(name: str, word: str, code: str) -> str:
    """Tests with the values that the function gives, written as literals."""
    if name.startswith("take_"):
        return f"```python\nfrom solution import {name}\n\ndef test_it():\n    assert {name}(None, 1) == 3\n```"
    found: dict[str, object] = {}
    exec(code, found)
    calls = ("[]", "[1, 2, 3]", "[5, 500, 7]", "[1, 2, 3], 3", "[4, 4, -1], 4")
    lines = [f"    assert {name}({call}) == {eval(f'{name}({call})', found)}" for call in calls]
    note = f"    # the {MADE_UP} account\n" if word == "island" else ""
    return f"```python\nfrom solution import {name}\n\ndef test_{word}():\n{note}" + "\n".join(lines) + "\n```"
