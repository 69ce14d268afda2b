"""The tokenizer's own chat template as a format."""

import pytest

from mft import formats
from mft.conversation import Conversation, Message
from mft.errors import FormatError
from mft.formats.base import joined

TURNS = (Message("user", "2+2?"), Message("assistant", "4"), Message("user", "3+3?"), Message("assistant", "6", train=False))
CONTROL = {"<s>": "<s>", "</s>": "</s>", "<|end|>": r"<\|end\|>\s*"}
PLAIN = ("{{ bos_token }}{% for m in messages %}{% if m['role'] == 'assistant' %}A: {{ m['content'] }}{{ eos_token }}"
         "{% else %}U: {{ m['content'] }}\n{% endif %}{% endfor %}{% if add_generation_prompt %}A: {% endif %}")


def own(template: str) -> formats.base.PromptFormat:
    return formats.get("jinja", "<s>", "</s>", CONTROL, template)


def test_boundaries_are_those_of_the_rendered_prompts():
    segments = own(PLAIN).render(Conversation("row", "task", TURNS))
    assert joined(segments) == "<s>U: 2+2?\nA: 4</s>U: 3+3?\nA: 6</s>"
    assert [segment.text for segment in segments if segment.trainable] == ["4", "</s>"]
    assert [segment.text for segment in segments if segment.answer] == ["4", "6"]
    assert [segment.text for segment in segments if segment.control] == ["<s>", "</s>", "</s>"]
    assert own(PLAIN).uses_bos
    assert own(PLAIN).end_token == "</s>"
    assert own(PLAIN).chat_template() == PLAIN


def test_text_that_the_template_writes_around_an_answer_is_trained_up_to_the_end_mark():
    template = ("{% for m in messages %}{% if m['role'] == 'assistant' %}] {{ m['content'] | trim }} </s>"
                "{% else %}[{{ m['content'] }}{% endif %}{% endfor %}{% if add_generation_prompt %}]{% endif %}")
    segments = own(template).render(Conversation("row", "task", (TURNS[0], Message("assistant", " 4 ", untrained=((1, 2),)))))
    assert [(segment.text, segment.trainable) for segment in segments] == [
        ("[2+2?]", False), (" ", True), ("4", False), (" ", True), ("</s>", True)]


@pytest.mark.parametrize(("untrained", "trained"), [
    (((0, 6),), [" ", " 4 ok ", "</s>"]),              # begins in the space that the template strips
    (((7, 12),), [" ", "Sure! ", " ", "</s>"]),        # ends in it
    (((0, 1), (11, 12)), [" ", "Sure! 4 ok ", "</s>"]),   # lies in it
    (((0, 12),), [" ", " ", "</s>"]),
])
def test_a_span_that_reaches_into_space_that_the_template_strips_leaves_out_the_rest_of_it(untrained, trained):
    template = ("{% for m in messages %}{% if m['role'] == 'assistant' %}] {{ m['content'] | trim }} </s>"
                "{% else %}[{{ m['content'] }}{% endif %}{% endfor %}{% if add_generation_prompt %}]{% endif %}")
    row = (TURNS[0], Message("assistant", "\nSure! 4 ok\n", untrained=untrained))
    segments = own(template).render(Conversation("row", "task", row))
    assert joined(segments) == "[2+2?] Sure! 4 ok </s>"
    assert [segment.text for segment in segments if segment.trainable] == trained


def test_spaces_that_a_token_takes_in_belong_to_it():
    template = PLAIN.replace("{{ eos_token }}", "<|end|>\n")
    segments = own(template).render(Conversation("row", "task", TURNS[:2]))
    assert [(segment.text, segment.control_token) for segment in segments if segment.control] == [("<s>", "<s>"), ("<|end|>\n", "<|end|>")]


@pytest.mark.parametrize(("template", "message"), [
    (PLAIN.replace("{% if add_generation_prompt %}A: ", "{% if add_generation_prompt %}B: "),
     "does not go on from the prompt of an answer"),
    (PLAIN.replace("{{ eos_token }}", "\n"), "no control token ends the answer"),
    (PLAIN.replace("A: {{ m['content'] }}", "A: {{ m['content'] | upper }}"), "the answer is not written as it is"),
    ("{{ messages[-1]['content'] }}{{ eos_token }}", "does not go on from"),
    ("{% for m in %}", "is not valid Jinja"),
    ("", "this tokenizer has none"),
])
def test_a_template_that_cannot_be_trained_as_it_is_served_is_refused(template, message):
    with pytest.raises(FormatError, match=message):
        own(template)


def test_a_conversation_that_the_template_refuses_is_a_fault_and_so_is_control_text():
    template = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + PLAIN
    assert own(template).fault((Message("system", "a"), *TURNS[:2])) == "template_refuses"
    assert own(template).fault((Message("user", "a</s>"), TURNS[1])) == "control_text"
    assert own(template).fault(TURNS[:2]) is None


def test_a_template_runs_in_a_sandbox_and_knows_no_date():
    with pytest.raises(FormatError):
        own("{{ ''.__class__.__mro__ }}" + PLAIN)
    dated = "{% if strftime_now is defined %}{{ strftime_now('%d') }}{% else %}no date {% endif %}" + PLAIN
    assert joined(own(dated).render_prompt(TURNS[:1])).startswith("no date <s>")
