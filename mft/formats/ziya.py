"""The format of Ziya-Coding-34B-v1.0: one BOS, tags that end in a space and a newline.

    <s><human>: \\nBe brief.\\n2+2?\\n<bot>: \\n4</s><human>: \\n3+3?\\n<bot>: \\n

Published is the prompt of one turn. Ours: rounds are joined without a separator, the system text and a newline go before
the first user content, an answer ends with the tokenizer's eos.
"""

from collections.abc import Sequence
from typing import Final

from mft.conversation import Message
from mft.formats.base import PromptFormat, Segment
from mft.formats.template import chat_template

HUMAN: Final = "<human>: \n"
BOT: Final = "\n<bot>: \n"

BODY = """\
{{- START -}}
{%- for message in turns -%}
  {%- if message['role'] == 'user' -%}
    {{- HUMAN -}}
    {%- if loop.first and messages[0]['role'] == 'system' -%}{{- messages[0]['content'] + NEWLINE -}}{%- endif -%}
    {{- message['content'] -}}
  {%- else -%}{{- BOT + message['content'] + END -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- BOT -}}{%- endif -%}
"""


class Ziya(PromptFormat):
    """`ziya`: the newline before `<bot>` belongs to the prompt, which ends in `: ` and a newline."""

    name = "ziya"
    uses_bos = True
    stop_strings = ("<human>:",)
    tags = ("<human>:", "<bot>:")

    def render_messages(self, messages: Sequence[Message], *, generate: bool) -> list[Segment]:
        segments = [Segment(self.bos, control=True)]
        system = ""
        for message in messages:
            if message.role == "system":
                system = message.content + "\n"
            elif message.role == "user":
                segments += [Segment(HUMAN), Segment(system + message.content)]
                system = ""
            else:
                segments.append(Segment(BOT))
                segments.append(Segment(self.canonical(message.content), trainable=message.train, answer=True))
                segments.append(Segment(self.eos, trainable=message.train, control=True))
        if generate:
            segments.append(Segment(BOT))
        return segments

    def chat_template(self) -> str:
        return chat_template(BODY, self.tags, START=self.bos, HUMAN=HUMAN, BOT=BOT, NEWLINE="\n", END=self.eos)
