"""What the exported Jinja templates share: literals that survive, and the refusals of the renderer."""

import json
import re
from collections.abc import Sequence

GUARD = """\
{%- set turns = messages[1:] if messages and messages[0]['role'] == 'system' else messages -%}
{%- if not turns -%}{{- raise_exception('no user message') -}}{%- endif -%}
{%- for message in messages -%}
  {%- if message['content'] is not string -%}{{- raise_exception('the content of a message must be one string') -}}{%- endif -%}
  {%- for tag in TAGS -%}
    {%- if tag in message['content'] -%}{{- raise_exception('a message contains the role tag ' + tag) -}}{%- endif -%}
  {%- endfor -%}
{%- endfor -%}
{%- for message in turns -%}
  {%- if message['role'] != ('assistant' if loop.index0 % 2 else 'user') -%}
    {{- raise_exception('roles must be: system (if any), then user and assistant in turn; found ' + message['role']) -}}
  {%- endif -%}
  {%- if not message['content'] | trim -%}{{- raise_exception('a message is empty') -}}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt and turns[-1]['role'] != 'user' -%}
  {{- raise_exception('an answer can only be asked for when the last message is the user\\'s') -}}
{%- endif -%}
"""
"""Sets `turns` (the messages without the system's) and refuses what `PromptFormat.fault` refuses."""


def literal(text: str) -> str:
    """`text` as a Jinja string. Newlines are escaped: transformers renders with trim_blocks, which eats real ones after a tag.

    >>> print(literal("<human>: \\n"))
    "<human>: \\n"
    """
    return json.dumps(text, ensure_ascii=False)


def chat_template(body: str, tags: Sequence[str], **literals: str) -> str:
    """The guard and a body; each name of `literals` that stands in the body is replaced by that text as a Jinja string.

    No text outside `{{ }}` is rendered: every tag of guard and body strips the space around it.
    """
    return fill((GUARD + body).replace("TAGS", "[" + ", ".join(map(literal, tags)) + "]", 1), **literals)


def fill(template: str, **literals: str) -> str:
    """A template in which each of these names is replaced by its text as a Jinja string."""
    values = {name: literal(text) for name, text in literals.items()}
    names = re.compile(r"\b(?:" + "|".join(values) + r")\b")   # one pass: a token's own text may hold one of the names
    return names.sub(lambda match: values[match[0]], template).strip()
