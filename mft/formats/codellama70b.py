"""The chat format of CodeLlama-70b-Instruct.

    <s>Source: system\\n\\n Be brief. <step> Source: user\\n\\n 2+2? <step> Source: assistant\\n\\n 4 <step>
    Source: user\\n\\n 3+3? <step> Source: assistant\\nDestination: user\\n\\n 

`<step>` takes in the spaces on both sides of it, so a turn's ids are those of its text without them. An answer is generated
after `assistant\\nDestination: user\\n\\n ` and stands in the history after `assistant\\n\\n `: one row cannot train several
turns and be what a server sends, so each assistant turn has a row of its own. Without a system message Meta's code sends an
empty system turn, `Source: system` alone. Source: facebookresearch/codellama, `llama/generation.py`; the model's card.
"""

from collections.abc import Sequence
from typing import Final

from mft.conversation import Message
from mft.formats.base import PromptFormat, Segment
from mft.formats.template import chat_template

STEP: Final = "<step>"
ANSWER_HEADER: Final = "Source: assistant\nDestination: user\n\n "

BODY = """\
{{- START -}}
{%- if EMPTY_SYSTEM and messages[0]['role'] != 'system' -%}{{- 'Source: system' + STEP -}}{%- endif -%}
{%- for message in messages -%}
  {%- set content = message['content'] | trim -%}
  {%- if message['role'] == 'assistant' and (IN_HISTORY or (loop.last and not add_generation_prompt)) -%}{{- ANSWER_HEADER + content -}}
  {%- else -%}{{- 'Source: ' + message['role'] -}}{%- if content -%}{{- SEPARATOR + content -}}{%- endif -%}
  {%- endif -%}
  {{- STEP -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- ANSWER_HEADER -}}{%- endif -%}
"""


class CodeLlama70B(PromptFormat):
    """`codellama70b`: contents stripped; `<step>` ends every turn, and is what a trained answer ends with.

    `empty_system: false` leaves the empty system turn out, as the template of the model's card does. `destination_in_history:
    true` writes earlier answers with their destination too, so that one row trains them all; it must then be served so.
    """

    name = "codellama70b"
    uses_bos = True
    stop_strings = ("Source:",)
    empty_system = True
    destination_in_history = False

    @property
    def row_per_turn(self) -> bool:   # type: ignore[override]
        return not self.destination_in_history

    @property
    def end_token(self) -> str:
        return STEP

    def canonical(self, answer: str) -> str:
        return answer.strip()

    def render_messages(self, messages: Sequence[Message], *, generate: bool) -> list[Segment]:
        out = [Segment(self.bos, control=True)]
        if self.empty_system and messages[0].role != "system":
            out += [Segment("Source: system"), self._step()]
        for number, message in enumerate(messages, 1):
            if message.role == "assistant":
                asked = self.destination_in_history or (number == len(messages) and not generate)
                out.append(Segment(ANSWER_HEADER if asked else "Source: assistant\n\n "))
                # Only the answer that this row can train: the header of the others is not what a server sent before them.
                trained = message if asked else Message("assistant", message.content, train=False)
                out += [*self.answer_segments(trained), self._step(trainable=trained.train)]
            else:
                content = message.content.strip()
                out += [Segment(f"Source: {message.role}" + (f"\n\n {content}" if content else "")), self._step()]
        return [*out, Segment(ANSWER_HEADER)] if generate else out

    def chat_template(self) -> str:
        flags = {"EMPTY_SYSTEM": self.empty_system, "IN_HISTORY": self.destination_in_history}
        body = BODY
        for name, flag in flags.items():
            body = body.replace(name, "true" if flag else "false")
        return chat_template(body, self.tags, START=self.bos, STEP=f" {STEP} ", ANSWER_HEADER=ANSWER_HEADER, SEPARATOR="\n\n ")

    def _step(self, *, trainable: bool = False) -> Segment:
        return Segment(f" {STEP} ", trainable, control=True, token=STEP)
