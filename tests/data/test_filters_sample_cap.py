"""`sample` and `cap`: choices by hash, whatever the order of the rows and whatever else is there."""

import random

import pytest
from filter_rows import row, step, verdicts
from pydantic import ValidationError

ROWS = [row(id=f"{n % 7}/{n}", task=f"task{n % 2}", origin=f"a b/{n % 3}.py:{n} f", user=f"q  {n % 5}", answer=f"a {n % 4}")
        for n in range(400)]


def kept(of, **keys):
    found = verdicts(step(**keys), of)
    return {(one.task, one.id) for one, verdict in zip(of, found, strict=True) if verdict.keep}


def shuffled(rows):
    return random.Random(5).sample(rows, len(rows))


def test_a_fraction_keeps_about_that_many_and_the_same_ones_when_rows_are_added():
    few = kept(ROWS[:200], type="sample", fraction=0.3)
    assert 40 < len(few) < 80
    assert kept(ROWS, type="sample", fraction=0.3) & {(one.task, one.id) for one in ROWS[:200]} == few
    assert few < kept(ROWS[:200], type="sample", fraction=0.6)


@pytest.mark.parametrize("keys", [
    {"type": "sample", "fraction": 0.5}, {"type": "cap", "by": "user", "rows": 1}, {"type": "cap", "by": "id_prefix", "rows": 2}])
def test_a_row_is_chosen_under_the_id_it_was_read_with_whatever_came_before(keys):
    """A source put in front takes the bare ids; rows with one id and other texts are chosen apart."""
    alone = [row(id=f"{n % 50}/{n}", user=f"question {n}", answer="a", origin=f"a.jsonl:{n}") for n in range(200)]
    behind = [row(id=f"{n % 50}/{n}@a.jsonl:{n}", user=f"question {n}", answer="a", origin=f"a.jsonl:{n}") for n in range(200)]
    first = [verdict.keep for verdict in verdicts(step(**keys), alone)]
    assert [verdict.keep for verdict in verdicts(step(**keys), behind)] == first
    others = [row(id=one.id, user="q" + one.messages[0].content, answer="a", origin="b.jsonl:1") for one in alone]
    assert keys["type"] == "cap" or [verdict.keep for verdict in verdicts(step(**keys), others)] != first


def test_a_number_keeps_exactly_so_many_or_all_and_says_what_is_missing():
    assert len(kept(ROWS, type="sample", rows=123)) == 123
    made = step(type="sample", rows=500)
    assert all(verdict.keep for verdict in verdicts(made, ROWS))
    assert made.report() == {"short_by": 100}


@pytest.mark.parametrize("keys", [
    {"type": "sample", "fraction": 0.5}, {"type": "sample", "rows": 50}, {"type": "cap", "by": "task", "rows": 20},
    {"type": "cap", "by": "user", "rows": 3}])
def test_order_does_not_decide_and_the_seed_does(keys):
    assert kept(ROWS, **keys) == kept(shuffled(ROWS), **keys)
    assert kept(ROWS, **keys) != kept(ROWS, **keys, seed=7)


def test_the_known_choice_of_ten_rows():
    assert {id for _, id in kept([row(id=str(n)) for n in range(10)], type="sample", rows=4)} == KNOWN_SAMPLE
    assert {id for _, id in kept([row(id=str(n)) for n in range(10)], type="cap", by="task", rows=4)} == KNOWN_CAP


KNOWN_SAMPLE, KNOWN_CAP = {"0", "4", "6", "7"}, {"0", "5", "6", "7"}


@pytest.mark.parametrize(("by", "groups"), [("task", 2), ("file", 3), ("user", 5), ("answer", 4), ("id_prefix", 7)])
def test_no_group_has_more_than_its_cap(by, groups):
    made = step(type="cap", by=by, rows=10)
    found = verdicts(made, ROWS)
    assert sum(verdict.keep for verdict in found) == 10 * groups
    assert {verdict.reason for verdict in found} == {"", "over_cap"}
    assert made.report() == {"groups": groups, "capped": groups}


def test_groups_within_the_cap_keep_all_their_rows():
    assert len(kept(ROWS, type="cap", by="task", rows=200)) == 400
    assert len(kept(ROWS, type="cap", by="task", rows=199)) == 398


def test_white_space_does_not_make_texts_different_and_an_id_without_separator_is_alone():
    assert len(kept([row("a  b\n", id="1"), row("a b", id="2")], type="cap", by="user", rows=1)) == 1
    assert len(kept([row(id="1"), row(id="2"), row(id="3-1"), row(id="3-2")], type="cap", by="id_prefix", rows=1, separator="-")) == 3


@pytest.mark.parametrize("keys", [
    {"type": "sample"}, {"type": "sample", "fraction": 0.5, "rows": 3}, {"type": "sample", "fraction": 1.0}, {"type": "sample", "rows": 0},
    {"type": "cap", "by": "origin", "rows": 1}, {"type": "cap", "by": "task"}])
def test_impossible_choices_are_refused(keys):
    with pytest.raises(ValidationError):
        step(**keys)
