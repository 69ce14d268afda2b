"""No row moves between training and validation when something else in the recipe changes."""

import json

import pytest

from mft.conversation import Conversation, Message
from mft.data import build
from mft.data.config import SplitConfig
from mft.data.ids import own_id, unique_ids
from mft.data.split import split_rows


def line(name, number):
    """Ids collide between the files, and every tenth also inside a file; one in three rows has none."""
    identity = {} if number % 3 == 0 else {"id": number if number % 10 else 1}
    return json.dumps({**identity, "messages": [{"role": "user", "content": f"question {number} of {name}"},
                                                {"role": "assistant", "content": f"answer {number}"}]})


@pytest.fixture
def folder(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.jsonl").write_text("\n".join(line(name, number) for number in range(120)))
    return tmp_path


def sides(folder, tasks, by="id", more=""):
    """Question -> part, for a recipe with these files in these tasks."""
    written = "".join(f"  {task}:\n    sources:\n" + "".join(f"      - {{type: jsonl, path: {name}.jsonl}}\n" for name in names)
                      for task, names in tasks.items())
    recipe = folder / "r.yaml"
    recipe.write_text(f"name: r\ntasks:\n{written}split: {{validation: 0.4, by: {by}}}\n{more}")
    found = {}
    for part, rows in build(recipe).rows.items():
        for row in rows:
            assert found.setdefault(row.messages[0].content, part) == part
    return found


BEFORE = {"t": "ab"}


@pytest.mark.parametrize("by", ["id", "file"])
@pytest.mark.parametrize("tasks", [{"t": "bac"}, {"t": "cba"}, {"u": "c", "t": "ba"}, {"u": "b", "t": "ca"}], ids=str)
def test_adding_or_reordering_sources_and_tasks_moves_no_row(folder, by, tasks):
    before = sides(folder, BEFORE, by)
    after = sides(folder, tasks, by)
    assert len(before) == 240
    assert len(after) == 360
    assert set(before.values()) == {"train", "validation"}
    assert {question: part for question, part in after.items() if question in before} == before


@pytest.mark.parametrize("more", [
    "seed: 99\n",
    "steps: [{type: length, min_characters: 12}, {type: exact_dedup}]\n",
    "mixture: {type: quotas, quotas: {t: 30}}\n",
    "mixture: {type: temperature, temperature: 4, total: 500, max_epochs: 5}\n",
])
def test_steps_seeds_and_mixtures_move_no_row(folder, more):
    before = sides(folder, BEFORE)
    after = sides(folder, BEFORE, more=more)
    assert len(after) >= 80
    assert {question: before[question] for question in after} == after


def test_an_added_file_of_a_glob_moves_no_row(folder):
    (folder / "more").mkdir()
    for name in "ab":
        (folder / f"{name}.jsonl").rename(folder / "more" / f"{name}.jsonl")
    before = sides(folder, {"t": ["more/*"]})
    (folder / "c.jsonl").rename(folder / "more" / "0.jsonl")        # sorted before the others
    after = sides(folder, {"t": ["more/*"]})
    assert len(after) == 360
    assert {question: part for question, part in after.items() if question in before} == before


def row(name, origin):
    return Conversation(name, "t", (Message("user", "q"), Message("assistant", "a")), origin)


def test_a_row_keeps_its_own_id_behind_the_one_that_makes_it_unique():
    rows = list(unique_ids([row("1", "a.jsonl:1"), row("1", "b.jsonl:9"), row("1@b.jsonl:9", "c.jsonl:1"), row("1", "b.jsonl:9")]))
    assert [each.id for each in rows] == ["1", "1@b.jsonl:9", "1@b.jsonl:9@c.jsonl:1", "1@b.jsonl:9#2"]
    assert [own_id(each) for each in rows] == ["1", "1", "1@b.jsonl:9", "1"]
    twice = list(unique_ids([row("1", "b.jsonl:9"), rows[1]]))
    assert own_id(next(unique_ids([twice[1]]))) == "1"
    assert own_id(row("b.jsonl:9", "b.jsonl:9")) == "b.jsonl:9"
    assert own_id(row("@b.jsonl:9", "b.jsonl:9")) == "@b.jsonl:9"
    assert own_id(row("x", "")) == "x"


def test_rows_of_one_id_stay_on_one_side_and_carry_the_key_that_decided():
    rows = list(unique_ids([row("3", f"a.jsonl:{n}") for n in range(40)]))
    parts = split_rows(rows, SplitConfig(validation=0.5, by="id"))
    assert sorted(map(len, parts.values())) == [0, 40]
    assert {each.split_key for part in parts.values() for each in part} == {"3"}
