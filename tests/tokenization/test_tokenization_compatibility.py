"""Which format goes with which vocabulary, and the ids that single formats give."""

import json

import pytest

from mft.conversation import Conversation, Message
from mft.errors import FormatError, TokenizerError
from mft.tokenization.compatibility import fits, format_for, stop_ids
from mft.tokenization.encode import IGNORE_INDEX, encode, encode_prompt, encode_rows
from mft.tokenization.load import load_tokenizer
from mft.tokenization.release import write_release_tokenizer

X = IGNORE_INDEX
ROUND = (Message("user", "2+2?"), Message("assistant", "4"))


@pytest.fixture(scope="module")
def llama2(llama2_tokenizer_folder):
    return load_tokenizer(llama2_tokenizer_folder)


@pytest.fixture(scope="module")
def llama70b(codellama70b_tokenizer_folder):
    return load_tokenizer(codellama70b_tokenizer_folder)


@pytest.fixture(scope="module")
def deepseek(deepseek_tokenizer_folder):
    return load_tokenizer(deepseek_tokenizer_folder)


def refused(tokenizer) -> dict[str, str]:
    return {fit.name: fit.refused for fit in fits(tokenizer) if fit.refused}


def test_the_table_says_what_goes_together(llama2, llama70b, deepseek):
    assert refused(llama2) == {
        "codellama70b": "no <step> in the vocabulary", "chatml": "no <|im_end|>, <|im_start|> in the vocabulary",
        "fim": "no ▁<EOT>, ▁<PRE>, ▁<SUF>, ▁<MID> in the vocabulary",
        "jinja": "format 'jinja' is the tokenizer's own chat template, and this tokenizer has none (chat_template.jinja, or "
                 "chat_template in tokenizer_config.json)"}
    assert refused(llama70b).keys() == {"chatml", "jinja"}
    assert refused(deepseek) == {
        "mftcoder": "no <s> in the vocabulary", "codellama70b": "no <step> in the vocabulary",
        "chatml": "no <|im_end|>, <|im_start|> in the vocabulary"}


def test_a_refusal_names_the_tokens_and_what_would_go(llama2, deepseek):
    with pytest.raises(TokenizerError, match=r"format 'fim' needs ▁<EOT>, ▁<PRE>, ▁<SUF>, ▁<MID> as control tokens of the vocabulary, "
                                             r"one id each; .*go with it: codefuse, codefuse_2023, codefuse_4bit, codefuse_card, mftcoder, "
                                             r"ziya, llama2, alpaca, raw$"):
        format_for("fim", llama2)
    with pytest.raises(TokenizerError, match=r"'mftcoder' needs <s> as control tokens"):
        format_for("mftcoder", deepseek)
    with pytest.raises(FormatError, match="own chat template"):
        format_for("jinja", llama2)


def test_the_reference_ids_of_codellama70b(shared_data, llama70b):
    reference = json.loads((shared_data / "tokenizer" / "codellama70b_reference.json").read_text(encoding="utf-8"))
    own = format_for("codellama70b", llama70b)
    dialog = [Message(turn["role"], turn["content"]) for turn in reference["dialog"]]
    assert encode_prompt(dialog, own, llama70b) == reference["reference_tokens"]
    padded = [Message(turn.role, f" \n{turn.content}    ") for turn in dialog]
    assert encode_prompt(padded, own, llama70b) == reference["reference_tokens"]
    assert stop_ids(own, llama70b) == [32015, 2]


def test_codellama70b_gives_a_row_for_each_answer(llama70b):
    own = format_for("codellama70b", llama70b)
    messages = (*ROUND, Message("user", "3+3?"), Message("assistant", "No.", train=False),
                Message("user", "4+4?"), Message("assistant", "a8"))
    rows = encode_rows(Conversation("row", "task", messages), own, llama70b)
    assert [row.id for row in rows] == ["row#1", "row#3"]
    for row, upto in zip(rows, (1, 5), strict=True):
        prompt = encode_prompt(messages[:upto], own, llama70b)
        assert list(row.input_ids[:len(prompt)]) == prompt
        assert set(row.labels[:len(prompt)]) == {X}
        assert row.labels[len(prompt):] == row.input_ids[len(prompt):]
        assert row.input_ids[-1] == 32015
    assert llama70b.decode(rows[1].input_ids[-3:]) == "a8<step>"
    with pytest.raises(FormatError, match="one row per assistant turn, and 2 are to be trained here; use encode_rows"):
        encode(Conversation("row", "task", messages), own, llama70b)
    (single,) = encode_rows(Conversation("row", "task", ROUND), own, llama70b)
    assert single.id == "row"


@pytest.mark.parametrize(("name", "ids", "labels"), [
    ("mftcoder", [1, 5199, 13, 29906, 29974, 29906, 29973, 13, 1, 9225, 13, 29946, 13, 2, 29871, 13],
     [X] * 11 + [29946, 13, 2, X, X]),
    ("llama2", [1, 518, 25580, 29962, 29871, 29906, 29974, 29906, 29973, 518, 29914, 25580, 29962, 29871, 29946, 29871, 2],
     [X] * 13 + [29871, 29946, 29871, 2]),
    ("ziya", [1, 529, 26029, 23917, 29871, 13, 29906, 29974, 29906, 29973, 13, 29966, 7451, 23917, 29871, 13, 29946, 2],
     [X] * 16 + [29946, 2]),
])
def test_ids_and_labels_of_one_round(llama2, name, ids, labels):
    row = encode(Conversation("row", "task", ROUND), format_for(name, llama2), llama2)
    assert list(row.input_ids) == ids
    assert list(row.labels) == labels


def test_all_of_a_text_is_trained_but_what_nothing_comes_before(llama2, deepseek):
    text = (Message("assistant", "  x = 1\n"),)
    row = encode(Conversation("row", "task", text), format_for("raw", llama2), llama2)
    assert row.labels == (X, *row.input_ids[1:])
    assert (row.input_ids[0], row.input_ids[-1]) == (1, 2)
    without_bos = format_for("raw", deepseek)
    without_bos.bos = ""
    row = encode(Conversation("row", "task", text), without_bos, deepseek)
    assert row.labels == (X, *row.input_ids[1:])
    assert deepseek.decode(row.input_ids) == "  x = 1\n<|EOT|>"


@pytest.mark.parametrize("name", ["codefuse", "llama2", "mftcoder", "alpaca"])
def test_spans_leave_out_every_token_that_holds_one_of_their_characters(llama2, name):
    answer = "Sure! naïve = 你好 # done"
    start = answer.index("naïve")
    spans = ((0, 5), (start + 2, answer.index(" #")))
    own = format_for(name, llama2)
    row = encode(Conversation("row", "task", (ROUND[0], Message("assistant", answer, untrained=spans))), own, llama2)
    whole = encode(Conversation("row", "task", (ROUND[0], Message("assistant", answer))), own, llama2)
    assert row.input_ids == whole.input_ids
    assert all(label in (X, other) for label, other in zip(row.labels, whole.labels, strict=True))
    first = next(index for index, label in enumerate(whole.labels) if label != X)
    trained = [(index, label) for index, label in enumerate(row.labels) if label != X]
    text = llama2.decode_continuation(row.input_ids[:first], [label for _, label in trained])
    assert text.strip() == {"mftcoder": "na # done\n</s>", "llama2": "na # done </s>"}.get(name, "na # done</s>")
    assert trained[-1][1] == 2


def test_an_answer_that_is_left_out_whole_still_trains_its_end(llama2):
    answer = Message("assistant", "4", untrained=((0, 1),))
    row = encode(Conversation("row", "task", (ROUND[0], answer)), format_for("codefuse", llama2), llama2)
    assert [label for label in row.labels if label != X] == [2]


HOUSE = {"name": "house", "bos": True, "system": {"before": "### System\n", "after": "\n"}, "user": {"before": "### User\n", "after": "\n"},
         "assistant": {"before": "### Assistant\n", "then": "\n"}, "tags": ["### User"]}
"""What a user's YAML says."""


@pytest.mark.parametrize(("name", "vocabulary"), [
    *[(name, "llama2") for name in ("codefuse", "codefuse_2023", "codefuse_4bit", "codefuse_card", "mftcoder", "ziya", "llama2", "alpaca",
                                    "raw")],
    *[(name, "deepseek") for name in ("codefuse", "codefuse_4bit", "codefuse_card", "ziya", "llama2", "alpaca", "raw", "fim", "jinja")],
    ("codellama70b", "llama70b"), ("fim", "llama70b"), (HOUSE, "llama2"), (HOUSE, "deepseek")],
    ids=lambda value: value if isinstance(value, str) else "house")
def test_a_released_folder_gives_the_same_prompt_ids_through_transformers(name, vocabulary, request, tmp_path):
    from transformers import AutoTokenizer

    tokenizer = request.getfixturevalue(vocabulary)
    own = format_for(name, tokenizer)
    write_release_tokenizer(tokenizer, own, tmp_path)
    chat = [Message("system", "Be brief."), *ROUND, Message("user", "    return 1\n x")]
    messages = {"raw": [Message("user", "    return 1\n")], "fim": [Message("user", "def f(\n"), Message("user", "  return 1\n")]}.get(
        own.name, chat)
    values = [{"role": message.role, "content": message.content} for message in messages]
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    ids = loaded.apply_chat_template(values, add_generation_prompt=True, tokenize=True)["input_ids"]
    assert ids == encode_prompt(messages, own, tokenizer)
    assert (tmp_path / "chat_template.jinja").read_text(encoding="utf-8") == own.chat_template()
    assert json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))["chat_template"] == own.chat_template()
