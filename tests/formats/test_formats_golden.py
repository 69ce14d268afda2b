"""Each format's text, byte for byte, and what of it is trained."""

import pytest

from mft import formats
from mft.conversation import Conversation, Message
from mft.errors import FormatError
from mft.formats.base import Segment, joined

SYSTEM = Message("system", "Be brief.")
ROUNDS = (Message("user", "2+2?"), Message("assistant", "4"), Message("user", "3+3?"))

CODEFUSE = ("<|role_start|>system<|role_end|>Be brief.<|role_start|>human<|role_end|>2+2?<|role_start|>bot<|role_end|>4</s>"
            "<|role_start|>human<|role_end|>3+3?<|role_start|>bot<|role_end|>")
ZIYA = "<s><human>: \nBe brief.\n2+2?\n<bot>: \n4</s><human>: \n3+3?\n<bot>: \n"


@pytest.mark.parametrize(("name", "golden"), [("codefuse", CODEFUSE), ("codefuse_2023", CODEFUSE), ("ziya", ZIYA)])
def test_prompt_of_system_and_two_rounds_is_the_golden_text(name, golden):
    assert joined(formats.get(name).render_prompt([SYSTEM, *ROUNDS])) == golden


@pytest.mark.parametrize(("name", "golden"), [
    ("codefuse", "<|role_start|>human<|role_end|>2+2?<|role_start|>bot<|role_end|>4</s>"),
    ("ziya", "<s><human>: \n2+2?\n<bot>: \n4</s>"),
])
def test_training_text_of_one_round_is_the_golden_text(name, golden):
    assert joined(formats.get(name).render(Conversation("row", "task", ROUNDS[:2]))) == golden


def test_only_the_answer_and_its_end_mark_are_trainable():
    segments = formats.get("codefuse").render(Conversation("row", "task", ROUNDS[:2]))
    assert segments == [
        Segment("<|role_start|>human<|role_end|>"), Segment("2+2?"), Segment("<|role_start|>bot<|role_end|>"),
        Segment("4", trainable=True, answer=True), Segment("</s>", trainable=True, control=True)]
    ziya = formats.get("ziya").render(Conversation("row", "task", ROUNDS[:2]))
    assert [segment.text for segment in ziya if segment.trainable] == ["4", "</s>"]
    assert [segment.text for segment in ziya if segment.control] == ["<s>", "</s>"]


@pytest.mark.parametrize("name", ["codefuse", "ziya"])
def test_an_answer_that_says_train_false_is_rendered_and_its_end_mark_untrained(name):
    messages = (*ROUNDS[:1], Message("assistant", "4", train=False), ROUNDS[2], Message("assistant", "6"))
    segments = formats.get(name).render(Conversation("row", "task", messages))
    assert [segment.text for segment in segments if segment.trainable] == ["6", "</s>"]
    assert [segment.text for segment in segments if segment.answer] == ["4", "6"]


@pytest.mark.parametrize("name", formats.names())
def test_content_is_not_stripped_or_normalised(name):
    content = " \t\u00a0\u202f，！\r\n x  \n"
    segments = formats.get(name).render(Conversation("row", "task", (Message("user", content), Message("assistant", content))))
    assert [segment.text for segment in segments if segment.answer] == [content]
    assert joined(segments).count(content) == 2
    assert formats.get(name).canonical(content) == content


def test_control_tokens_are_those_of_the_tokenizer():
    assert joined(formats.get("ziya", bos="<B>", eos="<E>").render(Conversation("row", "task", ROUNDS[:2]))) == (
        "<B><human>: \n2+2?\n<bot>: \n4<E>")


def test_the_2023_encoding_is_segmentwise_and_no_other():
    assert [name for name in formats.names() if formats.get(name).segmentwise] == ["codefuse_2023"]
    assert [name for name in formats.names() if formats.get(name).uses_bos] == ["ziya"]


def test_an_unknown_format_is_answered_with_the_names_and_the_likely_one():
    with pytest.raises(FormatError, match=r"'codefus' is not a prompt format; expected one of codefuse, codefuse_2023, ziya; "
                                          r"did you mean 'codefuse'\?"):
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
