"""Streamed pieces joined are the answer; nothing is handed on that a later token changes."""

import pytest

from mft.serving.stream import TextStream
from mft.tokenization.load import load_tokenizer


@pytest.mark.parametrize(("text", "stops", "wanted"), [
    ("    return 中文😀\n", (), "    return 中文😀\n"),
    ("a = 1\n# b<|role_start|>human", ("<|role_start|>",), "a = 1\n# b"),
    ("a <|role", ("<|role_start|>",), "a <|role"),
])
def test_pieces_join_to_the_answer_and_never_hold_half_a_character_or_half_a_stop(small_llama, text, stops, wanted):
    tokenizer = load_tokenizer(small_llama)
    prompt, ids, pieces = tokenizer.encode_text("x\n"), tokenizer.encode_continuation(text), []
    stream = TextStream(prompt, tokenizer, pieces.append, stop_ids=[2], stop_strings=stops)
    for end in range(1, len(ids) + 1):
        stream([ids[:end]])
        assert "\ufffd" not in stream.text
        assert not any(stop[:2] in stream.text[-2:] for stop in stops)
    stream.finish(wanted)
    assert "".join(pieces) == stream.text == wanted
    assert len(pieces) > 2


def test_the_stop_token_is_no_text(small_llama):
    tokenizer = load_tokenizer(small_llama)
    pieces = []
    TextStream([1], tokenizer, pieces.append, stop_ids=[2], stop_strings=())([[*tokenizer.encode_text("ok"), 2]])
    assert pieces == ["ok"]
