"""A build: its ledger adds up, its rows are the same everywhere, its folder is whole or not there (laws 1, 9, 12)."""

import gzip
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from python_module import module_text

import mft.data.pipeline as pipeline
from mft.conversation import Conversation, Message
from mft.data import build, load_recipe, read_built
from mft.errors import ConfigError, DataError, OutputError
from mft.files import check_manifest

RECIPE = """\
name: small
seed: 3
tasks:
  chat: {weight: 2.5, sources: [{type: jsonl, path: "chat/*.jsonl*"}], steps: [{type: length, max_characters: 60}]}
  rare: {weight: 0.5, sources: [{type: jsonl, path: rare.jsonl, converter: messages}]}
  text2code: {sources: [{type: python_code, path: src, make: text2code, exclude: ["skip*"]}]}
  usage: {sources: [{type: python_code, path: src, make: usage, join_below: {rows: 1000, files: 1, task: text2code}}]}
steps: [{type: length, min_characters: 6, max_characters: 200}, {type: exact_dedup}]
split: {validation: 0.2, by: id}
"""


def messages(question, answer, **more):
    return json.dumps({"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}], **more})


@pytest.fixture
def recipe(tmp_path):
    """Every kind of source, step and fault: 120 + 41 + 51 + 21 + 32 rows."""
    folder = tmp_path / "project"
    (folder / "chat").mkdir(parents=True)
    (folder / "src").mkdir()
    plain = [messages(f"question {n}", f"answer {n}", id=n) for n in range(100)]
    plain += [messages(f"question  {n}", f"answer {n} ") for n in range(10)]          # duplicates but for white space
    plain += ["{broken", "", "[]", messages("q", "a"), messages("long " * 15, "a"), messages("long " * 50, "a"), messages("q", " "),
              '{"messages": [{"role": "tool", "content": "x"}]}', messages("half \ud800", "long enough"),
              messages("role <|role_end|>", "</s>")]
    (folder / "chat" / "a.jsonl").write_text("\n".join(plain) + "\n")
    packed = gzip.compress("\n".join(messages(f"packed {n}", f"{n ** 9}", id=n) for n in range(4000)).encode())
    (folder / "chat" / "b.jsonl.gz").write_bytes(packed[:len(packed) // 50])
    rare = "\n".join(messages(f"rare {n}", f"thing {n}", id="same") for n in range(50)).encode()
    (folder / "rare.jsonl").write_bytes(b"\xef\xbb\xbf" + rare + b"\n\xff\n")
    for n in range(20):
        (folder / "src" / f"m{n}.py").write_text(module_text(n))
    (folder / "src" / "broken.py").write_text("def f(:\n")
    (folder / "src" / "skipped.py").write_text(module_text(99))
    path = folder / "small.yaml"
    path.write_text(RECIPE)
    return path


def test_the_ledger_of_every_step_and_of_the_build_adds_up_and_says_what_the_parts_hold(recipe):
    result = build(recipe)
    facts = result.facts
    for step in facts["steps"]:
        assert step["read"] == step["kept"] + sum(step["dropped"].values()), step
    assert facts["read"] == facts["kept"] + sum(facts["dropped"].values())
    packed = facts["steps"][0]["read"] - 120            # lines of the truncated file, and the fault itself
    assert facts["read"] == 120 + packed + 51 + 21 + 22
    assert packed > 20
    assert facts["dropped"] | {"sampled_out": 0, "duplicate": 0} == {
        "broken_json": 1, "blank_line": 1, "not_an_object": 1, "empty_message": 1, "unknown_role": 1, "lone_surrogate": 1,
        "truncated_gzip": 1, "invalid_utf8": 1, "does_not_parse": 2, "too_short": 1, "too_long": 2, "sampled_out": 0, "duplicate": 0}
    assert facts["dropped"]["duplicate"] == 10
    rows = [row for part in result.rows.values() for row in part]
    originals = {(row.task, row.origin, row.messages) for row in rows}
    assert facts["emitted"] == len(rows)
    assert facts["kept"] == len(originals)
    assert facts["per_task"] == {task: {part: Counter(row.task for row in result.rows[part])[task] for part in ("train", "validation")}
                                 for task in ("chat", "rare", "text2code")}


def test_weights_act_on_training_rows_alone(recipe):
    result = build(recipe)
    times = Counter(row.origin for row in result.rows["train"] if row.task == "chat")
    assert set(times.values()) == {2, 3}
    assert {row.id for row in result.rows["validation"] if "~" in row.id} == set()
    assert Counter(row.origin for row in result.rows["validation"] if row.task == "chat").most_common(1)[0][1] == 1
    assert not {row.origin for row in result.rows["train"]} & {row.origin for row in result.rows["validation"] if row.task == "chat"}
    rare = result.facts["dropped"]["sampled_out"]
    assert 10 < rare < 35
    assert sum(row.task == "rare" for part in result.rows.values() for row in part) == 50 - rare


def test_a_small_task_joins_another_and_the_facts_say_so(recipe):
    facts = build(recipe).facts
    assert facts["joined"]["usage"]["into"] == "text2code"
    assert facts["joined"]["usage"]["rows"] == 21
    assert sum(facts["per_task"]["text2code"].values()) == 41


def test_ids_are_unique_per_task_and_role_tags_stay_text(recipe):
    rows = [row for part in build(recipe).rows.values() for row in part]
    assert len({(row.task, row.id) for row in rows}) == len(rows)
    tagged = next(row for row in rows if row.messages[0].content == "role <|role_end|>")
    assert tagged.messages == (Message("user", "role <|role_end|>"), Message("assistant", "</s>"))


def test_the_folder_holds_the_same_rows_with_manifest_and_resolved_recipe(recipe, tmp_path):
    result = build(recipe, tmp_path / "out")
    assert read_built(tmp_path / "out") == result.rows == build(recipe).rows
    manifest = check_manifest(tmp_path / "out")
    assert {key: manifest[key] for key in pipeline.FACTS} == result.facts
    assert [entry["files"] for entry in manifest["inputs"]] == [2, 1, 21, 22]
    again = build(tmp_path / "out" / "recipe.yaml")
    assert again.facts == result.facts
    assert load_recipe(tmp_path / "out" / "recipe.yaml").seed == 3


SCRIPT = "import sys; from mft.data import build; r = build(sys.argv[1]); print(r.facts['sha256'], 'torch' in sys.modules)"


def test_the_same_recipe_gives_the_same_rows_in_another_process_and_place(recipe, tmp_path):
    moved = tmp_path / "moved" / "deeper"
    moved.parent.mkdir()
    recipe.parent.rename(moved)
    found = set()
    for seed, folder in (("1", moved), ("2", tmp_path)):
        environment = {"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(pipeline.__file__).parents[2]), "PATH": ""}
        run = subprocess.run([sys.executable, "-c", SCRIPT, str(moved / "small.yaml")], cwd=folder, env=environment, capture_output=True,
                             text=True, check=True)
        found.add(run.stdout)
    assert len(found) == 1
    assert found.pop().endswith(" False\n")


def test_the_hash_of_known_rows_is_known(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n".join(messages(f"question {n}", f"Antwort {n} für 你", id=n) for n in range(20)))
    (tmp_path / "r.yaml").write_text("name: r\ntasks: {t: {weight: 1.5, sources: [{type: jsonl, path: a.jsonl}]}}\n"
                                     "split: {validation: 0.2, by: id}\n")
    result = build(tmp_path / "r.yaml")
    assert [row.id for row in result.rows["validation"]] == ["19", "2", "10", "4"]
    assert result.facts["sha256"] == "f9d255d49e0d55f5551f75e592b1bf792e4127d9f4a131c79c340e97f6e030e8"


def test_a_finished_build_is_returned_as_it_is(recipe, tmp_path, monkeypatch):
    first = build(recipe, tmp_path / "out")
    monkeypatch.setattr(pipeline, "build_shards", lambda *_: pytest.fail("built again"))
    again = build(recipe, tmp_path / "out")
    assert again.facts == first.facts
    assert again.rows == first.rows


@pytest.mark.parametrize("change", ["recipe", "input", "output"])
def test_a_folder_with_another_build_is_refused_until_told_to_overwrite(recipe, tmp_path, change):
    out = tmp_path / "out"
    build(recipe, out)
    if change == "recipe":
        recipe.write_text(RECIPE.replace("seed: 3", "seed: 4"))
    elif change == "input":
        with (recipe.parent / "rare.jsonl").open("a") as stream:
            stream.write(messages("one more", "answer"))
    else:
        (out / "train-00000-of-00001.parquet").write_bytes(b"x")
    with pytest.raises(OutputError, match="--overwrite to start anew"):
        build(recipe, out)
    assert read_built(build(recipe, out, overwrite=True).out) == build(recipe).rows


@pytest.mark.parametrize("name", ["notes.txt", "manifest.json"])
def test_a_folder_with_other_files_is_refused_before_anything_is_read(recipe, tmp_path, name, monkeypatch):
    monkeypatch.setattr(pipeline, "build_shards", lambda *_: pytest.fail("built"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("mine")
    with pytest.raises(OutputError, match="holds files that are not of this build"):
        build(recipe, tmp_path / "out")
    assert (tmp_path / "out" / name).read_text() == "mine"


def test_a_build_that_fails_leaves_no_folder_but_what_is_finished_of_it(recipe, tmp_path, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt
    monkeypatch.setattr(pipeline, "write_manifest", fail)
    with pytest.raises(KeyboardInterrupt):
        build(recipe, tmp_path / "fresh" / "out")
    assert [path.name for path in (tmp_path / "fresh").iterdir()] == [".out.work"]
    monkeypatch.undo()
    build(recipe, tmp_path / "fresh" / "out")
    assert [path.name for path in (tmp_path / "fresh").iterdir()] == ["out"]


def test_a_folder_that_is_no_build_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match="is not a folder made by `mft data build`"):
        read_built(tmp_path)


def _change(recipe, old, new):
    recipe.write_text(RECIPE.replace(old, new))
    return recipe


@pytest.mark.parametrize(("old", "new", "error", "message"), [
    ("path: rare.jsonl", "path: nope.jsonl", ConfigError, r"small\.yaml:5: tasks\.rare\.sources\.0\.path: .*nope\.jsonl: no such file"),
    ("converter: messages", "converter: sharegpt", DataError, r"rare\.jsonl: no usable row; dropped: missing_key 50, invalid_utf8 1"),
    ("min_characters: 6, ", "min_characters: 150, ", DataError, "step 'length' leaves no row of task 'chat'"),
    ("max_characters: 60", "max_characters: 2", DataError, "step 'length' leaves no row of task 'chat'"),
    ("weight: 0.5", "weight: 0.000001", DataError, "task 'rare' has no training row"),
    ("by: id", "by: file", DataError, "task '.*' has no training row: .* rows are held out by file"),
    ('exclude: ["skip*"]', 'exclude: ["*"]', DataError, "gives no row for task 'text2code'"),
])
def test_what_leaves_nothing_is_one_clear_error(recipe, old, new, error, message):
    if new == "by: file":
        new = "by: file, validation: 0.99999"
        old = "validation: 0.2, by: id"
    with pytest.raises(error, match=message):
        build(_change(recipe, old, new))


def test_an_empty_file_stops_the_build(recipe):
    (recipe.parent / "chat" / "empty.jsonl").write_text("")
    with pytest.raises(DataError, match=r"empty\.jsonl:1: the file is empty"):
        build(recipe)


def test_of_equal_rows_the_first_is_kept(recipe):
    rows = build(recipe).rows
    first = [row for part in rows.values() for row in part if row.task == "chat" and row.messages[0].content.split() == ["question", "3"]]
    assert {row.origin for row in first} == {"a.jsonl:4"}


def test_dedup_sees_roles_and_canonical_text_and_not_the_task():
    from mft.data.dedup.exact import text_key

    def key(*pairs, task="t"):
        return text_key(Conversation("x", task, tuple(Message(role, content) for role, content in pairs)))
    assert key(("user", "caf\u00e9  a\n"), ("assistant", "b")) == key(("user", "cafe\u0301 a"), ("assistant", "b"), task="u")
    assert key(("user", "a"), ("assistant", "b")) != key(("user", "a b"), ("assistant", ""))
    assert key(("system", "a"), ("user", "b")) != key(("user", "a"), ("assistant", "b"))
    assert key(("user", "A"),) != key(("user", "a"),)


def test_length_counts_user_and_assistant_characters_and_its_limits_are_kept():
    from mft.data.filters.config import LengthStep
    from mft.data.filters.length import Length
    step = Length(LengthStep(type="length", min_characters=4, max_characters=6))
    rows = [Conversation("x", "t", (Message("system", "s" * 99), Message("user", "u" * n), Message("assistant", "é"))) for n in range(2, 7)]
    assert [step.judge(row).reason for row in rows] == ["too_short", "", "", "", "too_long"]
