"""`near_dedup`: what goes is truly alike to what stays, and the order of the rows has no part in it."""

import random
import time
from itertools import combinations

import numpy as np
import pytest
from filter_rows import row, step, verdicts
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mft.conversation import Conversation, Message
from mft.data import read_conversations
from mft.data.dedup.clusters import Clusters
from mft.data.dedup.minhash import band_keys, bands, buckets
from mft.data.dedup.shingles import Shingler, jaccard
from mft.data.filters.parts import texts_of
from mft.data.filters.tokens import tokens_of


def words(seed, count, vocabulary=500):
    return [f"w{n}" for n in np.random.default_rng(seed).integers(0, vocabulary, count)]


def near_copies(groups=30, copies=4, length=120, seed=0):
    """Rows in families: each copy has up to a few words changed; lengths differ so that the longest answer is known."""
    generator = random.Random(seed)
    rows = []
    for group in range(groups):
        base = words((seed, group), length)
        for copy in range(copies):
            text = list(base)
            for _ in range(generator.randrange(7)):
                text[generator.randrange(length)] = f"changed{generator.randrange(1000)}"
            rows.append(row(f"question {group}", " ".join(text), id=f"{group}-{copy}", task=f"t{copy % 2}"))
    return rows


def naive(rows, threshold, ngram, on="all"):
    """(row that goes, row that stays for it) by comparing all pairs, with plain sets of tuples."""
    def shingles(one):
        found = set()
        for text in texts_of(one, on):
            tokens = tokens_of(text)
            size = min(ngram, len(tokens))
            found |= {tuple(tokens[start:start + size]) for start in range(len(tokens) - size + 1) if tokens}
        return found

    sets = [shingles(one) for one in rows]
    return {(rows[a].id, rows[b].id): len(sets[a] & sets[b]) / len(sets[a] | sets[b]) for a, b in combinations(range(len(rows)), 2)
            if sets[a] and sets[b] and len(sets[a] & sets[b]) >= threshold * len(sets[a] | sets[b])}


def judged(rows, **keys):
    made = step(type="near_dedup", **keys)
    found = verdicts(made, rows)
    kept = [one for one, verdict in zip(rows, found, strict=True) if verdict.keep]
    gone = {(line["row_task"], line["row"]): (line["of_task"], line["of"], line["jaccard"])
            for line in made.lists()["near-duplicates.jsonl"]}
    return kept, gone, made.report()


@pytest.mark.parametrize(("threshold", "ngram"), [(0.8, 5), (0.7, 3), (0.9, 1)])
def test_what_goes_is_alike_to_a_row_that_stays_and_no_two_that_stay_are_alike(threshold, ngram):
    rows = near_copies()
    kept, gone, _ = judged(rows, threshold=threshold, ngram=ngram)
    pairs = naive(rows, threshold, ngram)
    ids = {one.id for one in kept}
    assert len(kept) + len(gone) == len(rows)
    assert len(gone) > 10
    for (_, name), (_, other, alike) in gone.items():
        assert other in ids
        assert alike == round(pairs.get((name, other)) or pairs[other, name], 3)
    assert [pair for pair in pairs if pair[0] in ids and pair[1] in ids] == []


@given(st.integers(0, 10_000), st.sampled_from(["user", "answer", "all"]))
def test_the_order_of_the_rows_has_no_part_in_it(seed, on):
    rows = near_copies(groups=4, copies=5, length=60)
    shuffled = random.Random(seed).sample(rows, len(rows))
    first, second = judged(rows, threshold=0.6, on=on), judged(shuffled, threshold=0.6, on=on)
    assert {(one.task, one.id) for one in first[0]} == {(one.task, one.id) for one in second[0]}
    assert first[1:] == second[1:]


def test_of_a_pair_the_longest_answer_stays_then_the_smallest_hash_of_the_texts():
    base = " ".join(words(1, 100))
    kept, gone, _ = judged([row("q", base, "short"), row("q", base + " more", "long"), row("q", base, "short2", "u")])
    assert [one.id for one in kept] == ["long"]
    assert gone[("t", "short")] == ("t", "long", 0.99)
    texts = [base.replace("w1", f"v{n}", 1) for n in range(6)]
    same_length = [row("q", text, str(n)) for n, text in enumerate(texts)]
    kept = judged(same_length)[0]
    assert kept == judged(same_length[::-1])[0]
    assert len(kept) == 1


def test_a_chain_keeps_what_is_not_alike():
    """A like B, B like C, A unlike C: one cluster, but A and C both stay when B is not the best."""
    tokens = words(3, 100)
    a, b, c = tokens, tokens[:90] + words(4, 10, 9000), tokens[:80] + words(5, 10, 9000) + words(4, 10, 9000)
    rows = [row("", " ".join(text), name) for name, text in (("a", [*a, "x" * 90]), ("b", b), ("c", [*c, "y" * 90]))]
    kept, gone, report = judged(rows, threshold=0.75, ngram=1, on="answer")
    assert sorted(one.id for one in kept) == ["a", "c"]
    assert report | {"pairs_checked": 0} == {"clusters": 1, "largest": [3], "stay_of_clusters": 2, "pairs_checked": 0, "pairs_verified": 2,
                                             "without_text": 0}
    assert list(gone) == [("t", "b")]


def test_the_judged_part_decides():
    same, other = " ".join(words(6, 50)), " ".join(words(7, 50))
    rows = [row(same, other, "1"), row(same, " ".join(words(8, 60)), "2"), row(" ".join(words(9, 50)), other, "3")]
    assert {name for _, name in judged(rows, on="user")[1]} == {"1"}
    assert len(judged(rows, on="answer")[1]) == 1
    assert "2" in {one.id for one in judged(rows, on="answer")[0]}
    assert judged(rows, on="all")[1] == {}


def test_chinese_is_compared_by_characters_and_case_and_white_space_do_not_count():
    text = "用递归的方法写出斐波那契数列的前二十项并且打印出来然后计算它们的和最后返回结果"
    rows = [row(text, "def f(X):\n  return x", "1"), row(text.replace("二", "三"), "DEF f(x):  RETURN x", "2")]
    kept, gone, _ = judged(rows, threshold=0.7)
    assert len(kept) == len(gone) == 1
    assert tokens_of(text) == list(text)


def test_rows_without_text_in_the_judged_part_stay():
    rows = [Conversation(str(n), "t", (Message("assistant", f"text {n}"),)) for n in range(3)]
    kept, gone, report = judged([*rows, row(" \n", "x", "4"), row("\u3000", "y", "5")], on="user")
    assert len(kept) == 5
    assert not gone
    assert report["without_text"] == 5
    assert judged([])[0] == []


def test_short_texts_are_one_shingle():
    shingler = Shingler(5)
    assert len(shingler(["a b"])) == 1
    assert jaccard(shingler(["a b"]), shingler(["A  b"])) == 1.0
    assert jaccard(shingler(["a b"]), shingler(["b a"])) == 0.0
    assert jaccard(shingler([""]), shingler([" "])) == 0.0
    assert len(shingler(["a b c d e", "f g h i j"])) == 2          # none across the two texts


def test_the_hashes_are_the_same_for_ever():
    assert [hex(value) for value in Shingler(2)(["x = 1"]).tolist()] == KNOWN_HASHES


KNOWN_HASHES = ["0x590c3ec24abb1ca8", "0x9dee194ad98027d7"]   # SplitMix64 of the weighted BLAKE2b hashes, by hand


@given(st.lists(st.text("abc ", max_size=30), min_size=2, max_size=2), st.integers(1, 4))
def test_the_jaccard_of_hashes_is_that_of_the_shingles(texts, ngram):
    sets = []
    for text in texts:
        tokens = tokens_of(text)
        size = min(ngram, len(tokens))
        sets.append({tuple(tokens[start:start + size]) for start in range(len(tokens) - size + 1)} if tokens else set())
    expected = len(sets[0] & sets[1]) / len(sets[0] | sets[1]) if sets[0] and sets[1] else 0.0
    shingler = Shingler(ngram)
    assert jaccard(*(shingler([text]) for text in texts)) == pytest.approx(expected)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.9, 1.0])
def test_pairs_at_the_threshold_are_found_as_often_as_promised(threshold):
    count, rows = bands(threshold)
    assert count * rows <= 128
    assert 1 - (1 - threshold**rows) ** count >= 0.98
    generator = np.random.default_rng(1)
    shared = round(400 * threshold / (1 + threshold))          # of 200 each: s / (400 - s) is the threshold
    sets = []
    for _ in range(200):
        values = generator.integers(0, 2**63, 400 - shared, np.uint64)
        sets += [np.sort(values[:200]), np.sort(np.concatenate([values[:shared], values[200:]]))]
    assert jaccard(sets[0], sets[1]) == pytest.approx(threshold, abs=0.005)
    found = {pair for members in buckets(band_keys(sets, threshold)) for pair in combinations(members, 2)}
    assert sum((number, number + 1) in found for number in range(0, 400, 2)) >= 190


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12), st.randoms())
def test_clusters_are_the_connected_parts_whatever_the_order_of_links(links, generator):
    def groups(of):
        clusters = Clusters(10)
        for first, second in of:
            clusters.link(first, second)
        return clusters.groups()

    shuffled = [link[::-1] for link in generator.sample(links, len(links))]
    assert groups(links) == groups(shuffled)
    joined = {item: {item} for item in range(10)}
    for first, second in links:
        union = joined[first] | joined[second]
        joined |= dict.fromkeys(union, union)
    assert groups(links) == [sorted(part) for item, part in joined.items() if len(part) > 1 and item == min(part)]


@pytest.mark.parametrize("keys", [{"threshold": 0.2}, {"threshold": 1.1}, {"ngram": 0}, {"on": "system"}])
def test_impossible_settings_are_refused(keys):
    with pytest.raises(ValidationError):
        step(type="near_dedup", **keys)


def test_a_second_pass_drops_nothing_more():
    rows = near_copies(groups=60)
    kept = judged(rows, threshold=0.7)[0]
    assert judged(kept, threshold=0.7)[1] == {}


@pytest.mark.slow
def test_thirty_thousand_public_rows_take_well_under_a_minute(shared_data):
    rows = list(read_conversations(shared_data / "instruct" / "alpaca_en_0_29999.jsonl.gz", "alpaca"))
    start = time.monotonic()
    kept, gone, report = judged(rows)
    assert time.monotonic() - start < 60
    assert (len(rows), len(kept)) == (29_983, 29_981)
    places = {(int(name.split(":")[1]), int(other.split(":")[1])) for (_, name), (_, other, _) in gone.items()}
    assert places == {(15591, 10284), (27355, 20346)}
    assert report["clusters"] == 2
