"""What is shown as trained is what is trained, character by character."""

import pytest

from mft.conversation import Conversation, Message
from mft.tokenization.encode import encode_rows
from mft.tokenization.load import TextTokenizer, format_for, load_tokenizer
from mft.tokenization.show import Span, render_terminal, spans


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


def test_the_terminal_text_colours_trained_parts_alone(llama2):
    (row,) = encode_rows(conversation("[bold]a", "b"), format_for("ziya", llama2), llama2)
    text = render_terminal(row, llama2)
    assert text.plain == "<s><human>: \n[bold]a\n<bot>: \nb</s>"
    assert [(text.plain[span.start:span.end], span.style) for span in text.spans] == [
        ("<s><human>: \n[bold]a\n<bot>: \n", "dim"), ("b</s>", "bold green")]
