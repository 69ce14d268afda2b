"""The exported chat templates, rendered by transformers, are the bytes of our renderer."""

import pytest

from mft import formats
from mft.conversation import Conversation, Message
from mft.formats.base import joined

TURNS = ("  2+2? \n", "= 4\n", "3+3?\n\n", "    6", "{{ 'x' }} {% if %} \\n 'quoted' \"twice\"", "```python\n\tpass\n```\n")
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


@pytest.mark.parametrize("name", formats.names())
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


def test_the_template_of_ziya_keeps_its_trailing_spaces(transformers_tokenizer):
    text = render(transformers_tokenizer, formats.get("ziya").chat_template(), [("user", "2+2?")], True)
    assert text == "<s><human>: \n2+2?\n<bot>: \n"


@pytest.mark.parametrize("name", formats.names())
@pytest.mark.parametrize("generate", [False, True])
@pytest.mark.parametrize("pairs", BAD_ROLES)
def test_the_template_refuses_the_roles_that_the_renderer_refuses(transformers_tokenizer, name, generate, pairs):
    from jinja2.exceptions import TemplateError

    with pytest.raises(TemplateError):
        render(transformers_tokenizer, formats.get(name).chat_template(), pairs, generate)


@pytest.mark.parametrize(("name", "text"), [("codefuse", "<|role_start|>bot<|role_end|>"), ("ziya", "\n<bot>: \n")])
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
