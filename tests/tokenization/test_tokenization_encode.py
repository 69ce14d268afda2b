"""Ids and labels written out: the boundary rule, rows of several turns, the 2023 encoding."""

import importlib

import pytest

from mft import formats
from mft.conversation import Conversation, Message
from mft.errors import DataError, FormatError, TokenizerError
from mft.tokenization.compatibility import format_for
from mft.tokenization.encode import IGNORE_INDEX, TokenizedSample, encode, encode_prompt, encode_rows
from mft.tokenization.load import TextTokenizer, load_tokenizer

HUMAN = [529, 29989, 12154, 29918, 2962, 29989, 29958, 26029, 29966, 29989, 12154, 29918, 355, 29989, 29958]
BOT_AFTER_TEXT = [29966, 29989, 12154, 29918, 2962, 29989, 29958, 7451, 29966, 29989, 12154, 29918, 355, 29989, 29958]
BOT_ALONE = [529, *BOT_AFTER_TEXT[1:]]
TWO_PLUS_TWO = [29906, 29974, 29906, 29973]
X = IGNORE_INDEX


@pytest.fixture(scope="module")
def llama2(llama2_tokenizer_folder) -> TextTokenizer:
    return load_tokenizer(llama2_tokenizer_folder)


def conversation(*contents: str | Message, name: str = "row") -> Conversation:
    messages = tuple(content if isinstance(content, Message) else Message("assistant" if index % 2 else "user", content)
                     for index, content in enumerate(contents))
    return Conversation(name, "task", messages)


def test_the_codefuse_prompt_is_34_ids(llama2):
    ids = encode_prompt([Message("user", "2+2?")], format_for("codefuse", llama2), llama2)
    assert ids == [*HUMAN, *TWO_PLUS_TWO, *BOT_AFTER_TEXT]
    assert len(ids) == 34


def test_an_answer_that_would_merge_with_the_tag_is_split_at_the_boundary(llama2):
    sample = encode(conversation("2+2?", "= 4"), format_for("codefuse", llama2), llama2, task_id=3)
    prompt = [*HUMAN, *TWO_PLUS_TWO, *BOT_AFTER_TEXT]
    assert sample == TokenizedSample((*prompt, 29922, 29871, 29946, 2), (*[X] * 34, 29922, 29871, 29946, 2), 3, "row")
    assert sample.trained_tokens == 4


def test_the_2023_encoding_gives_each_segment_its_own_dummy_prefix(llama2):
    format_2023 = format_for("codefuse_2023", llama2)
    (sample,) = encode_rows(conversation("2+2?", "= 4"), format_2023, llama2)
    assert list(sample.input_ids) == [*HUMAN, 29871, *TWO_PLUS_TWO, *BOT_ALONE, 353, 29871, 29946, 2]
    assert list(sample.labels) == [X] * 35 + [353, 29871, 29946, 2]
    assert encode_prompt([Message("user", "2+2?")], format_2023, llama2) == [*HUMAN, *TWO_PLUS_TWO, *BOT_AFTER_TEXT]


def test_the_ziya_prompt_has_its_published_ids_and_one_bos(llama2):
    ziya = format_for("ziya", llama2)
    prompt = [1, 529, 26029, 23917, 29871, 13, 29906, 29974, 29906, 29973, 13, 29966, 7451, 23917, 29871, 13]
    assert encode_prompt([Message("user", "2+2?")], ziya, llama2) == prompt
    (sample,) = encode_rows(conversation("2+2?", "4", "3+3?", "    6"), ziya, llama2)
    second = [529, 26029, 23917, 29871, 13, 29941, 29974, 29941, 29973, 13, 29966, 7451, 23917, 29871, 13]
    assert list(sample.input_ids) == [*prompt, 29946, 2, *second, 268, 29953, 2]
    assert list(sample.labels) == [*[X] * 16, 29946, 2, *[X] * 15, 268, 29953, 2]


def test_rounds_that_do_not_merge_give_one_row_that_trains_each_answer(llama2):
    (sample,) = encode_rows(conversation("2+2?", "4", "3+3?", "`6`"), format_for("codefuse", llama2), llama2)
    assert sample.id == "row"
    assert sample == encode(conversation("2+2?", "4", "3+3?", "`6`"), format_for("codefuse", llama2), llama2)
    assert [label for label in sample.labels if label != X] == [29946, 2, 29952, 29953, 29952, 2]


@pytest.mark.parametrize("first", list("\"&'(),./:;<=>[\\`{"))
def test_an_earlier_answer_that_merges_gives_a_row_for_each_turn(llama2, first):
    codefuse = format_for("codefuse", llama2)
    answers = (f"{first}x", "4", "6")
    turns = conversation("a", answers[0], "b", answers[1], "c", answers[2])
    rows = encode_rows(turns, codefuse, llama2)
    assert [row.id for row in rows] == ["row#1", "row#2", "row#3"]
    for number, row in enumerate(rows):
        trained = [label for label in row.labels if label != X]
        prompt = encode_prompt(turns.messages[:2 * number + 1], codefuse, llama2)
        assert list(row.input_ids) == prompt + trained
        assert llama2.decode_continuation(prompt, trained) == answers[number] + "</s>"
    assert len(encode_rows(turns, format_for("ziya", llama2), llama2)) == 1
    assert len(encode_rows(turns, format_for("codefuse_2023", llama2), llama2)) == 1


@pytest.mark.parametrize("first", list("aZ09 \n\t!#$%*+-?@]^_|}~中"))
def test_an_earlier_answer_that_does_not_merge_gives_one_row(llama2, first):
    assert len(encode_rows(conversation("a", f"{first}x", "b", "c"), format_for("codefuse", llama2), llama2)) == 1


def test_single_rows_train_all_turns_even_where_served_history_differs(llama2):
    codefuse = format_for("codefuse", llama2)
    sample = encode(conversation("2+2?", "= 4", "3+3?", "6"), codefuse, llama2)
    assert sample.id == "row"
    assert [label for label in sample.labels if label != X] == [29922, 29871, 29946, 2, 29953, 2]


def test_an_untrained_answer_is_context_encoded_as_the_server_does(llama2):
    codefuse = format_for("codefuse", llama2)
    turns = conversation("2+2?", Message("assistant", "= 4", train=False), "3+3?", "6")
    (row,) = encode_rows(turns, codefuse, llama2)
    prompt = encode_prompt(turns.messages[:3], codefuse, llama2)
    assert list(row.input_ids) == [*prompt, 29953, 2]
    assert list(row.labels) == [X] * len(prompt) + [29953, 2]
    assert 18572 in prompt   # '>=', the token that runs over the boundary


def test_rows_of_a_conversation_with_untrained_turns_are_numbered_by_turn(llama2):
    turns = conversation("a", Message("assistant", "x", train=False), "b", "= y", "c", Message("assistant", "z", train=False), "d", "w")
    assert [row.id for row in encode_rows(turns, format_for("codefuse", llama2), llama2)] == ["row#2", "row#4"]


def test_the_first_token_is_never_trained_and_a_sample_checks_itself(llama2):
    for name in ("codefuse", "codefuse_2023", "ziya", "llama2", "mftcoder", "alpaca"):
        for row in encode_rows(conversation("a", "b"), format_for(name, llama2), llama2):
            assert row.labels[0] == X
    with pytest.raises(ValueError, match="2 input_ids but 1 labels"):
        TokenizedSample((1, 2), (1,), 0)


def test_faults_are_errors_that_name_the_row(llama2):
    codefuse = format_for("codefuse", llama2)
    with pytest.raises(FormatError, match=r"chat.jsonl:7: .*\(role_tag_in_text\)"):
        encode_rows(conversation("a<|role_start|>", "b", name="chat.jsonl:7"), codefuse, llama2)
    with pytest.raises(DataError, match=r"chat.jsonl:8: message 2 holds half a surrogate pair"):
        encode_rows(conversation("a", "b\ud800", name="chat.jsonl:8"), codefuse, llama2)
    with pytest.raises(DataError, match=r"chat.jsonl:9: message 1 holds U\+2581"):
        encode_rows(conversation("\u2581", "b", name="chat.jsonl:9"), codefuse, llama2)
    assert llama2.decode(encode_prompt([Message("user", "a\u2581b")], codefuse, llama2)).count("a b") == 1   # as any server does
    with pytest.raises(DataError, match="prompt: message 1"):
        encode_prompt([Message("user", "\udfff")], codefuse, llama2)
    with pytest.raises(TokenizerError, match=r"'<\|EOT\|>' is not a control token"):
        encode_rows(conversation("a", "b"), formats.get("codefuse", eos="<|EOT|>"), llama2)


def test_the_package_exports_the_function_whatever_was_imported_first():
    module = importlib.import_module("mft.tokenization.encode")
    assert importlib.import_module("mft.tokenization").encode is module.encode is encode
    assert importlib.import_module("mft.tokenization").load_tokenizer is load_tokenizer
