"""Text without turns: BOS where the tokenizer has one, the text, eos. All of it is trained, as in pre-training."""

from collections.abc import Sequence

from mft.conversation import Message, Shape, shape_of
from mft.formats.base import PromptFormat, Segment
from mft.formats.template import fill

TEMPLATE = """\
{%- if messages | length != 1 or messages[0]['role'] != ('user' if add_generation_prompt else 'assistant') -%}
  {{- raise_exception('a text is one message: the assistant\\'s, or the user\\'s when it is to be continued') -}}
{%- endif -%}
{%- if not messages[0]['content'] -%}{{- raise_exception('the text is empty') -}}{%- endif -%}
{{- START + messages[0]['content'] -}}
{%- if not add_generation_prompt -%}{{- END -}}{%- endif -%}
"""


class Raw(PromptFormat):
    """`raw`: rows of the shape `text`. A prompt is a user's message, which the model goes on with."""

    name = "raw"
    shape: Shape = "text"

    @property
    def uses_bos(self) -> bool:   # type: ignore[override]
        return bool(self.bos)

    def fault(self, messages: tuple[Message, ...], *, prompt: bool = False) -> str | None:
        if prompt:
            return None if [message.role for message in messages] == ["user"] else "last_not_user"
        if shape_of(messages) != "text":
            return "not_a_text"
        if not messages[0].content:
            return "empty_message"
        return None if messages[0].train else "nothing_trained"

    def render_messages(self, messages: Sequence[Message], *, generate: bool) -> list[Segment]:
        start = [Segment(self.bos, control=True)] if self.bos else []
        if generate:
            return [*start, Segment(messages[0].content)]
        return [*start, *self.answer_segments(messages[0]), Segment(self.eos, trainable=True, control=True)]

    def chat_template(self) -> str:
        return fill(TEMPLATE, START=self.bos, END=self.eos)
