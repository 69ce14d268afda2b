"""Infilling: prefix and suffix are given, the middle is trained, for vocabularies that have the tokens.

    CodeLlama 7B, 13B, 70B   <s>▁<PRE>prefix▁<SUF>suffix▁<MID>middle▁<EOT>
    DeepSeek Coder           <bos><｜fim▁begin｜>prefix<｜fim▁hole｜>suffix<｜fim▁end｜>middle<eos>
    StarCoder                <fim_prefix>prefix<fim_suffix>suffix<fim_middle>middle<eos>
    Qwen2.5 Coder            <|fim_prefix|>prefix<|fim_suffix|>suffix<|fim_middle|>middle<eos>

Each is prefix-suffix-middle. A row has the shape `infill`: user prefix, user suffix, assistant middle; prefix or suffix may be
empty. Source: the tokenizers and cards of these models.

Of a Llama vocabulary each of the three texts begins with the tokenizer's dummy space, as it does behind any control token: `x` behind
`▁<MID>` is the piece `▁x`. A server that tokenizes the prompt string sends the same ids. Meta's own code (facebookresearch/codellama,
`encode_infilling`) leaves the dummy space of the suffix out; ids that it makes are not those that are trained here.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from mft.conversation import Message, Shape, shape_of
from mft.formats.base import PromptFormat, Segment
from mft.formats.template import fill

TEMPLATE = """\
{%- set roles = messages | map(attribute='role') | join(' ') -%}
{%- if roles != ('user user' if add_generation_prompt else 'user user assistant') -%}
  {{- raise_exception('an infill is prefix, suffix (both the user\\'s) and middle (the assistant\\'s); found ' + roles) -}}
{%- endif -%}
{{- PREFIX + messages[0]['content'] + SUFFIX + messages[1]['content'] + MIDDLE -}}
{%- if not add_generation_prompt -%}
  {%- if not messages[2]['content'] -%}{{- raise_exception('the middle is empty') -}}{%- endif -%}
  {{- messages[2]['content'] + END -}}
{%- endif -%}
"""


class Dialect(NamedTuple):
    """The tokens of one family. An empty `end` is the tokenizer's eos."""

    prefix: str
    suffix: str
    middle: str
    bos: bool
    end: str = ""


DIALECTS: Final = (
    Dialect("▁<PRE>", "▁<SUF>", "▁<MID>", bos=True, end="▁<EOT>"),
    Dialect("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>", bos=True),
    Dialect("<fim_prefix>", "<fim_suffix>", "<fim_middle>", bos=False),
    Dialect("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", bos=False),
)


class Fim(PromptFormat):
    """`fim`: the dialect is the one whose tokens the vocabulary has; without one, the first, whose tokens are then missed by name."""

    name = "fim"
    shape: Shape = "infill"

    @property
    def dialect(self) -> Dialect:
        """The family's tokens."""
        return next((dialect for dialect in DIALECTS if {*dialect[:3], *filter(None, [dialect.end])} <= self.control.keys()), DIALECTS[0])

    @property
    def uses_bos(self) -> bool:   # type: ignore[override]
        return self.dialect.bos

    @property
    def end_token(self) -> str:
        return self.dialect.end or self.eos

    @property
    def required_tokens(self) -> tuple[str, ...]:
        return (*super().required_tokens, *self.dialect[:3])

    def fault(self, messages: tuple[Message, ...], *, prompt: bool = False) -> str | None:
        roles = [message.role for message in messages]
        if prompt:
            return None if roles == ["user", "user"] else "not_an_infill"
        if shape_of(messages) != "infill":
            return "not_an_infill"
        if not messages[2].content:
            return "empty_message"
        return None if messages[2].train else "nothing_trained"

    def render_messages(self, messages: Sequence[Message], *, generate: bool) -> list[Segment]:
        prefix, suffix, middle = (Segment(token, control=True) for token in self.dialect[:3])
        start = [Segment(self.bos, control=True)] if self.uses_bos else []
        prompt = [*start, prefix, Segment(messages[0].content), suffix, Segment(messages[1].content), middle]
        return prompt if generate else [*prompt, *self.answer_segments(messages[2]), Segment(self.end_token, True, control=True)]

    def chat_template(self) -> str:
        start = self.bos if self.uses_bos else ""
        prefix, suffix, middle = self.dialect[:3]
        return fill(TEMPLATE, PREFIX=start + prefix, SUFFIX=suffix, MIDDLE=middle, END=self.end_token)
