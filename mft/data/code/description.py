"""How much a doc comment or docstring says about its function, apart from links, tags, types and names."""

import re
from collections.abc import Iterator
from enum import Enum
from typing import Final


class About(Enum):
    """What a part of a doc comment speaks of."""

    FUNCTION = 1
    RESULT = 2
    PARAMETER = 3
    NOTHING = 4


TAG: Final = re.compile(r"\s*[@\\](\w[\w-]*)(?:\[[\w, ]+\])?\s?(.*)")

DESCRIBING: Final = frozenset({"description", "desc", "summary", "brief", "short", "details", "remarks", "note"})
"""Tags whose text is about what the function does."""

RESULT: Final = frozenset({"return", "returns", "result", "retval", "yields"})

PARAMETER: Final = frozenset({"param", "arg", "argument", "prop", "property", "tparam", "typeparam", "template", "throws", "throw",
                              "exception"})
"""Tags whose text is about a parameter or an error."""

TAGS: Final = ((DESCRIBING, About.FUNCTION), (RESULT, About.RESULT), (PARAMETER, About.PARAMETER))

TYPE: Final = re.compile(r"^\s*\{(?:[^{}]|\{[^{}]*\})*\}\s*")
LINK: Final = re.compile(
    r"(?:(?:(?:\A|(?<=[.!?]\s))(?:for|more|further|related)\b[^.]*?)?\b(?:see(?: also)?|refer to|refs?|references?|sources?|from|at|via|"
    r"issues?|bugs?|(?:created )?in response to|documentation|link)\b\s*:?\s*)?[<(\[]?\bhttps?://\S+", re.IGNORECASE)
"""An address with the words that lead to it: `For its limits, see https://...`."""

PARAMETER_NAME: Final = re.compile(r"^(?:\[[^\]]*\]|[<\w.$>\-]+)\s*-?\s*")
VERSIONS: Final = re.compile(r"^([ \t]*)\.\. (?:version\w+|deprecated)::.*(?:\n(?:\1[ \t]+\S.*|[ \t]*)$)*", re.MULTILINE)
"""Sphinx's `.. versionchanged:: 3.2` with the indented lines below it."""

INHERITED: Final = re.compile(r"\{@inherit-?doc\}", re.IGNORECASE)
RELATIVE: Final = re.compile(r"\W*(?:ditto\b|(?:same|similar|likewise|as|like|see)\b[\s,]*(?:(?:to|as)\s+)?(?:the\s+)?"
                             r"(?:above|before|previous|below|but)\b)", re.IGNORECASE)
"""`Same as above`, `Similar, but for ...`: nobody knows what it speaks of once the function stands alone."""

GROUP: Final = re.compile(
    r"\W*(?:(?:the )?(?:following|next|these|some|various|common|internal|private|public|static|generic|example|helper|utility|convenience|"
    r"wrapper|handler|compar(?:e|ison)|conversion|memory management|partial) ){0,3}"
    r"(?:functions|methods|routines|overloads|helpers|accessors|operators|callbacks|constructors)(?: below| above)?"
    r"(?=[ /](?:for|to|that|used|of|in|on|between|which|with|require|mutators|look|are|do|allow)\b|[.:\n]|$)"
    r"|\W*(?:series|set|group|family|collection) of (?:\w+ ){0,4}(?:functions|methods|routines|overloads|helpers|callbacks)\b",
    re.IGNORECASE)
"""`Helper functions for ...`: the heading of several functions stands above the first of them."""

NOTE: Final = re.compile(
    r"\W*(?:(?:must|should|can|could|may) (?:only |also )?be (?:called|deleted|held|locked|public)\b|only called\b|call(?:ed)? with\b"
    r"|do(?: not|n't) call\b|(?:temporary )?workaround for\b|special code for\b|for comparison with\b"
    r"|\S+(?: \S+)? (?:must|should) be (?:held|locked)\b)(?:[^.]|\.(?=\S))*\.?", re.IGNORECASE)
"""`Must be called with the lock held`: a first sentence for those who call the function or maintain it."""


def described_characters(text: str) -> int:
    """Characters of a doc comment that describe: 0 for nothing but tags, types and names, links, notes, or what is said of others.

    Texts of parameters and errors count only beside a text of the function itself, not beside that of its result.

    >>> described_characters("@param {string} name\\n@returns {void}"), described_characters("See https://a.b/c")
    (0, 0)
    >>> described_characters("Opens it.\\n@param {string} name what is opened")
    23
    """
    if RELATIVE.match(text) or GROUP.match(text):
        return 0
    said = dict.fromkeys(About, 0)
    for about, part in _parts(_without_note(text)):
        said[about] += _characters(part)
    return sum(said.values()) - said[About.NOTHING] if said[About.FUNCTION] else said[About.RESULT]


def docstring_characters(text: str) -> int:
    """The same of a docstring of Python, where an `@` begins no tag and `.. versionchanged::` says nothing.

    >>> docstring_characters("@cached opens it.\\n\\n.. versionadded:: 3.2")
    17
    """
    if RELATIVE.match(text) or GROUP.match(text):
        return 0
    return _characters(VERSIONS.sub("", _without_note(text)))


def _without_note(text: str) -> str:
    return NOTE.sub("", text, count=1) if NOTE.match(text) else text


def _characters(text: str) -> int:
    return len(LINK.sub("", " ".join(INHERITED.sub("", text).split())).strip(" ,:;-"))


def _parts(text: str) -> Iterator[tuple[About, str]]:
    """What stands before the first tag, and behind each tag up to the next."""
    about, part = About.FUNCTION, ""
    for line in text.split("\n"):
        if tag := TAG.fullmatch(line):
            yield about, part
            name, part = tag[1].lower(), TYPE.sub("", tag[2])
            about = next((about for names, about in TAGS if name in names), About.NOTHING)
            part = PARAMETER_NAME.sub("", part) if about is About.PARAMETER else part
        else:
            part += f" {line}"
    yield about, part
