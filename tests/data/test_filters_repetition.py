"""`repetition`: loops go, lists and programs stay; each measure by hand."""

import pytest
from filter_rows import reason, row, step, verdicts
from pydantic import ValidationError

from mft.data.filters.repetition import duplicate_ngram_share, duplicate_share, top_ngram_share


@pytest.mark.parametrize(("items", "by_length", "share"), [
    ([], False, 0.0), (["a", "b"], False, 0.0), (["a", "b", "a", "a"], False, 0.5),
    (["aaa", "b", "aaa"], True, 3 / 7), (["", ""], True, 0.0),
])
def test_duplicate_lines_are_those_that_came_before(items, by_length, share):
    assert duplicate_share(items, by_length=by_length) == pytest.approx(share)


@pytest.mark.parametrize(("words", "size", "share"), [
    ("a b c d", 2, 0.0), ("a b a b", 2, 1.0), ("a a a a a", 2, 1.0), ("to be or not to be", 2, 8 / 13),
    ("x yy x yy zz zz", 2, 6 / 10), ("a", 2, 0.0), ("", 2, 0.0),
])
def test_the_top_run_covers_each_character_once(words, size, share):
    assert top_ngram_share(words.split(), size) == pytest.approx(share)


@pytest.mark.parametrize(("words", "size", "share"), [
    ("a b c d e f", 3, 0.0), ("a b c a b c", 3, 0.5), ("a b c a b c a b c", 3, 2 / 3),
    ("a a a a a", 2, 4 / 5), ("a b", 3, 0.0), ("", 3, 0.0),
    ("long b c x long b c", 3, 6 / 13),
])
def test_duplicate_runs_cover_each_character_once(words, size, share):
    assert duplicate_ngram_share(words.split(), size) == pytest.approx(share)


SENTENCE = "The quick brown fox jumps over the lazy dog near the old river bank. "
PROGRAM = "\n".join(f"def method_{n}(self, value):\n    if value is None:\n        return None\n    return value + {n}\n" for n in range(8))
ASSERTS = "\n".join(f"assert similar_elements(({n}, {n + 3}, 5, 6), (5, 7, {n * 2}, 10)) == ({n}, 5)" for n in range(8))


@pytest.mark.parametrize(("answer", "why"), [
    (SENTENCE * 20, "repetitive"),
    ((SENTENCE + "\n") * 20, "repetitive"),
    ((SENTENCE + "\n\n") * 20, "repetitive"),
    ("}\n" * 100, ""),
    ("对不起，我不能。" * 30, "repetitive"),
    (PROGRAM, ""),
    (ASSERTS, ""),
    (SENTENCE * 2, ""),                                 # 28 words: not judged
    ("ha " * 200, "repetitive"),
    ("".join(chr(0x4e00 + n * 7) for n in range(200)), ""),
])
def test_loops_go_and_programs_stay(answer, why):
    assert reason(answer, type="repetition") == why


def test_short_texts_are_not_judged():
    assert reason("yes " * 49, type="repetition") == ""
    assert reason("yes " * 50, type="repetition") == "repetitive"
    assert reason("是" * 50, type="repetition") == "repetitive"
    assert reason("yes " * 4, type="repetition", min_words=4) == "repetitive"


def test_limits_act():
    assert reason(PROGRAM, type="repetition", duplicate_lines=0.3) == "repetitive"
    assert reason(PROGRAM, type="repetition", top_ngrams={3: 0.05}) == "repetitive"
    assert reason(SENTENCE * 20, type="repetition", top_ngrams={}, duplicate_ngrams={}) == ""
    assert reason(SENTENCE * 2, type="repetition", min_words=5, duplicate_ngrams={5: 0.4}) == "repetitive"


def test_the_judged_part_and_the_rule_that_was_broken_are_as_said():
    made = step(type="repetition", on="user")
    found = verdicts(made, [row(SENTENCE * 20, "fine"), row("fine", SENTENCE * 20), row((SENTENCE + "\n") * 20, "fine")])
    assert [verdict.reason for verdict in found] == ["repetitive", "", "repetitive"]
    assert found[2].detail == "duplicate_lines: 0.95, more than 0.6"
    assert made.report() == {"duplicate_lines": 1, "duplicate_ngrams.5": 1}


@pytest.mark.parametrize("keys", [{"duplicate_lines": 1.5}, {"top_ngrams": {0: 0.5}}, {"min_words": 0}])
def test_impossible_limits_are_refused(keys):
    with pytest.raises(ValidationError):
        step(type="repetition", **keys)
