"""What is shown as trained is what is trained, character by character."""

import pytest

from mft.conversation import Conversation, Message
from mft.tokenization.compatibility import format_for
from mft.tokenization.encode import encode_rows
from mft.tokenization.load import TextTokenizer, load_tokenizer
from mft.tokenization.show import Piece, Span, pieces, spans


@pytest.fixture(scope="module")
def llama2(llama2_tokenizer_folder) -> TextTokenizer:
    return load_tokenizer(llama2_tokenizer_folder)


def conversation(*contents: str) -> Conversation:
    return Conversation("row", "task", tuple(Message("assistant" if index % 2 else "user", text) for index, text in enumerate(contents)))


def test_spans_are_the_exact_text_with_spaces_bytes_and_control_tokens(llama2):
    (row,) = encode_rows(conversation("  你好😀 ", "    return '😀'\n", "</s>?", " 中"), format_for("ziya", llama2), llama2)
    assert spans(row, llama2) == [
        Span("<s><human>: \n  你好😀 \n<bot>: \n", False), Span("    return '😀'\n</s>", True),
        Span("<human>: \n</s>?\n<bot>: \n", False), Span(" 中</s>", True)]


def test_each_row_of_a_split_conversation_shows_one_trained_answer(llama2):
    first, second = encode_rows(conversation("a", "= b", "c", "d"), format_for("codefuse", llama2), llama2)
    human, bot = "<|role_start|>human<|role_end|>", "<|role_start|>bot<|role_end|>"
    assert spans(first, llama2) == [Span(f"{human}a{bot}", False), Span("= b</s>", True)]
    assert spans(second, llama2) == [Span(f"{human}a{bot}= b</s>{human}c{bot}", False), Span("d</s>", True)]


def test_the_2023_encoding_shows_the_spaces_of_its_dummy_prefixes(llama2):
    (row,) = encode_rows(conversation("2+2?", "4"), format_for("codefuse_2023", llama2), llama2)
    assert spans(row, llama2) == [Span("<|role_start|>human<|role_end|> 2+2? <|role_start|>bot<|role_end|>", False), Span(" 4</s>", True)]


def test_pieces_tell_a_control_token_from_text_that_looks_like_it(llama2):
    (row,) = encode_rows(conversation("a</s>", "b</s>"), format_for("ziya", llama2), llama2)
    assert pieces(row, llama2) == [
        Piece("<s>", False, True), Piece("<human>: \na</s>\n<bot>: \n", False, False), Piece("b</s>", True, False),
        Piece("</s>", True, True)]
    assert "".join(piece.text for piece in pieces(row, llama2)) == "".join(span.text for span in spans(row, llama2))
