"""A build is the same for any number of workers, on a cluster, in any pieces, and after it was stopped."""

import json
import logging

import datasets
import pytest
from engine_recipe import small_pieces, write_recipe

import mft.data.engine.plan as plan
from mft.data import build, load_recipe, read_built
from mft.data.engine.config import Engine
from mft.data.engine.plan import plan_shards
from mft.errors import DataError, MftError
from mft.files import check_manifest

SHA256 = "ae05c6b3695ecd4b1cc14416389db26a44ab70e7f2b32d24d759f2bd4f0dad91"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return write_recipe(tmp_path_factory.mktemp("engine") / "project")


@pytest.fixture(scope="module")
def in_one_process(recipe):
    with pytest.MonkeyPatch.context() as patch:
        small_pieces(patch)
        return build(recipe)


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch):
    small_pieces(monkeypatch)
    monkeypatch.setattr("mft.files.fsync_path", lambda path: None)              # how busy the disk is has no part in these tests
    monkeypatch.setattr("mft.data.engine.work.fsync_path", lambda path: None)


def test_the_recipe_is_many_shards_and_every_step_takes_rows(recipe, in_one_process):
    shards = plan_shards(load_recipe(recipe))
    assert [sum(shard.task == task for shard in shards) for task in ("chat", "rare", "code", "usage")] == [23, 1, 1, 1]
    assert in_one_process.facts["dropped"].keys() == {
        "blank_line", "broken_json", "does_not_parse", "duplicate", "near_duplicate", "not_an_object", "not_sampled",
        "other_language", "over_cap", "sampled_out", "syntax_error"}
    assert in_one_process.facts["sha256"] == SHA256


def test_the_pieces_of_a_source_are_counted_as_one(in_one_process):
    chat = next(step for step in in_one_process.facts["steps"] if (step["step"], step.get("task")) == ("read", "chat"))
    assert chat["sources"] == [
        {"source": "jsonl *.jsonl", "read": 890, "kept": 884, "dropped": {"blank_line": 2, "broken_json": 2, "not_an_object": 2}},
        {"source": "parquet table.parquet", "read": 500, "kept": 500, "dropped": {}}]


def test_each_step_says_its_counts_once(recipe, caplog):
    with caplog.at_level(logging.INFO, logger="mft"):
        build(recipe)
    lines = [record.getMessage().partition(" rows in,")[0] for record in caplog.records if " rows in," in record.getMessage()]
    assert len(lines) > 5
    assert len(lines) == len(set(lines))


def test_files_that_are_not_cut_give_the_same_rows_and_ledger(recipe, in_one_process, monkeypatch):
    monkeypatch.undo()
    assert len(plan_shards(load_recipe(recipe))) == 6
    whole = build(recipe)
    assert whole.facts == in_one_process.facts
    assert whole.rows == in_one_process.rows


def test_four_workers_give_the_same_rows_ledger_and_lists(recipe, in_one_process, tmp_path):
    four = build(recipe, tmp_path / "out", engine=Engine(workers=4, shard_rows=123))
    assert four.facts == in_one_process.facts
    assert list(four.facts["steps"][0]["report"]["converters"]) == list(in_one_process.facts["steps"][0]["report"]["converters"])
    assert four.lists == in_one_process.lists
    assert four.rows == in_one_process.rows
    check_manifest(tmp_path / "out")


def test_the_ledger_of_every_step_adds_up(in_one_process):
    facts = in_one_process.facts
    assert all(step["read"] == step["kept"] + sum(step["dropped"].values()) for step in facts["steps"])
    assert facts["read"] == facts["kept"] + sum(facts["dropped"].values()) == 2 * 445 + 500 + 60 + 2 * 21
    assert facts["steps"][0]["noted"]["crlf_line_ends"] == facts["steps"][0]["noted"]["byte_order_mark"] == 1


def test_output_files_hold_so_many_rows_and_neither_hash_nor_rows_depend_on_it(recipe, in_one_process, tmp_path):
    built = build(recipe, tmp_path / "out", engine=Engine(shard_rows=100))
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    sizes = {part: [entry["rows"] for entry in manifest["parts"][part]] for part in ("train", "validation")}
    assert all(size == 100 for part in sizes.values() for size in part[:-1])
    assert {part: sum(rows) for part, rows in sizes.items()} == {part: len(rows) for part, rows in in_one_process.rows.items()}
    assert manifest["parts"]["train"][0]["file"] == f"train-00000-of-{len(sizes['train']):05d}.parquet"
    assert built.facts == in_one_process.facts
    assert read_built(tmp_path / "out") == in_one_process.rows
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    ids = {part: [row.id for row in rows] for part, rows in in_one_process.rows.items()}
    assert {part: loaded[part]["id"][:] for part in loaded} == ids


def test_datasets_opens_a_folder_without_validation_rows(recipe, tmp_path):
    path = recipe.with_name("all-train.yaml")
    path.write_text(recipe.read_text().replace("validation: 0.1", "validation: 0").replace("{rows: 1000, files: 1, task: code}", "null"))
    build(path, tmp_path / "out")
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == ["train"]
    assert list(read_built(tmp_path / "out")["validation"]) == []


def test_drops_are_named_once_for_the_file_and_not_once_a_shard(recipe, caplog):
    with caplog.at_level(logging.WARNING, "mft"):
        build(recipe, engine=Engine(workers=1))
    lines = [record.getMessage() for record in caplog.records if "broken_json" in record.getMessage()]
    assert len(lines) == 2
    assert all("dropped: broken_json (column 2" in line for line in lines)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_mistake_found_in_a_worker_is_the_same_error(recipe, tmp_path, workers):
    path = recipe.with_name("columns.yaml")
    path.write_text("name: c\ntasks: {t: {sources: [{type: jsonl, path: chat/a.jsonl, converter: {type: pairs, columns: {prompt: q}}}]}}\n")
    with pytest.raises(DataError, match=r"a\.jsonl: no usable row; dropped: "):
        build(path, engine=Engine(workers=workers))
    (recipe.parent / "gone.jsonl").write_text('{"text": "x", "prompt": "p", "answer": "a", "question": "q"}\n')
    path.write_text("name: c\ntasks: {t: {sources: [{type: jsonl, path: gone.jsonl}]}}\n")
    with pytest.raises(DataError, match=r"gone\.jsonl:1: the row fits"):
        build(path, engine=Engine(workers=workers))


def test_a_stopped_build_goes_on_with_the_shards_that_are_done(recipe, in_one_process, tmp_path, monkeypatch):
    seen = []

    def stop(progress):
        seen.append(progress)
        if progress.stage == "read and clean" and progress.done == 10:
            raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        build(recipe, tmp_path / "out", report=stop)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.work"]
    seen.clear()
    resumed = build(recipe, tmp_path / "out", report=seen.append)
    assert (seen[0].stage, seen[0].total, resumed.usage["resumed_jobs"]) == ("read and clean", 16, 10)
    assert resumed.facts == in_one_process.facts
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


@pytest.mark.parametrize("change", ["recipe", "input"])
def test_a_changed_recipe_or_input_uses_nothing_of_a_stopped_build(tmp_path, change):
    recipe = write_recipe(tmp_path / "project")

    def stop(progress):
        if progress.stage == "write":
            raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        build(recipe, tmp_path / "out", report=stop)
    if change == "recipe":
        recipe.write_text(recipe.read_text().replace("rows: 700", "rows: 300"))
    else:
        (recipe.parent / "rare.jsonl").write_text((recipe.parent / "rare.jsonl").read_text().replace("same", "other"))
    again = build(recipe, tmp_path / "out")
    assert again.usage["resumed_jobs"] == 0
    assert again.facts == build(recipe).facts
    assert again.facts["sha256"] != SHA256


def test_a_half_written_shard_is_read_again(recipe, in_one_process, tmp_path):
    def stop(progress):
        if progress.done == 3:
            raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        build(recipe, tmp_path / "out", report=stop)
    work = tmp_path / ".out.work"
    (work / "map0-00001.json").unlink()
    (work / "map0-00001.rows.parquet").write_bytes(b"half")
    (work / ".map0-00009.rows.parquet.12345678.partial").write_bytes(b"half")
    assert build(recipe, tmp_path / "out").facts == in_one_process.facts


def test_ray_wants_no_workers_and_an_address_wants_ray():
    with pytest.raises(ValueError, match="the CPUs of the cluster decide"):
        Engine(engine="ray", workers=2)
    with pytest.raises(ValueError, match="needs the engine ray"):
        Engine(ray_address="auto")


def test_a_worker_that_is_killed_is_one_message(recipe, tmp_path):
    import os
    import signal
    import threading

    def kill(progress):
        if progress.done == 1 and progress.stage == "read and clean":
            import multiprocessing
            victim = multiprocessing.active_children()[0]
            threading.Thread(target=os.kill, args=(victim.pid, signal.SIGKILL)).start()
    with pytest.raises(MftError, match="a worker was killed before its shard was done"):
        build(recipe, tmp_path / "out", engine=Engine(workers=2), report=kill)
    assert not (tmp_path / "out").exists()
    build(recipe, tmp_path / "out")


def test_the_cut_does_not_depend_on_anything_but_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "PIECE_BYTES", 100)
    monkeypatch.setattr(plan, "CHUNK", 64)
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"".join(b'{"text": "%d"}\n' % n for n in range(50)) + b'{"text": "last"}')
    cuts = plan._line_cuts(path)
    data = path.read_bytes()
    assert cuts[0] == (0, 1)
    assert cuts[-1][0] == len(data)
    assert all(data[start - 1:start] == b"\n" and data[:start].count(b"\n") + 1 == first for start, first in cuts[1:-1])
    assert len(cuts) > 5
