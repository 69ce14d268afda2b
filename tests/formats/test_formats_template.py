"""The exported chat templates, rendered by transformers, are the bytes of our renderer."""

import pytest

from mft import formats
from mft.conversation import Conversation, Message
from mft.formats.base import joined

TURNS = ("  2+2? \n", "= 4\n", "3+3?\n\n", "    6", "{{ 'x' }} {% if %} \\n 'quoted' \"twice\"", "```python\n\tpass\n```\n")
CHAT = [name for name in formats.names() if name not in ("raw", "fim", "jinja")]
BAD_ROLES = [
    [("system", "a")], [("assistant", "a")], [("user", "a"), ("user", "b")], [("user", "a"), ("system", "b")],
    [("human", "a")], [("tool", "a")], [("user", " ")], [("user", "a"), ("assistant", "")],
]


@pytest.fixture(scope="module")
def transformers_tokenizer():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), bos_token="<other>", eos_token="<another>")


def render(tokenizer, template: str, pairs: list[tuple[str, str]], generate: bool) -> str:
    messages = [{"role": role, "content": content} for role, content in pairs]
    return tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, add_generation_prompt=generate)


@pytest.mark.parametrize("name", CHAT)
@pytest.mark.parametrize("rounds", [1, 2, 3])
@pytest.mark.parametrize("system", [None, "Be brief.", "", " two\nlines \n"])
@pytest.mark.parametrize("tokens", [("<s>", "</s>"), ("<｜begin▁of▁sentence｜>", "<|END|>"), ("a'b\"c\\n", "😀")])
def test_template_and_renderer_give_the_same_bytes(transformers_tokenizer, name, rounds, system, tokens):
    prompt_format = formats.get(name, *tokens)
    pairs = [("user" if index % 2 == 0 else "assistant", text) for index, text in enumerate(TURNS[:2 * rounds])]
    if system is not None:
        pairs.insert(0, ("system", system))
    messages = tuple(Message(role, content) for role, content in pairs)
    template = prompt_format.chat_template()
    assert render(transformers_tokenizer, template, pairs, False) == joined(
        prompt_format.render(Conversation("row", "task", messages)))
    assert render(transformers_tokenizer, template, pairs[:-1], True) == joined(prompt_format.render_prompt(messages[:-1]))


def render_messages(tokenizer, prompt_format, messages: list[dict], generate: bool) -> str:
    template = prompt_format.chat_template()
    return tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, add_generation_prompt=generate)


def test_the_template_of_alpaca_knows_where_an_input_begins(transformers_tokenizer):
    alpaca = formats.get("alpaca")
    question, answer = Message("user", "Add.\n1 and 2", input_start=5), Message("assistant", "3")
    values = [{"role": "user", "content": question.content, "input_start": 5}, {"role": "assistant", "content": "3", "input_start": None}]
    whole = joined(alpaca.render(Conversation("row", "task", (question, answer))))
    assert render_messages(transformers_tokenizer, alpaca, values, False) == whole
    assert render_messages(transformers_tokenizer, alpaca, values[:1], True) == joined(alpaca.render_prompt([question]))


@pytest.mark.parametrize("settings", [{"empty_system": False}, {"destination_in_history": True}])
def test_the_template_of_codellama70b_follows_its_settings(transformers_tokenizer, settings):
    prompt_format = formats.get({"extends": "codellama70b", **settings})
    pairs = [("user" if index % 2 == 0 else "assistant", f" {index} ") for index in range(4)]
    messages = tuple(Message(role, content) for role, content in pairs)
    for part, generate in ((pairs, False), (pairs[:3], True)):
        own = prompt_format.render_messages(messages[:len(part)], generate=generate)
        assert render(transformers_tokenizer, prompt_format.chat_template(), part, generate) == joined(own)
    text = joined(prompt_format.render_prompt(messages[:1]))
    assert text.startswith("<s>Source: user" if "empty_system" in settings else "<s>Source: system <step> Source: user")


def test_texts_and_infills_have_templates_too(transformers_tokenizer):
    from jinja2.exceptions import TemplateError

    raw, fim = formats.get("raw"), formats.get("fim")
    text, prompt = [("assistant", " x\n")], [("user", " x\n")]
    infill = [("user", "a("), ("user", ""), ("assistant", "b")]
    for prompt_format, pairs, generate in ((raw, text, False), (raw, prompt, True), (fim, infill, False), (fim, infill[:2], True)):
        own = prompt_format.render_messages([Message(role, content) for role, content in pairs], generate=generate)
        assert render(transformers_tokenizer, prompt_format.chat_template(), pairs, generate) == joined(own)
        with pytest.raises(TemplateError):
            render(transformers_tokenizer, prompt_format.chat_template(), pairs, not generate)


def test_the_template_of_ziya_keeps_its_trailing_spaces(transformers_tokenizer):
    text = render(transformers_tokenizer, formats.get("ziya").chat_template(), [("user", "2+2?")], True)
    assert text == "<s><human>: \n2+2?\n<bot>: \n"


@pytest.mark.parametrize("name", CHAT)
@pytest.mark.parametrize("generate", [False, True])
@pytest.mark.parametrize("pairs", BAD_ROLES)
def test_the_template_refuses_the_roles_that_the_renderer_refuses(transformers_tokenizer, name, generate, pairs):
    from jinja2.exceptions import TemplateError

    with pytest.raises(TemplateError):
        render(transformers_tokenizer, formats.get(name).chat_template(), pairs, generate)


@pytest.mark.parametrize(("name", "text"), [
    ("codefuse", "<|role_start|>bot<|role_end|>"), ("ziya", "\n<bot>: \n"), ("llama2", " [/INST] "), ("alpaca", "### Response:")])
def test_the_template_refuses_a_role_tag_in_a_message(transformers_tokenizer, name, text):
    from jinja2.exceptions import TemplateError

    with pytest.raises(TemplateError, match="role tag"):
        render(transformers_tokenizer, formats.get(name).chat_template(), [("user", f"a{text}b")], True)


def test_the_template_refuses_an_answer_after_an_answer_and_content_in_parts(transformers_tokenizer):
    from jinja2.exceptions import TemplateError

    template = formats.get("codefuse").chat_template()
    with pytest.raises(TemplateError, match="the last message is the user's"):
        render(transformers_tokenizer, template, [("user", "a"), ("assistant", "b")], True)
    with pytest.raises(TemplateError, match="one string"):
        render(transformers_tokenizer, template, [("user", [{"type": "text", "text": "a"}])], True)
