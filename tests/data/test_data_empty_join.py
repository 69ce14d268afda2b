"""A code base without a doctest, or without a Python file: the task that may join another has no row, and the build goes on."""

import pytest

from mft.data import build
from mft.errors import DataError

RECIPE = """\
name: r
tasks:
  completion: {sources: [{type: code, path: tree, make: completion}]}
  usage: {sources: [{type: python_code, path: tree, make: usage, join_below: {rows: 2, files: 1, task: completion}}]}
steps: [{type: exact_dedup}]
split: {validation: 0.5, by: file}
"""
PYTHON = 'def f{n}(a):\n    """Add some numbers to a number, one by one."""\n    a += {n}\n    a += 2\n    a += 3\n    return a\n'
GO = "package p\n\n// F{n} adds some numbers.\nfunc F{n}(a int) int {{\n\ta += {n}\n\ta += 2\n\ta += 3\n\treturn a\n}}\n"
SHOWN = 'def g(a):\n    """Add one.\n\n    >>> g(1)\n    2\n    """\n    b = a\n    return b + 1\n'


def plant(folder, text, ending):
    (folder / "tree").mkdir()
    for n in range(20):
        (folder / "tree" / f"f{n}.{ending}").write_text(text.format(n=n))
    (folder / "r.yaml").write_text(RECIPE)
    return folder / "r.yaml"


@pytest.mark.parametrize(("text", "ending"), [(PYTHON, "py"), (GO, "go")])
def test_a_task_that_may_join_another_may_have_no_row(text, ending, tmp_path):
    facts = build(plant(tmp_path, text, ending), tmp_path / "out").facts
    assert facts["joined"]["usage"] == {"into": "completion", "rows": 0, "validation_rows": 0, "validation_files": 0}
    assert set(facts["per_task"]) == {"completion"}
    assert sum(facts["per_task"]["completion"].values()) == 20
    assert facts["read"] == facts["kept"] + sum(facts["dropped"].values())
    assert build(tmp_path / "r.yaml", tmp_path / "out").usage == {}   # found finished


def test_a_step_may_leave_it_no_row(tmp_path):
    recipe = plant(tmp_path, PYTHON, "py")
    (tmp_path / "tree" / "g.py").write_text(SHOWN)
    recipe.write_text(RECIPE.replace("steps: [{type: exact_dedup}]", "steps: [{type: length, min_characters: 130}]"))
    facts = build(recipe).facts
    assert facts["joined"]["usage"]["rows"] == 0
    assert facts["dropped"]["too_short"] >= 1


@pytest.mark.parametrize("make", ["usage", "text2code"])
def test_a_task_that_stays_alone_must_have_rows(make, tmp_path):
    recipe = plant(tmp_path, PYTHON.replace('    """Add some numbers to a number, one by one."""\n', ""), "py")
    recipe.write_text(RECIPE.replace(", join_below: {rows: 2, files: 1, task: completion}", "").replace("make: usage", f"make: {make}"))
    with pytest.raises(DataError, match=f"gives no row for task 'usage' \\({make}\\)"):
        build(recipe)
