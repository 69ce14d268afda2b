"""Law 1: no row is lost in silence."""

import logging

import pytest

from mft.data.ledger import BuildLedger, Ledger, ShardLedger


def test_a_ledger_that_adds_up_closes_with_one_line_of_counts(caplog):
    ledger = Ledger("length", "chat")
    ledger.read, ledger.kept = 5, 2
    for reason in ("too_long", "too_short", "too_long"):
        ledger.drop(reason)
    with caplog.at_level(logging.INFO, "mft"):
        ledger.close()
    assert caplog.messages == ["length chat: 5 rows in, 2 kept, 3 dropped (too_long 2, too_short 1)"]
    assert ledger.to_json() == {"step": "length", "task": "chat", "read": 5, "kept": 2, "dropped": {"too_long": 2, "too_short": 1}}


@pytest.mark.parametrize(("read", "kept"), [(6, 2), (5, 3), (4, 2)])
def test_a_lost_or_doubled_row_is_an_assertion_error(read, kept):
    ledger = Ledger("length")
    ledger.read, ledger.kept = read, kept
    ledger.drop("a")
    ledger.drop("b")
    ledger.drop("c")
    with pytest.raises(AssertionError, match="does not add up"):
        ledger.close()


def test_the_first_five_places_of_a_reason_are_logged_and_then_a_total(caplog):
    ledger = Ledger("read")
    ledger.read = 8
    with caplog.at_level(logging.WARNING, "mft"):
        for line in range(1, 8):
            ledger.drop("broken_json", f"a.jsonl:{line}", "column 3")
        ledger.drop("no_answer", "a.jsonl:9")
        ledger.close()
    assert caplog.messages == [
        *(f"a.jsonl:{line}: dropped: broken_json (column 3)" for line in range(1, 6)),
        "a.jsonl:9: dropped: no_answer",
        "broken_json: 7 in all, the first 5 are named above",
    ]


def _shard(read, kept):
    shard = ShardLedger("read")
    shard.read, shard.kept = read, kept
    for line in range(kept, read):
        shard.drop("no_answer", f"a.jsonl:{line}")
    return shard.to_counts()


def test_a_read_step_says_what_became_of_the_rows_of_each_source(caplog):
    ledger = Ledger("read", "chat")
    with caplog.at_level(logging.INFO, "mft"):
        for source, read, kept in (("jsonl a.jsonl", 4, 3), ("csv b.csv", 5, 5), ("jsonl a.jsonl", 3, 1)):
            ledger.absorb(_shard(read, kept), source)
        ledger.close()
    assert ledger.to_json() == {
        "step": "read", "task": "chat", "read": 12, "kept": 9, "dropped": {"no_answer": 3},
        "sources": [{"source": "jsonl a.jsonl", "read": 7, "kept": 4, "dropped": {"no_answer": 3}},
                    {"source": "csv b.csv", "read": 5, "kept": 5, "dropped": {}}]}
    assert caplog.messages == [
        *(f"a.jsonl:{line}: dropped: no_answer" for line in (3, 1, 2)),
        "read chat, jsonl a.jsonl: 7 rows in, 4 kept, 3 dropped (no_answer 3)", "read chat, csv b.csv: 5 rows in, 5 kept, 0 dropped",
        "read chat: 12 rows in, 9 kept, 3 dropped (no_answer 3)"]


def test_a_row_lost_in_one_source_or_counted_in_none_is_found():
    lost = Ledger("read", "chat")
    lost.absorb({**_shard(4, 3), "read": 5}, "jsonl a.jsonl")
    lost.absorb({**_shard(5, 5), "read": 4}, "csv b.csv")
    with pytest.raises(AssertionError, match=r"source 'jsonl a\.jsonl' does not add up: 5 rows in, 3 kept, 1 dropped"):
        lost.close()
    unnamed = Ledger("read", "chat")
    unnamed.absorb(_shard(4, 3), "jsonl a.jsonl")
    unnamed.absorb(_shard(4, 3))
    with pytest.raises(AssertionError, match="step 'read' and its sources do not add up"):
        unnamed.close()


def _build(reads, mixture_read, mixture_kept, sampled_out=0):
    ledger = BuildLedger()
    for task, read, kept in reads:
        step = ledger.open("read", task)
        step.read, step.kept = read, kept
        step.dropped["no_answer"] = read - kept
    mixture = ledger.open("mixture")
    mixture.read, mixture.kept = mixture_read, mixture_kept
    mixture.dropped["sampled_out"] = sampled_out
    return ledger


def test_a_whole_build_adds_up_over_its_sources_and_steps():
    facts = _build([("a", 10, 8), ("b", 5, 5)], 13, 11, sampled_out=2).close(emitted=20, weighted=True)
    assert {key: facts[key] for key in ("read", "kept", "emitted", "dropped")} == {
        "read": 15, "kept": 11, "emitted": 20, "dropped": {"no_answer": 2, "sampled_out": 2}}
    assert [step["step"] for step in facts["steps"]] == ["read", "read", "mixture"]


def test_a_row_lost_between_two_steps_is_found():
    with pytest.raises(AssertionError, match="15 read, 12 kept, 2 dropped"):
        _build([("a", 10, 8), ("b", 5, 5)], 12, 12).close(emitted=12, weighted=False)


def test_rows_multiply_only_by_a_weight():
    with pytest.raises(AssertionError, match="the recipe repeats no row"):
        _build([("a", 10, 8)], 8, 8).close(emitted=9, weighted=False)
