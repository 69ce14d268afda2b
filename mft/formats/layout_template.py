"""The Jinja template of a layout: the same bytes through `apply_chat_template` of transformers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mft.formats.template import chat_template

if TYPE_CHECKING:
    from mft.formats.layout import Layout

BODY = """\
{{- START -}}
OPENING
{%- for message in turns -%}
  {%- if message['role'] == 'user' -%}
    {%- set content = USER_CONTENT -%}
    {{- USER_BEFORE + content + USER_AFTER -}}
  {%- else -%}{{- ANSWER_BEFORE + LEAD + ANSWER_CONTENT + ANSWER_AFTER -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- ANSWER_BEFORE -}}{%- endif -%}
"""

SYSTEM_TURN = """\
{{- PREAMBLE -}}
{%- if messages[0]['role'] == 'system' -%}
  {%- set content = SYSTEM_CONTENT -%}{{- SYSTEM_BEFORE + content + SYSTEM_AFTER -}}
{%- endif -%}
"""

SYSTEM_AS_PREAMBLE = """\
{%- if messages[0]['role'] == 'system' -%}{{- messages[0]['content'] -}}
{%- elif HAS_INPUT and turns[0]['input_start'] is defined and turns[0]['input_start'] is not none -%}{{- PREAMBLE_WITH_INPUT -}}
{%- else -%}{{- PREAMBLE -}}{%- endif -%}
"""

NO_SYSTEM = """\
{%- if messages[0]['role'] == 'system' -%}{{- raise_exception('this format has no place for a system message') -}}{%- endif -%}
{{- PREAMBLE -}}
"""

INPUT = ("((message['content'][:message['input_start'] - 1] + INPUT_MARK + message['content'][message['input_start']:])"
         " if message['input_start'] is defined and message['input_start'] is not none else message['content'])")
SYSTEM_IN_USER = "((SYSTEM_BEFORE + messages[0]['content'] + SYSTEM_AFTER) if loop.first and messages[0]['role'] == 'system' else '')"


def layout_template(layout: "Layout", tags: Sequence[str], *, bos: str, eos: str) -> str:
    """The chat template of a layout for a tokenizer with these control tokens. It refuses what the format's `fault` refuses."""
    opening = {"turn": SYSTEM_TURN, "preamble": SYSTEM_AS_PREAMBLE, "none": NO_SYSTEM, "first_user": "{{- PREAMBLE -}}\n"}
    user = INPUT if layout.input is not None else "message['content']"
    if layout.system_place == "first_user":
        user = f"({SYSTEM_IN_USER} + {user})"
    stripped = " | trim" if layout.strip else ""
    ended = "('' if content.endswith({0}) else {0})"
    body = BODY.replace("OPENING", opening[layout.system_place].strip()).replace("USER_CONTENT", f"({user}){stripped}")
    body = body.replace("SYSTEM_CONTENT", f"messages[0]['content']{stripped}").replace("ANSWER_CONTENT", f"(message['content']{stripped})")
    body = body.replace("HAS_INPUT", "true" if layout.preamble_with_input else "false")
    for name, around in (("USER_AFTER", layout.user), ("SYSTEM_AFTER", layout.system)):
        if around.unless_ended and around.after:
            body = body.replace(name, ended.format(name))
    texts = {"START": layout.start, "PREAMBLE": layout.preamble, "PREAMBLE_WITH_INPUT": layout.preamble_with_input,
             "INPUT_MARK": layout.input or "", "USER_BEFORE": layout.user.before, "USER_AFTER": layout.user.after,
             "SYSTEM_BEFORE": layout.system.before, "SYSTEM_AFTER": layout.system.after, "ANSWER_BEFORE": layout.assistant,
             "LEAD": layout.lead, "ANSWER_AFTER": layout.tail + layout.end + layout.then}
    return chat_template(body, tags, **{name: text.replace("{bos}", bos).replace("{eos}", eos) for name, text in texts.items()})
