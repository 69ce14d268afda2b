"""`split_key`: rows that were made of other rows stand on the side of the file that those came from."""

import json

import pytest

from mft.data import build
from mft.data.config import load_recipe
from mft.errors import ConfigError, DataError

RECIPE = """\
name: r
tasks:
  cut: {{sources: [{{type: code, path: tree, make: completion}}]}}
  made: {{sources: [{{type: {kind}, path: "{path}", converter: pairs, split_key: file{more}}}]}}
split: {{validation: 0.4, by: {by}}}
"""
FUNCTION = "def f(a):\n    a += 1\n    a += 2\n    a += 3\n    return a\n"
FILES = [f"part/m{number}.py" for number in range(30)]


def rows_of(files):
    return [{"id": file, "prompt": f"What is in {file}?", "answer": "A function.", "file": file} for file in files]


def write(folder, rows, *, kind="jsonl", by="file", more=""):
    """A tree of 30 files, rows about them, and the recipe of both."""
    for file in FILES:
        (folder / "tree" / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / "tree" / file).write_text(FUNCTION)
    lines = [json.dumps(row) for row in rows]
    (folder / "rows.txt").write_text("[" + ",\n".join(lines) + "]" if kind == "json" else "".join(line + "\n" for line in lines))
    (folder / "r.yaml").write_text(RECIPE.format(kind=kind, path="rows.txt", by=by, more=more))
    return folder / "r.yaml"


@pytest.mark.parametrize("kind", ["jsonl", "json"])
def test_a_row_stands_on_the_side_of_the_file_that_it_names(kind, tmp_path):
    built = build(write(tmp_path, rows_of(FILES), kind=kind)).rows
    sides = {part: {task: {row.split_key for row in rows if row.task == task} for task in ("cut", "made")} for part, rows in built.items()}
    assert sides["train"]["cut"] == sides["train"]["made"]
    assert sides["validation"]["cut"] == sides["validation"]["made"]
    assert len(sides["train"]["cut"]) + len(sides["validation"]["cut"]) == 30
    assert 4 < len(sides["validation"]["cut"]) < 20


def test_rows_without_the_key_are_counted_drops(tmp_path):
    rows = rows_of(FILES)
    bad = [{**rows[0], "file": value} for value in (None, "", 7)] + [{key: rows[0][key] for key in ("prompt", "answer")}]
    facts = build(write(tmp_path, [*rows, *bad, {**rows[0], "file": "\ud83d"}])).facts
    assert facts["dropped"] == {"no_split_key": 4, "lone_surrogate": 1}


def test_a_key_that_stands_in_no_row_ends_the_build(tmp_path):
    recipe = write(tmp_path, [{"prompt": "p", "answer": "a"}])
    with pytest.raises(DataError, match=r"rows\.txt: no usable row; dropped: no_split_key 1"):
        build(recipe)


def test_it_is_refused_where_files_decide_nothing(tmp_path):
    with pytest.raises(ConfigError) as error:
        load_recipe(write(tmp_path, rows_of(FILES), by="id"))
    assert "a source of 'made' names a split_key, which takes the place of a file's path, but split.by is id" in str(error.value)


def test_the_pieces_of_a_large_file_are_read_alike(tmp_path, monkeypatch):
    recipe = write(tmp_path, rows_of(FILES))
    whole = build(recipe)
    monkeypatch.setattr("mft.data.engine.plan.PIECE_BYTES", 400)
    assert build(recipe).facts["sha256"] == whole.facts["sha256"]


@pytest.mark.parametrize("text", ["", "{}\n"])
def test_a_file_of_a_task_that_may_join_another_may_be_empty(text, tmp_path):
    recipe = write(tmp_path, rows_of(FILES), more=", join_below: {rows: 2, files: 2, task: cut}")
    (tmp_path / "rows.txt").write_text(text)
    facts = build(recipe).facts
    assert facts["joined"]["made"] == {"into": "cut", "rows": 0, "validation_rows": 0, "validation_files": 0}
    assert facts["read"] == facts["kept"] + sum(facts["dropped"].values())
    recipe.write_text(RECIPE.format(kind="jsonl", path="rows.txt", by="file", more=""))
    with pytest.raises(DataError, match=r"the file is empty|no usable row"):
        build(recipe)


def test_rows_of_a_file_join_another_task_when_they_are_few(tmp_path):
    facts = build(write(tmp_path, rows_of(FILES[:3]), more=", join_below: {rows: 9, files: 9, task: cut}")).facts
    assert facts["joined"]["made"]["rows"] == 3
    assert sum(facts["per_task"]["cut"].values()) == 33
