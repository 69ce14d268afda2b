"""A row knows the file that its seed was cut from, through every step and from one synthesis to the next."""

import json
from pathlib import Path

from mft.data import build
from mft.data.ledger import Ledger
from mft.synthesis.config import SynthesizeOptions
from mft.synthesis.run import synthesize
from mft.synthesis.seeds import read_seeds

RECIPE = """\
name: r
tasks: {functions: {sources: [{type: code, path: tree, make: function}]}}
split: {validation: 0}
"""
OPTIONS = SynthesizeOptions.model_validate({"steps": [{"type": "length", "min_characters": 1}]})
FUNCTION = "def f(a):\n    b = a\n    return b + {n}\n"


def built(folder: Path) -> Path:
    """A data folder of the functions of two files."""
    for number, name in enumerate(("a/one.py", "two.py")):
        (folder / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "tree" / name).write_text(FUNCTION.format(n=number))
    (folder / "r.yaml").write_text(RECIPE)
    build(folder / "r.yaml", folder / "built")
    return folder / "built"


def test_functions_of_a_tree_are_code_without_an_instruction_and_know_their_file(tmp_path: Path):
    rows = sorted(read_seeds(built(tmp_path), OPTIONS, Ledger("read")), key=lambda row: row.id)
    assert [(row.id, row.instruction, row.code, row.language, row.lineage.split_key) for row in rows] == [
        ("function/a/one.py:1", "", FUNCTION.format(n=0), "python", "a/one.py"),
        ("function/two.py:1", "", FUNCTION.format(n=1), "python", "two.py")]


def test_a_synthesis_writes_the_file_and_the_next_one_reads_it(tmp_path: Path):
    synthesize(built(tmp_path), tmp_path / "first", OPTIONS)
    synthesize(tmp_path / "first", tmp_path / "second", OPTIONS)
    for name in ("first", "second"):
        lines = [json.loads(line) for line in (tmp_path / name / "rows.jsonl").read_text().splitlines()]
        assert {line["id"]: line["split_key"] for line in lines} == {"function/a/one.py:1": "a/one.py", "function/two.py:1": "two.py"}


def test_what_is_made_of_a_row_is_of_its_file_too(tmp_path: Path):
    row = read_seeds(built(tmp_path), OPTIONS, Ledger("read"))[0]
    child = row.child("rarer", 1, "Write it otherwise.")
    assert (child.lineage.split_key, child.to_json()["split_key"]) == (row.lineage.split_key, row.lineage.split_key)


def test_rows_of_a_plain_file_name_no_file(tmp_path: Path):
    (tmp_path / "seeds.jsonl").write_text(json.dumps({"prompt": "Write f.", "answer": "f"}) + "\n")
    row, = read_seeds(tmp_path / "seeds.jsonl", OPTIONS, Ledger("read"))
    assert "split_key" not in row.to_json()
