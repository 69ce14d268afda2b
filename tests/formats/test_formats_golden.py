"""Each format's text, byte for byte, and what of it is trained."""

import pytest

from mft import formats
from mft.conversation import Conversation, Message
from mft.errors import FormatError
from mft.formats.base import Segment, joined

SYSTEM = Message("system", "Be brief.")
ROUNDS = (Message("user", "2+2?"), Message("assistant", "4"), Message("user", "3+3?"))

GOLDEN = {
    "codefuse": "<|role_start|>system<|role_end|>Be brief.<|role_start|>human<|role_end|>2+2?<|role_start|>bot<|role_end|>4</s>"
                "<|role_start|>human<|role_end|>3+3?<|role_start|>bot<|role_end|>",
    "codefuse_4bit": "<|role_start|>system<|role_end|>Be brief.<|role_start|>human<|role_end|>2+2?\n<|role_start|>bot<|role_end|>4</s>"
                     "<|role_start|>human<|role_end|>3+3?\n<|role_start|>bot<|role_end|>",
    "codefuse_card": "<|role_start|>system<|role_end|>Be brief.\n<|role_start|>human<|role_end|>2+2?\n<|role_start|>bot<|role_end|>4"
                     "</s>\n"
                     "<|role_start|>human<|role_end|>3+3?\n<|role_start|>bot<|role_end|>",
    "mftcoder": "<s>system\nBe brief.\n<s>human\n2+2?\n<s>bot\n4\n</s>\n<s>human\n3+3?\n<s>bot\n",
    "ziya": "<s><human>: \nBe brief.\n2+2?\n<bot>: \n4</s><human>: \n3+3?\n<bot>: \n",
    "codellama70b": "<s>Source: system\n\n Be brief. <step> Source: user\n\n 2+2? <step> Source: assistant\n\n 4 <step> "
                    "Source: user\n\n 3+3? <step> Source: assistant\nDestination: user\n\n ",
    "llama2": "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n2+2? [/INST] 4 </s><s>[INST] 3+3? [/INST]",
    "chatml": "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n4<|im_end|>\n"
              "<|im_start|>user\n3+3?<|im_end|>\n<|im_start|>assistant\n",
    "alpaca": "<s>Be brief.\n\n### Instruction:\n2+2?\n\n### Response:4</s>\n\n### Instruction:\n3+3?\n\n### Response:",
}
GOLDEN["codefuse_2023"] = GOLDEN["codefuse"]
CHAT = [name for name in formats.names() if name not in ("raw", "fim", "jinja")]
STRIPPING = ("llama2", "codellama70b")

ONE_ROUND = {
    "codefuse": "<|role_start|>human<|role_end|>2+2?<|role_start|>bot<|role_end|>4</s>",
    "codefuse_4bit": "<|role_start|>human<|role_end|>2+2?\n<|role_start|>bot<|role_end|>4</s>",
    "codefuse_card": "<|role_start|>human<|role_end|>2+2?\n<|role_start|>bot<|role_end|>4</s>\n",
    "mftcoder": "<s>human\n2+2?\n<s>bot\n4\n</s>\n",
    "ziya": "<s><human>: \n2+2?\n<bot>: \n4</s>",
    "codellama70b": "<s>Source: system <step> Source: user\n\n 2+2? <step> Source: assistant\nDestination: user\n\n 4 <step> ",
    "llama2": "<s>[INST] 2+2? [/INST] 4 </s>",
    "chatml": "<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n4<|im_end|>\n",
    "alpaca": "<s>Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
              "### Instruction:\n2+2?\n\n### Response:4</s>",
}
ONE_ROUND["codefuse_2023"] = ONE_ROUND["codefuse"]

TRAINED = {"mftcoder": ["4\n", "</s>"], "llama2": [" ", "4 ", "</s>"], "chatml": ["4", "<|im_end|>"], "codellama70b": ["4", " <step> "]}


def test_every_chat_format_has_a_golden_text():
    assert set(CHAT) == GOLDEN.keys() == ONE_ROUND.keys()


@pytest.mark.parametrize("name", CHAT)
def test_prompt_of_system_and_two_rounds_is_the_golden_text(name):
    assert joined(formats.get(name).render_prompt([SYSTEM, *ROUNDS])) == GOLDEN[name]


@pytest.mark.parametrize("name", CHAT)
def test_training_text_of_one_round_is_the_golden_text(name):
    assert joined(formats.get(name).render(Conversation("row", "task", ROUNDS[:2]))) == ONE_ROUND[name]


@pytest.mark.parametrize("name", CHAT)
def test_trained_are_the_answer_and_its_whole_end_mark(name):
    segments = formats.get(name).render(Conversation("row", "task", ROUNDS[:2]))
    assert [segment.text for segment in segments if segment.trainable] == TRAINED.get(name, ["4", "</s>"])
    assert sum(segment.answer for segment in segments) == 1


def test_only_the_answer_and_its_end_mark_are_trainable():
    segments = formats.get("codefuse").render(Conversation("row", "task", ROUNDS[:2]))
    assert segments == [
        Segment("<|role_start|>human<|role_end|>"), Segment("2+2?"), Segment("<|role_start|>bot<|role_end|>"),
        Segment("4", trainable=True, answer=True), Segment("</s>", trainable=True, control=True)]
    row = Conversation("row", "task", ROUNDS[:2])
    controls = {name: [s.control_token for s in formats.get(name).render(row) if s.control] for name in CHAT}
    assert controls["ziya"] == controls["llama2"] == controls["alpaca"] == ["<s>", "</s>"]
    assert controls["mftcoder"] == ["<s>", "<s>", "</s>"]
    assert controls["codellama70b"] == ["<s>", "<step>", "<step>", "<step>"]
    assert controls["chatml"] == ["<|im_start|>", "<|im_end|>", "<|im_start|>", "<|im_end|>"]


@pytest.mark.parametrize("name", CHAT)
def test_an_answer_that_says_train_false_is_rendered_and_its_end_mark_untrained(name):
    messages = (*ROUNDS[:1], Message("assistant", "4", train=False), ROUNDS[2], Message("assistant", "6"))
    segments = formats.get(name).render(Conversation("row", "task", messages))
    expected = [text.replace("4", "6") for text in TRAINED.get(name, ["4", "</s>"])]
    assert [segment.text for segment in segments if segment.trainable] == expected
    assert sum(segment.answer for segment in segments) == 2


@pytest.mark.parametrize("name", [name for name in CHAT if name not in STRIPPING])
def test_content_is_not_stripped_or_normalised(name):
    content = " \t\u00a0\u202f，！\r\n x  \n"
    segments = formats.get(name).render(Conversation("row", "task", (Message("user", content), Message("assistant", content))))
    assert joined([segment for segment in segments if segment.trainable]).startswith(content)
    assert joined(segments).count(content) == 2
    assert formats.get(name).canonical(content) == content


@pytest.mark.parametrize("name", STRIPPING)
def test_some_formats_strip_as_their_makers_do(name):
    messages = tuple(Message(role, f" \n {role} \n") for role in ("system", "user", "assistant"))
    text = joined(formats.get(name).render(Conversation("row", "task", messages)))
    assert text == {
        "llama2": "<s>[INST] <<SYS>>\n \n system \n\n<</SYS>>\n\n \n user [/INST] assistant </s>",
        "codellama70b": "<s>Source: system\n\n system <step> Source: user\n\n user <step> "
                        "Source: assistant\nDestination: user\n\n assistant <step> ",
    }[name]
    assert formats.get(name).canonical(" \n x\n y ") == "x\n y"


def test_newlines_are_added_where_the_format_says():
    messages = (Message("user", "a\n"), Message("assistant", "b\n"))
    texts = {name: joined(formats.get(name).render(Conversation("row", "task", messages))) for name in CHAT}
    assert texts["codefuse_4bit"] == "<|role_start|>human<|role_end|>a\n<|role_start|>bot<|role_end|>b\n</s>"
    assert texts["codefuse_card"] == "<|role_start|>human<|role_end|>a\n<|role_start|>bot<|role_end|>b\n</s>\n"
    assert texts["mftcoder"] == "<s>human\na\n\n<s>bot\nb\n\n</s>\n"


def test_alpaca_keeps_an_input_apart_and_others_join_it():
    question = Message("user", "Add.\n1 and 2", input_start=5)
    conversation = Conversation("row", "task", (question, Message("assistant", "3")))
    assert joined(formats.get("alpaca").render(conversation)) == (
        "<s>Below is an instruction that describes a task, paired with an input that provides further context. Write a response that "
        "appropriately completes the request.\n\n### Instruction:\nAdd.\n\n### Input:\n1 and 2\n\n### Response:3</s>")
    assert "Add.\n1 and 2" in joined(formats.get("codefuse").render(conversation))


def test_codellama70b_has_a_row_for_each_answer_and_writes_the_history_without_its_destination():
    rows = formats.get("codellama70b")
    messages = (*ROUNDS, Message("assistant", "6"))
    segments = rows.render(Conversation("row", "task", messages))
    assert rows.row_per_turn
    assert joined(segments) == ("<s>Source: system <step> Source: user\n\n 2+2? <step> Source: assistant\n\n 4 <step> "
                                "Source: user\n\n 3+3? <step> "
                                "Source: assistant\nDestination: user\n\n 6 <step> ")
    assert [segment.text for segment in segments if segment.trainable] == ["6", " <step> "]


def test_raw_and_fim_render_their_own_shapes_and_refuse_chats():
    text = Conversation("row", "task", (Message("assistant", " x = 1\n"),))
    assert [(s.text, s.trainable, s.control) for s in formats.get("raw").render(text)] == [
        ("<s>", False, True), (" x = 1\n", True, False), ("</s>", True, True)]
    assert joined(formats.get("raw", bos="").render(text)) == " x = 1\n</s>"
    deepseek = formats.get("fim", "<B>", "<E>", {token: token for token in ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>")})
    infill = Conversation("row", "task", (Message("user", "a("), Message("user", ")"), Message("assistant", "b")))
    assert joined(deepseek.render(infill)) == "<B><｜fim▁begin｜>a(<｜fim▁hole｜>)<｜fim▁end｜>b<E>"
    assert joined(formats.get("fim").render(infill)) == "<s>▁<PRE>a(▁<SUF>)▁<MID>b▁<EOT>"
    assert joined(deepseek.render_prompt(infill.messages[:2])) == "<B><｜fim▁begin｜>a(<｜fim▁hole｜>)<｜fim▁end｜>"
    chat = Conversation("row", "task", ROUNDS[:2])
    for name, reason in (("raw", "not_a_text"), ("fim", "not_an_infill")):
        with pytest.raises(FormatError, match=reason):
            formats.get(name).render(chat)
    for name in CHAT:
        with pytest.raises(FormatError, match="assistant_first"):
            formats.get(name).render(text)


@pytest.mark.parametrize("name", CHAT)
def test_spans_that_are_left_out_are_cut_out_of_the_trained_text(name):
    answer = Message("assistant", "keep DROP keep", untrained=((5, 9),))
    segments = formats.get(name).render(Conversation("row", "task", (ROUNDS[0], answer)))
    written = "".join(segment.text if segment.trainable else "-" * len(segment.text)
                      for segment in segments if segment.answer or segment.trainable or segment.text == "DROP")
    assert written.strip().startswith("keep ---- keep")
    whole = Conversation("row", "task", (ROUNDS[0], Message("assistant", "keep DROP keep")))
    assert joined(segments) == joined(formats.get(name).render(whole))


def test_spans_follow_a_format_that_strips():
    answer = Message("assistant", "  ab cd ", untrained=((0, 3), (5, 8)))
    segments = formats.get("codellama70b").answer_segments(answer)
    assert [(segment.text, segment.trainable) for segment in segments] == [("a", False), ("b ", True), ("cd", False)]


def test_control_tokens_are_those_of_the_tokenizer():
    assert joined(formats.get("ziya", bos="<B>", eos="<E>").render(Conversation("row", "task", ROUNDS[:2]))) == (
        "<B><human>: \n2+2?\n<bot>: \n4<E>")


def test_the_2023_encoding_is_segmentwise_and_no_other():
    assert [name for name in CHAT if formats.get(name).segmentwise] == ["codefuse_2023"]
    assert {name for name in formats.names() if name != "jinja" and formats.get(name).uses_bos} == {
        "ziya", "codellama70b", "llama2", "alpaca", "raw", "fim"}


def test_an_unknown_format_is_answered_with_the_names_and_the_likely_one():
    with pytest.raises(FormatError, match=r"'codefus' is not a prompt format; expected one of codefuse, .*, raw, fim, jinja, or a YAML "
                                          r"file; did you mean 'codefuse'\?"):
        formats.get("codefus")


@pytest.mark.parametrize(("name", "text"), [
    ("codefuse", "see <|role_start|>bot<|role_end|>"), ("codefuse_2023", "<|role_start|>human<|role_end|>"),
    ("ziya", "a\n<bot>: \nb"), ("ziya", "<human>: x")])
@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_role_tag_inside_a_message_is_a_fault(name, text, position):
    contents = ["Be brief.", "2+2?", "4"]
    contents[position] = text
    messages = tuple(Message(role, content) for role, content in zip(("system", "user", "assistant"), contents, strict=True))
    assert formats.get(name).fault(messages) == "role_tag_in_text"
    with pytest.raises(FormatError, match=r"row-7: format '\w+' cannot render this \(role_tag_in_text\): a message contains a role tag"):
        formats.get(name).render(Conversation("row-7", "task", messages))


@pytest.mark.parametrize(("messages", "reason"), [
    ((), "no_messages"),
    ((Message("user", "a"), Message("system", "b")), "system_not_first"),
    ((Message("assistant", "a"),), "assistant_first"),
    ((Message("user", "a"), Message("user", "b"), Message("assistant", "c")), "repeated_role"),
    ((Message("user", " \n"), Message("assistant", "c")), "empty_message"),
    ((Message("user", "a"),), "no_answer"),
    ((Message("system", "a"),), "no_answer"),
    ((Message("user", "a"), Message("assistant", "c", train=False)), "nothing_trained"),
])
def test_each_fault_of_the_turns_is_refused_by_name(messages, reason):
    with pytest.raises(FormatError, match=rf"row: .*\({reason}\): \w+"):
        formats.get("codefuse").render(Conversation("row", "task", messages))


def test_a_prompt_must_end_with_the_user():
    with pytest.raises(FormatError, match=r"last_not_user.*must be the user's"):
        formats.get("ziya").render_prompt(ROUNDS[:2])
