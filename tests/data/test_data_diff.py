"""Two builds compared: each row is one of same, added, removed, changed, renamed, moved, repeated, by a stated rule."""

import json

import pytest

from mft.data import build
from mft.data.diff import KINDS, diff_builds
from mft.data.statistics import build_statistics, histogram, length_summary
from mft.errors import DataError


def line(question, answer="an answer", **more):
    return json.dumps({**more, "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]})


def make(folder, name, files, tasks, more="split: {validation: 0.3, by: id}\n"):
    """Build a recipe over these files (name -> lines) and tasks (name -> files); returns the built folder."""
    (folder / name).mkdir()
    for file, lines in files.items():
        (folder / name / f"{file}.jsonl").write_text("\n".join(lines))
    written = "".join(f"  {task}: {{sources: [{', '.join(f'{{type: jsonl, path: {file}.jsonl}}' for file in names)}]}}\n"
                      for task, names in tasks.items())
    (folder / name / "r.yaml").write_text(f"name: r\ntasks:\n{written}{more}")
    build(folder / name / "r.yaml", folder / f"{name}-out")
    return folder / f"{name}-out"


def plain(number):
    return [line(f"question {n}", id=f"q{n}") for n in range(number)]


def counts(facts, task="t"):
    return {kind: number for kind, number in facts["tasks"][task].items() if number}


def test_a_build_is_the_same_as_itself(tmp_path):
    a = make(tmp_path, "a", {"x": plain(40)}, {"t": ["x"]})
    facts = diff_builds(a, a)
    assert (facts["same"], facts["rows"], counts(facts), facts["recipe"], facts["ledger"]) == (40, {"a": 40, "b": 40}, {}, [], {})
    assert facts["sha256"]["a"] == facts["sha256"]["b"]


def test_added_removed_and_changed_rows_are_told_apart(tmp_path):
    a = make(tmp_path, "a", {"x": plain(40)}, {"t": ["x"]})
    lines = plain(42)[1:]                                                  # q0 goes, q40 and q41 come
    lines[4] = line("question 5", "another answer", id="q5")
    facts = diff_builds(a, make(tmp_path, "b", {"x": lines}, {"t": ["x"]}))
    assert counts(facts) == {"added": 2, "removed": 1, "changed": 1}
    assert facts["same"] == 38
    assert [row["id"] for row in facts["examples"]["added"]] == ["q40", "q41"]
    assert [row["id"] for row in facts["examples"]["removed"]] == ["q0"]
    (changed,) = facts["examples"]["changed"]
    assert (changed["id"], changed["text"], changed["was"]) == ("q5", "another answer", {"text": "an answer"})
    assert facts["ledger"] == {"read": {"a": 40, "b": 41}, "kept": {"a": 40, "b": 41}, "emitted": {"a": 40, "b": 41}}


def test_another_mask_is_a_change_too(tmp_path):
    def rows(flag):
        return [*plain(30), json.dumps({"id": "m", "messages": [
            {"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "train": flag},
            {"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}]})]
    facts = diff_builds(make(tmp_path, "a", {"x": rows(True)}, {"t": ["x"]}), make(tmp_path, "b", {"x": rows(False)}, {"t": ["x"]}))
    assert counts(facts) == {"changed": 1}


def test_a_source_with_the_same_ids_in_front_renames_rows_and_changes_none(tmp_path):
    other = [line(f"other {n}", id=f"q{n}") for n in range(40)]
    a = make(tmp_path, "a", {"x": plain(40)}, {"t": ["x"]})
    facts = diff_builds(a, make(tmp_path, "b", {"x": plain(40), "y": other}, {"t": ["y", "x"]}))
    assert counts(facts) == {"added": 40, "renamed": 40}
    assert facts["examples"]["renamed"][0]["was"] == {"id": "q0"}
    assert [entry["key"] for entry in facts["recipe"] if entry["a"] is None] != []


def test_rows_that_move_to_another_task_or_side_are_counted_as_moved(tmp_path):
    a = make(tmp_path, "a", {"x": plain(40), "y": [line(f"y {n}", id=f"y{n}") for n in range(20)]}, {"t": ["x"], "u": ["y"]})
    b = make(tmp_path, "b", {"x": plain(40), "y": [line(f"y {n}", id=f"y{n}") for n in range(20)]}, {"t": ["x", "y"]})
    facts = diff_builds(a, b)
    assert counts(facts) == {"moved_task": 20}
    assert facts["examples"]["moved_task"][0]["was"] == {"task": "u"}
    wider = make(tmp_path, "c", {"x": plain(40)}, {"t": ["x"]}, "split: {validation: 0.7, by: id}\n")
    narrow = make(tmp_path, "d", {"x": plain(40)}, {"t": ["x"]}, "split: {validation: 0.2, by: id}\n")
    held_out = [sum(part["validation"] for part in build_statistics(folder)["per_task"].values()) for folder in (wider, narrow)]
    moved = diff_builds(wider, narrow)
    assert counts(moved) == {"to_train": held_out[0] - held_out[1]}
    assert counts(diff_builds(narrow, wider)) == {"to_validation": held_out[0] - held_out[1]}
    assert moved["examples"]["to_train"][0]["was"] == {"part": "validation"}
    assert [entry for entry in moved["recipe"] if entry["key"] == "split.validation"] == [{"key": "split.validation", "a": 0.7, "b": 0.2}]


def test_copies_are_their_row_and_a_row_that_is_called_like_a_copy_is_itself(tmp_path):
    lines = [*plain(30), line("mine", id="q1~2")]
    once = make(tmp_path, "a", {"x": lines}, {"t": ["x"]})
    more = "split: {validation: 0.3, by: id}\nmixture: {type: quotas, quotas: {t: 63}, max_epochs: 3}\n"
    facts = diff_builds(once, make(tmp_path, "b", {"x": lines}, {"t": ["x"]}, more))
    train = build_statistics(once)["per_task"]["t"]["train"]
    assert facts["rows"] == {"a": 31, "b": 31}
    assert counts(facts) == {"repeated": train}
    assert facts["same"] == 31 - train
    assert facts["examples"]["repeated"][0]["was"] == {"times": 1}


def test_dropped_reasons_that_differ_are_listed(tmp_path):
    a = make(tmp_path, "a", {"x": plain(40)}, {"t": ["x"]})
    b = make(tmp_path, "b", {"x": [*plain(40), "{broken", line("question 3", id="again")]}, {"t": ["x"]},
             "steps: [{type: exact_dedup}]\nsplit: {validation: 0.3, by: id}\n")
    facts = diff_builds(a, b)
    assert facts["ledger"] == {"read": {"a": 40, "b": 42}, "dropped": {"broken_json": {"a": 0, "b": 1}, "duplicate": {"a": 0, "b": 1}}}
    assert counts(facts) == {}


def test_rows_without_ids_that_shift_by_a_line_are_renamed_and_not_changed(tmp_path):
    lines = [line(f"question {n}") for n in range(40)]
    a = make(tmp_path, "a", {"x": lines}, {"t": ["x"]})
    facts = diff_builds(a, make(tmp_path, "b", {"x": [line("first"), *lines]}, {"t": ["x"]}))
    found = counts(facts)
    assert (found["added"], found["renamed"]) == (1, 40)
    assert set(found) <= {"added", "renamed", "to_validation", "to_train"}      # their id is their place, and it decides


def test_every_row_has_one_fate(tmp_path):
    a = make(tmp_path, "a", {"x": plain(50), "y": [line("same", id=n) for n in range(5)]}, {"t": ["x"], "u": ["y"]})
    b = make(tmp_path, "b", {"x": plain(70)[20:], "y": [line("same", id=n) for n in range(3, 9)]}, {"t": ["y"], "u": ["x"]})
    facts = diff_builds(a, b)
    total = {kind: sum(task[kind] for task in facts["tasks"].values()) for kind in KINDS}
    matched = facts["rows"]["b"] - total["added"]
    assert facts["rows"] == {"a": 55, "b": 56}
    assert facts["rows"]["a"] - total["removed"] == matched == 35
    assert total["renamed"] + total["moved_task"] + total["changed"] + facts["same"] <= matched


def test_a_folder_that_is_no_build_is_refused(tmp_path):
    with pytest.raises(DataError, match="is not a folder made by `mft data build`"):
        diff_builds(tmp_path, tmp_path)


def test_statistics_of_a_build_count_characters_drops_and_shares(tmp_path):
    folder = make(tmp_path, "a", {"x": [line("q" * n, "a" * 10, id=n) for n in range(1, 41)], "y": [line("q", "a" * 90), "{broken"]},
                  {"t": ["x"], "u": ["y"]}, "mixture: {type: quotas, quotas: {t: 10, u: 2}}\nsplit: {validation: 0}\n")
    facts = build_statistics(folder)
    assert (facts["read"], facts["kept"], facts["dropped"]) == (42, 11, {"broken_json": 1, "over_quota": 30})
    assert facts["per_task"]["u"] == {"train": 1, "validation": 0, "samples": 1, "characters": 91, "trained_characters": 90,
                                      "languages": {"zh": 0, "en": 1, "other": 0, "none": 0},
                                      "lengths": {"mean": 91.0, "p50": 91, "p90": 91, "p99": 91, "max": 91}}
    assert facts["per_task"]["t"]["trained_characters"] == 100
    assert (facts["samples"], facts["characters"]) == (11, sum(task["characters"] for task in facts["per_task"].values()))
    assert facts["mixture"]["tasks"]["u"]["shortfall"] == 1
    assert {task: sum(bins) for task, bins in facts["histogram"]["tasks"].items()} == {"t": 10, "u": 1}


def test_statistics_say_in_which_language_is_asked(tmp_path):
    more = [line("再来一个")]
    lines = [line("排序一个列表"), line("sort `列表`"), line("отсортируй список"), line("1 + 1"), line("two", "二")]
    facts = build_statistics(make(tmp_path, "a", {"x": lines, "y": more}, {"t": ["x"], "u": ["y"]}, "split: {validation: 0}\n"))
    assert facts["per_task"]["t"]["languages"] == {"zh": 1, "en": 2, "other": 1, "none": 1}
    assert facts["languages"] == {"zh": 2, "en": 2, "other": 1, "none": 1}


def test_percentiles_are_lengths_that_exist():
    assert length_summary(list(range(1, 101))) == {"mean": 50.5, "p50": 50, "p90": 90, "p99": 99, "max": 100}
    assert length_summary([]) == {"mean": 0.0, "p50": 0, "p90": 0, "p99": 0, "max": 0}


@pytest.mark.parametrize("lengths", [{"a": [1], "b": []}, {"a": [0, 5, 9]}, {"a": list(range(1, 3000)), "b": [100_000]}, {"a": [7, 7]}])
def test_a_histogram_holds_every_row_in_whole_edges(lengths):
    found = histogram(lengths)
    assert {task: sum(bins) for task, bins in found["tasks"].items()} == {task: len(values) for task, values in lengths.items()}
    assert found["edges"] == sorted(set(found["edges"]))
    assert len(found["edges"]) <= 41
    assert histogram({"a": []}) == {"edges": [], "tasks": {"a": []}}
