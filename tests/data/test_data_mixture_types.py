"""Weights, temperature and quotas: exact numbers, a choice that depends on seed and row alone, shortfalls that are said."""

import logging
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mft.config.load import parse_config
from mft.conversation import Conversation, Message
from mft.data.config import RecipeConfig
from mft.data.ledger import BuildLedger
from mft.data.mixture.draw import draw_exactly
from mft.data.mixture.emit import emit_rows, repeats_rows
from mft.data.mixture.targets import apportion, requested_rows
from mft.errors import ConfigError

SOURCE = {"type": "python_code", "path": "stdlib", "make": "usage"}


def row(task, name, answer="a", origin=""):
    return Conversation(name, task, (Message("user", f"q {name}"), Message("assistant", answer)), origin or f"{task}.jsonl:{name}")


def rows_of(task, number):
    return [row(task, str(n)) for n in range(number)]


def recipe(mixture, tasks=("a", "b"), seed=7):
    return RecipeConfig.model_validate({"name": "r", "seed": seed, "tasks": {task: {"sources": [SOURCE]} for task in tasks},
                                        "mixture": mixture})


def emit(config, available, held_out=()):
    """Rows of each task as many as `available` says, in and out of the mixture: (emitted, the mixture's ledger)."""
    parts = {"train": [each for task, number in available.items() for each in rows_of(task, number)], "validation": list(held_out)}
    ledger = BuildLedger()
    emitted = emit_rows(config, parts, ledger)
    assert ledger.steps[-1].read == ledger.steps[-1].kept + ledger.steps[-1].dropped.total()
    return emitted, ledger.steps[-1]


def requested(mixture, available):
    return requested_rows(recipe(mixture, tuple(available)).mixture, available)


def test_quotas_are_exact_and_what_is_over_is_counted():
    emitted, ledger = emit(recipe({"type": "quotas", "quotas": {"a": 100, "b": 350}}), {"a": 1000, "b": 400}, [row("a", "v")])
    tasks = [each.task for each in emitted.parts["train"]]
    assert (tasks.count("a"), tasks.count("b")) == (100, 350)
    assert len({(each.task, each.id) for each in emitted.parts["train"]}) == 450
    assert [each.id for each in emitted.parts["validation"]] == ["v"]
    assert (ledger.read, ledger.kept, dict(ledger.dropped)) == (1401, 451, {"over_quota": 950})


@settings(max_examples=40, deadline=None)
@given(available=st.integers(1, 60), quota=st.integers(1, 200), epochs=st.integers(1, 4), seed=st.integers(0, 9))
def test_a_quota_is_met_to_the_row_or_its_shortfall_is_what_is_missing(available, quota, epochs, seed):
    config = recipe({"type": "quotas", "quotas": {"a": quota}, "max_epochs": epochs}, ("a",), seed)
    emitted, _ = emit(config, {"a": available})
    facts = emitted.facts["tasks"]["a"]
    times = [sum(each.id.split("~")[0] == str(n) for each in emitted.parts["train"]) for n in range(available)]
    assert sum(times) == facts["realised"] == min(quota, available * epochs)
    assert facts["shortfall"] == max(0, quota - available * epochs)
    assert max(times) - min(times) <= 1
    assert max(times) <= epochs


def test_the_choice_depends_on_seed_and_row_and_not_on_the_order_or_on_what_was_put_behind_an_id():
    rows = rows_of("a", 200)
    chosen = {name for name, times in draw_exactly(rows, 50, 7).items() if times}
    assert {name for name, times in draw_exactly(rows[::-1], 50, 7).items() if times} == chosen
    assert {name for name, times in draw_exactly(rows, 50, 8).items() if times} != chosen
    renamed = [row("a", f"{each.id}@{each.origin}", origin=each.origin) for each in rows]
    assert {name.split("@")[0] for name, times in draw_exactly(renamed, 50, 7).items() if times} == chosen


def test_a_smaller_quota_takes_some_of_a_greater_ones_rows_and_a_new_row_pushes_out_one_at_most():
    def chosen(rows, number):
        return {name for name, times in draw_exactly(rows, number, 7).items() if times}
    rows = rows_of("a", 200)
    assert chosen(rows, 20) < chosen(rows, 50)
    for extra in range(5):
        assert len(chosen(rows, 50) - chosen([*rows, row("a", f"extra {extra}")], 50)) <= 1


def test_rows_with_one_id_are_told_apart_by_their_text():
    same = [Conversation(f"same@x:{n}", "a", (Message("user", f"q {n}"), Message("assistant", "a")), f"x:{n}") for n in range(300)]
    taken = sum(draw_exactly(same[:150], 75, 7)[each.id] for each in same[:75])
    assert 20 < taken < 55          # by text and seed, not the first ones
    assert draw_exactly(same, 100, 7) != draw_exactly(same, 100, 8)


def test_a_shortfall_is_warned_of_noted_and_never_filled(caplog):
    with caplog.at_level(logging.WARNING, "mft"):
        emitted, _ = emit(recipe({"type": "quotas", "quotas": {"a": 100, "b": 350}}), {"a": 60, "b": 400}, [row("a", "v"), row("b", "v")])
    assert caplog.messages == ["mixture: task 'a' was asked for 100 training rows and gives 60: it has 60; 40 are missing and nothing "
                               "takes their place"]
    facts = emitted.facts
    assert (facts["requested"], facts["realised"], facts["shortfall"]) == (450, 410, 40)
    assert facts["tasks"]["a"] | {"characters": 0, "trained_characters": 0, "character_share": 0, "trained_character_share": 0} == {
        "available": 60, "requested": 100, "realised": 60, "shortfall": 40, "epochs": 1.0, "requested_share": 0.222222,
        "realised_share": 0.146341, "characters": 0, "trained_characters": 0, "character_share": 0, "trained_character_share": 0}


def test_max_epochs_repeats_rows_evenly_and_copies_have_ids_of_their_own():
    config = recipe({"type": "quotas", "quotas": {"a": 7}, "max_epochs": 3}, ("a",))
    emitted, ledger = emit(config, {"a": 3})
    assert len({each.id for each in emitted.parts["train"]}) == 7
    assert sorted(each.id.split("~")[0] for each in emitted.parts["train"]).count("0") in (2, 3)
    assert emitted.facts["tasks"]["a"]["epochs"] == 2.3333
    assert ledger.kept == 3
    assert repeats_rows(config)
    assert not repeats_rows(recipe({"type": "quotas", "quotas": {"a": 7}}, ("a",)))


@pytest.mark.parametrize(("mixture", "available", "expected"), [
    ({"type": "weights", "weights": {"a": 3, "b": 1}, "total": 10}, {"a": 100, "b": 100}, {"a": 8, "b": 2}),
    ({"type": "weights", "weights": {"a": 0.1, "b": 0.2, "c": 0.7}}, {"a": 50, "b": 100, "c": 350}, {"a": 50, "b": 100, "c": 350}),
    ({"type": "weights", "weights": {"a": 3, "b": 1}}, {"a": 100, "b": 20}, {"a": 60, "b": 20}),
    ({"type": "weights", "weights": {"a": 3, "b": 1}, "max_epochs": 2}, {"a": 100, "b": 20}, {"a": 120, "b": 40}),
    ({"type": "weights", "weights": {"a": 3, "b": 1}, "total": 200}, {"a": 100, "b": 20}, {"a": 150, "b": 50}),
    ({"type": "temperature", "temperature": 1}, {"a": 900, "b": 100}, {"a": 900, "b": 100}),
    ({"type": "temperature", "temperature": 2}, {"a": 900, "b": 100}, {"a": 300, "b": 100}),
    ({"type": "temperature", "temperature": 2, "total": 1000}, {"a": 900, "b": 100}, {"a": 750, "b": 250}),
    ({"type": "temperature", "temperature": 1000, "total": 1000}, {"a": 900, "b": 100}, {"a": 501, "b": 499}),
    ({"type": "quotas", "quotas": {"a": 5, "b": 9}}, {"a": 900, "b": 1}, {"a": 5, "b": 9}),
    ({"type": "proportional"}, {"a": 900, "b": 1}, None),
])
def test_how_many_rows_are_asked_for(mixture, available, expected):
    assert requested(mixture, available) == expected


@settings(max_examples=60, deadline=None)
@given(total=st.integers(1, 10_000), ratios=st.lists(st.integers(1, 999), min_size=1, max_size=9))
def test_shares_are_met_to_less_than_a_row_and_add_up(total, ratios):
    shares = {str(index): Fraction(ratio, sum(ratios)) for index, ratio in enumerate(ratios)}
    rows = apportion(total, shares)
    assert sum(rows.values()) == total
    assert all(abs(rows[name] - total * share) < 1 for name, share in shares.items())


@settings(max_examples=60, deadline=None)
@given(available=st.lists(st.integers(1, 5000), min_size=2, max_size=6), temperature=st.floats(0.5, 20), epochs=st.integers(1, 3))
def test_without_a_total_no_task_falls_short_and_one_gives_nearly_all(available, temperature, epochs):
    have = {f"t{index}": number for index, number in enumerate(available)}
    asked = requested({"type": "temperature", "temperature": temperature, "max_epochs": epochs}, have)
    assert all(asked[task] <= have[task] * epochs for task in have)
    assert any(asked[task] >= have[task] * epochs - 1 for task in have)


def test_rows_left_out_by_weights_are_sampled_out():
    emitted, ledger = emit(recipe({"type": "weights", "weights": {"a": 1, "b": 1}}), {"a": 100, "b": 30})
    assert emitted.facts["tasks"]["a"]["realised"] == emitted.facts["tasks"]["b"]["realised"] == 30
    assert dict(ledger.dropped) == {"sampled_out": 70}


def test_characters_are_of_what_is_written_and_trained_ones_of_what_is_learned():
    question, answer = Message("user", "12345"), Message("assistant", "1234567890", untrained=((0, 4),))
    unlearned = (question, Message("assistant", "12", train=False), question, answer)
    parts = {"train": [Conversation("1", "a", (question, answer)), Conversation("2", "b", unlearned)], "validation": []}
    facts = emit_rows(recipe({"type": "quotas", "quotas": {"a": 2, "b": 1}, "max_epochs": 2}), parts, BuildLedger()).facts["tasks"]
    assert (facts["a"]["characters"], facts["a"]["trained_characters"]) == (30, 12)
    assert (facts["b"]["characters"], facts["b"]["trained_characters"]) == (22, 6)
    assert (facts["a"]["character_share"], facts["a"]["trained_character_share"]) == (0.576923, 0.666667)


YAML = """\
name: r
tasks:
  one: {sources: [{type: python_code, path: stdlib, make: usage}]}
  two: {sources: [{type: python_code, path: stdlib, make: docstring}]}
mixture: %s
"""


@pytest.mark.parametrize(("mixture", "message"), [
    ("{type: quotas, quotas: {one: 5}}", r"5: mixture: quotas names no number for task 'two'; every task needs one, missing: two"),
    ("{type: weights, weights: {one: 5, tow: 1}}", r"5: mixture: 'tow' is not a task of this recipe; did you mean 'two'\?; tasks: one"),
    ("{type: quotas, quotas: {one: 5, two: 0}}", r"mixture\.quotas\.two: expected more than 0, found 0"),
    ("{type: quotas, quotas: {one: 5, two: 1.5}}", r"mixture\.quotas\.two: expected a whole number"),
    ("{type: weights, weights: {one: 5, two: .nan}}", r"mixture\.weights\.two"),
    ("{type: temperature}", r"mixture\.temperature"),
    ("{type: temperature, temperature: 0}", r"mixture\.temperature: expected more than 0"),
    ("{type: proportional, max_epochs: 2}", r"max_epochs"),
])
def test_a_mixture_that_does_not_fit_its_tasks_is_refused_with_its_line(mixture, message):
    with pytest.raises(ConfigError, match=message):
        parse_config(RecipeConfig, YAML % mixture, "r.yaml")


def test_a_task_weight_beside_another_mixture_is_refused_as_it_would_do_nothing():
    text = YAML.replace("one: {", "one: {weight: 2, ") % "{type: quotas, quotas: {one: 5, two: 5}}"
    with pytest.raises(ConfigError, match=r"tasks\.one\.weight is 2, and a mixture of type quotas decides alone"):
        parse_config(RecipeConfig, text)


def test_a_task_that_may_join_another_has_no_number_of_its_own():
    text = YAML.replace("make: usage}", "make: usage, join_below: {rows: 5, files: 1, task: two}}")
    with pytest.raises(ConfigError, match=r"task 'one' may join another \(join_below\), so it can have no number of its own in quotas"):
        parse_config(RecipeConfig, text % "{type: quotas, quotas: {one: 5, two: 5}}")
    assert parse_config(RecipeConfig, text % "{type: temperature, temperature: 3}").mixture.temperature == 3


@pytest.mark.slow
def test_the_quotas_of_a_published_mixture_are_met_to_the_row_at_their_size():
    quotas = {"zh": 100_000, "en": 350_000}
    emitted, ledger = emit(recipe({"type": "quotas", "quotas": quotas}, tuple(quotas)), {"zh": 110_000, "en": 380_000})
    assert {task: facts["realised"] for task, facts in emitted.facts["tasks"].items()} == quotas
    assert len({(each.task, each.id) for each in emitted.parts["train"]}) == 450_000
    assert emitted.facts["shortfall"] == 0
    assert dict(ledger.dropped) == {"over_quota": 40_000}
