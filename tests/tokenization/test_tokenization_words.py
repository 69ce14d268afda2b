"""The word cache gives the ids of whole texts, and is not used where that is not proved."""

import gzip
import json

import numpy as np
import pytest

from mft.tokenization import words
from mft.tokenization.load import load_tokenizer, read_tokenizer
from mft.tokenization.parity import HARD_TEXTS
from mft.tokenization.words import joinable_characters


@pytest.fixture(scope="module")
def llama2(llama2_tokenizer_folder):
    return load_tokenizer(llama2_tokenizer_folder)


def ids(tokenizer, found: list[bytes]) -> list[list[int]]:
    return [np.frombuffer(one, dtype=tokenizer.id_type).tolist() for one in found]


def test_words_end_where_no_piece_could_go_on(llama2):
    text = "def f(x):\n    return 中文\t\tx  \n\n🙂é"
    starts = llama2.words.cut(np.frombuffer(text.encode("utf-32-le"), dtype="<u4"))
    assert starts[0]
    assert "".join("|" * int(starts[at]) + character for at, character in enumerate(text)).split("|")[1:] == [
        "def", " f(x):", "\n", "    return", " ", "中", "文", "\t", "\t", "x", "  ", "\n", "\n", "🙂", "é"]


def test_ids_are_those_of_the_whole_text_cold_and_warm(llama2, shared_data):
    with gzip.open(shared_data / "tokenizer" / "llama_golden.jsonl.gz", "rt", encoding="utf-8") as stream:
        golden = [json.loads(line) for line in stream]
    texts = [row["text"] for row in golden]
    for _ in range(2):
        assert [ids(llama2, llama2.section_bytes([text]))[0] for text in texts] == [row["ids"] for row in golden]
    hard = [text for text in HARD_TEXTS if "▁" not in text] + ["x" * 200_000, "好" * 5000, " " * 3000, "\n \n  \n"]
    assert ids(llama2, llama2.section_bytes(hard)) == llama2.encode_texts(hard)
    assert ids(llama2, llama2.continuation_bytes(hard)) == llama2.encode_continuations(hard)


@pytest.mark.slow
def test_ids_are_those_of_the_whole_text_on_public_rows(llama2, shared_data):
    compared = 0
    for path in sorted([*(shared_data / "instruct").glob("*.gz"), *(shared_data / "tasks").glob("*.gz")]):
        with gzip.open(path, "rt", encoding="utf-8") as stream:
            texts = [value for line in stream for value in json.loads(line).values() if isinstance(value, str) and "▁" not in value]
        for start in range(0, len(texts), 1000):
            batch = texts[start:start + 1000]
            assert ids(llama2, llama2.words.sections(batch)) == llama2.encode_texts(batch)
        compared += len(texts)
    assert compared > 200_000


def test_a_text_with_the_space_mark_is_encoded_whole(llama2):
    texts = ["a ▁b", "▁", "plain"]
    assert ids(llama2, llama2.section_bytes(texts)) == llama2.encode_texts(texts)


def test_without_the_property_there_is_no_cache(llama2_tokenizer_folder, deepseek_tokenizer_folder, tmp_path):
    assert load_tokenizer(deepseek_tokenizer_folder).words is None
    spec = json.loads((llama2_tokenizer_folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = spec["model"]["vocab"]
    vocabulary["of▁the"] = vocabulary.pop("▁ofthe", len(vocabulary))
    spec["model"]["merges"].append("of ▁the" if isinstance(spec["model"]["merges"][0], str) else ["of", "▁the"])
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec), encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text((llama2_tokenizer_folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    tokenizer = read_tokenizer(tmp_path)
    assert joinable_characters(tokenizer) is None
    assert tokenizer.words is None
    texts = ["part of the whole", "of the"]
    assert ids(tokenizer, tokenizer.section_bytes(texts)) == tokenizer.encode_texts(texts)


def test_memory_stays_bounded(llama2_tokenizer_folder, monkeypatch):
    tokenizer = load_tokenizer(llama2_tokenizer_folder)
    monkeypatch.setattr(words, "MOST", 50)
    texts = [f"word{index} {'x' * 60}{index}" for index in range(200)]
    for start in range(0, 200, 20):
        assert ids(tokenizer, tokenizer.section_bytes(texts[start:start + 20])) == tokenizer.encode_texts(texts[start:start + 20])
        assert len(tokenizer.words._known) <= 50
        assert not any(len(word) > words.LONGEST for word in tokenizer.words._known)


def test_where_no_piece_has_both_characters_the_ids_are_those_of_the_two_sides(llama2, deepseek_tokenizer_folder):
    text = "".join(text for text in HARD_TEXTS if "▁" not in text)[:3000] + "def f(x):\n    return 'a b'  # ünï 中文 🙂<|role_end|>if x"
    cuts = [at for at in range(1, len(text)) if llama2.never_joins(text[:at], text[at:])]
    assert 100 < len(cuts) < len(text) - 100
    for at in cuts[::7]:
        start, end = max(0, at - 40), at + 40
        left, right = text[start:at], text[at:end]
        assert llama2.encode_text(left + right) == llama2.encode_text(left) + llama2.encode_continuation(right), (left, right)
    assert llama2.never_joins("bot<|role_end|>", "if")
    assert not llama2.never_joins("bot<|role_end|>", "```python")
    assert not llama2.never_joins("two ", " three")
    assert not llama2.never_joins("", "x")
    assert not load_tokenizer(deepseek_tokenizer_folder).never_joins("a", "\n")
