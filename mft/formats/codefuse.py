"""The format of CodeFuse-CodeLlama-34B: role tags of ordinary text, no newline anywhere, nothing stripped, no BOS.

    <|role_start|>system<|role_end|>Be brief.<|role_start|>human<|role_end|>2+2?<|role_start|>bot<|role_end|>4</s>

Source: MFTCoder, release of 2023-09-27, `preprocess_data.py`; both quickstart lines of the model card.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from mft.conversation import Message, Role
from mft.formats.base import PromptFormat, Segment
from mft.formats.template import chat_template

OPENING: Final = "<|role_start|>"
TAGS: Final[Mapping[Role, str]] = {
    "system": f"{OPENING}system<|role_end|>",
    "user": f"{OPENING}human<|role_end|>",
    "assistant": f"{OPENING}bot<|role_end|>",
}

BODY = """\
{%- for message in messages -%}
  {%- if message['role'] == 'system' -%}{{- SYSTEM + message['content'] -}}
  {%- elif message['role'] == 'user' -%}{{- HUMAN + message['content'] -}}
  {%- else -%}{{- BOT + message['content'] + END -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- BOT -}}{%- endif -%}
"""


class CodeFuse(PromptFormat):
    """`codefuse`: every turn is its tag and its content; an answer ends with the tokenizer's eos."""

    name = "codefuse"
    stop_strings = (OPENING,)
    tags = (OPENING,)

    def render_messages(self, messages: Sequence[Message], *, generate: bool) -> list[Segment]:
        segments: list[Segment] = []
        for message in messages:
            segments.append(Segment(TAGS[message.role]))
            if message.role == "assistant":
                segments.append(Segment(self.canonical(message.content), trainable=message.train, answer=True))
                segments.append(Segment(self.eos, trainable=message.train, control=True))
            else:
                segments.append(Segment(message.content))
        if generate:
            segments.append(Segment(TAGS["assistant"]))
        return segments

    def chat_template(self) -> str:
        return chat_template(BODY, self.tags, SYSTEM=TAGS["system"], HUMAN=TAGS["user"], BOT=TAGS["assistant"], END=self.eos)


class CodeFuse2023(CodeFuse):
    """`codefuse_2023`: the same text, with the ids of the 2023 run.

    That run encoded each tag and each content alone, each with a dummy prefix of its own, while its server encoded the
    prompt as one string. So its training ids are not those of its prompts: the one exception to law 3.
    """

    name = "codefuse_2023"
    segmentwise = True
