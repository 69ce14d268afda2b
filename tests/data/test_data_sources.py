"""Sources in a recipe: every kind of file gives the same rows, and what decides them is in the manifest."""

import json

import pytest
from test_data_readers import MAKE, packed

from mft.data import build, load_recipe
from mft.data.pipeline import job_hash
from mft.data.sources import source_inputs

ROWS = [{"question": f"Question {n}?", "answer": f"{n ** 5}"} for n in range(20)]
TYPES = {"jsonl": "a.jsonl", "json": "a.json", "parquet": "a.parquet", "csv": "a.csv"}


def recipe(folder, source, **more):
    lines = ["name: r", "tasks:", "  t:", "    sources:", f"      - {json.dumps(source)}", "split: {validation: 0.2, by: id}"]
    (folder / "r.yaml").write_text("\n".join(lines) + "\n")
    return load_recipe(folder / "r.yaml", must_exist=True)


def job(loaded):
    return job_hash(loaded, source_inputs(loaded))


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
@pytest.mark.parametrize("kind", TYPES)
def test_a_recipe_reads_every_kind_and_packing(tmp_path, kind, suffix):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / f"{TYPES[kind]}{suffix}").write_bytes(packed(MAKE[TYPES[kind]](ROWS), suffix))
    built = build(recipe(tmp_path, {"type": kind, "path": "in/*"}))
    assert sorted(row.messages[1].content for part in built.rows.values() for row in part) == sorted(row["answer"] for row in ROWS)
    assert (built.facts["read"], built.facts["kept"], built.facts["dropped"]) == (20, 20, {})


def test_the_type_decides_and_not_the_ending_of_the_name(tmp_path):
    (tmp_path / "rows.data").write_bytes(MAKE["a.csv"](ROWS))
    assert build(recipe(tmp_path, {"type": "csv", "path": "rows.data"})).facts["kept"] == 20
    (tmp_path / "words").write_text("one\ntwo\n")
    built = build(recipe(tmp_path, {"type": "lines", "path": "words"}))
    assert {row.messages[0].content for part in built.rows.values() for row in part} == {"one", "two"}


def test_delimiter_and_names_of_a_csv_source_are_used(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"q1;a1\nq2;a2\n")
    built = build(recipe(tmp_path, {"type": "csv", "path": "a.csv", "delimiter": ";", "names": ["question", "answer"]}))
    assert {row.messages[1].content for part in built.rows.values() for row in part} == {"a1", "a2"}


def test_licence_and_origin_stand_in_the_manifest(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(MAKE["a.jsonl"](ROWS))
    build(recipe(tmp_path, {"type": "jsonl", "path": "a.jsonl", "license": "CC BY 4.0", "origin": "https://example.org"}), tmp_path / "out")
    entry = json.loads((tmp_path / "out" / "manifest.json").read_text())["inputs"][0]
    assert (entry["license"], entry["origin"], entry["files"], entry["path"]) == ("CC BY 4.0", "https://example.org", 1, "a.jsonl")
    assert entry["sha256"]


@pytest.mark.parametrize("change", [{"train": "last"}, {"converter": "pairs"},
                                    {"converter": {"type": "pairs", "columns": {"id": "question"}}}, {"license": "MIT"}])
def test_a_changed_source_is_another_build(tmp_path, change):
    (tmp_path / "a.jsonl").write_bytes(MAKE["a.jsonl"](ROWS))
    source = {"type": "jsonl", "path": "a.jsonl"}
    before = job(recipe(tmp_path, source))
    assert job(recipe(tmp_path, source)) == before
    assert job(recipe(tmp_path, {**source, **change})) != before


@pytest.mark.parametrize("kind", TYPES)
def test_a_changed_file_of_any_kind_is_another_build_and_a_moved_one_is_not(tmp_path, kind):
    name = TYPES[kind]
    (tmp_path / name).write_bytes(MAKE[name](ROWS))
    before = job(recipe(tmp_path, {"type": kind, "path": name}))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / name).write_bytes(MAKE[name](ROWS))
    assert job(recipe(tmp_path, {"type": kind, "path": f"b/{name}"})) == before
    (tmp_path / name).write_bytes(MAKE[name]([*ROWS[:-1], {"question": "Question 19?", "answer": "other"}]))
    assert job(recipe(tmp_path, {"type": kind, "path": name})) != before


def test_the_resolved_recipe_builds_the_same_rows_again(tmp_path):
    (tmp_path / "a.csv").write_bytes(MAKE["a.csv"](ROWS))
    source = {"type": "csv", "path": "a.csv", "converter": {"type": "fields", "user": "{{ question }}\n", "assistant": "{{ answer }}"}}
    first = build(recipe(tmp_path, source), tmp_path / "out")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "r.yaml").write_text((tmp_path / "out" / "recipe.yaml").read_text())
    assert build(tmp_path / "elsewhere" / "r.yaml").facts["sha256"] == first.facts["sha256"]
