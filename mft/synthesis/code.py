"""Code in an answer, and the language that it is in."""

from typing import Final, cast, get_args

from mft.data.filters.config import CodeLanguage
from mft.data.filters.fences import find_fences
from mft.data.filters.grammars import TAGS, parses

LANGUAGES: Final[tuple[str, ...]] = get_args(CodeLanguage)

SIGNS: Final = ("(", "=", "{", "import ", "return", ";", ":")
"""One of these stands in nearly all code and in little prose of one line."""


def code_of(text: str, language: str) -> str:
    """The code of an answer: its longest fenced block of the language, else of no known language; without a fence all of it, if it parses.

    Empty where there is none. Of equally long blocks the first: a second one most often shows how the first is used.

    >>> code_of("So:\\n```python\\ndef f():\\n    return 1\\n```\\nUse it:\\n```python\\nf()\\n```", "python")
    'def f():\\n    return 1\\n'
    """
    fences = [fence for fence in find_fences(text) if fence.closed and fence.code.strip()]
    if fences:
        own = [fence.code for fence in fences if TAGS.get(fence.tag) == language]
        untold = [fence.code for fence in fences if fence.tag not in TAGS]
        return max(own or untold, key=lambda code: code.count("\n"), default="")
    bare = text.strip()
    if "```" in text or not any(sign in bare for sign in SIGNS) or language not in LANGUAGES:
        return ""
    return text if parses(text, cast(CodeLanguage, language)) else ""


def language_of_code(text: str, default: str) -> str:
    """The language that the first tagged fence names, else `default`.

    >>> language_of_code("```golang\\nx := 1\\n```", "python")
    'go'
    """
    return next((TAGS[fence.tag] for fence in find_fences(text) if fence.tag in TAGS), default)
