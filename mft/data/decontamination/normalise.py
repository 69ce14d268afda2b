"""Text as the layers compare it: what an editor, a chat window or a disguise changes without changing the meaning is undone.

| undone in both views | undone in a view for code alone |
|---|---|
| case; white space and indentation; CR | comments, with their text |
| zero-width, direction and other format characters, control characters, variation selectors | |
| full-width and other compatibility forms (NFKC); curly quotes; `"` for `'` | |
| lines of a Markdown fence; backticks; triple quotes; `>` at the head of a line (a quotation, a doctest) | |
| marks of comments and lists at the head of a line (in the prose view) | |

All other punctuation stays: HumanEval/56 and /61 differ by their brackets alone. Not undone: letters of another script that look
alike, spelling, synonyms, translation.
"""

import re
import unicodedata
from typing import Literal

View = Literal["prose", "hash_code", "slash_code"]
"""`prose` keeps the text of comments; `hash_code` drops comments as Python has them, `slash_code` as C, Go, Java and others do."""

INVISIBLE = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u034f\u0600-\u0605\u061c\u06dd\u070f"
                       "\u115f\u1160\u17b4\u17b5\u180b-\u180f"
                       "\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e01ef]")
"""Format characters (Unicode Cf), controls without layout, fillers and variation selectors."""

BREAKS = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")

CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
"""Ranges of scripts that are written without spaces: a character is a token."""

TOKEN = re.compile(rf"[{CJK}]|[^\W{CJK}]+|[^\w\s`]")

FENCE = re.compile(r"^[ \t]*(?:```|~~~)[^\n]*$", re.MULTILINE)
QUOTATION = re.compile(r"^(?:>[ \t]?)+", re.MULTILINE)
LINE_HEAD = re.compile(r"^[ \t]*(?:(?:>+|\.\.\.|//+!?|/?\*+/?|#+|--+|-|\|)(?=\s|\w|\*/|$)[ \t]*)+", re.MULTILINE)
TRIPLE_QUOTE = re.compile("'{3}")
HASH_COMMENT = re.compile(r"#[^\n]*")
SLASH_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
LINE_COMMENT = re.compile(r"//[^\n]*")
QUOTES = str.maketrans({'"': "'", "\u2018": "'", "\u2019": "'", "\u201c": "'", "\u201d": "'"})


def clean(text: str) -> str:
    """`text` without invisible characters and quotation marks at the head of lines, in NFKC. Case, indentation and comments stay.

    >>> clean("> if x:\\r\\n>\u200b     y")
    'if x:\\n    y'
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", INVISIBLE.sub("", BREAKS.sub("\n", text)))
    elif not text.isprintable():
        text = INVISIBLE.sub("", BREAKS.sub("\n", text))
    return QUOTATION.sub("", text) if ">" in text else text


def tokenize(cleaned: str, view: View) -> list[str]:
    """The tokens of cleaned text: words and numbers (underscores are letters), single CJK characters, single punctuation marks.

    >>> tokenize(clean("```py\\nIf X[0]>=1:  # one\\n```"), "hash_code")
    ['if', 'x', '[', '0', ']', '>', '=', '1', ':']
    """
    text = FENCE.sub("", cleaned) if "```" in cleaned or "~~~" in cleaned else cleaned
    text = TRIPLE_QUOTE.sub("", text.translate(QUOTES) if not text.isascii() else text.replace('"', "'"))
    if view == "prose":
        text = LINE_HEAD.sub("", text).replace("*/", " ")
    elif view == "hash_code":
        text = HASH_COMMENT.sub("", text) if "#" in text else text
    else:
        text = _without_slash_comments(text)
    return TOKEN.findall(text.casefold())


def _without_slash_comments(text: str) -> str:
    """Only up to the last `*/` may a block comment begin: thousands of `/*` that nothing closes would each be followed to the end."""
    closed = text.rfind("*/") + 2 if "*/" in text else 0
    return SLASH_COMMENT.sub("", text[:closed]) + LINE_COMMENT.sub("", text[closed:])


def is_word(token: str) -> bool:
    """True for a word or a number that is not a CJK character."""
    return (token[0].isalnum() or token[0] == "_") and not is_cjk(token)


def is_cjk(token: str) -> bool:
    """True for one character of a script that is written without spaces."""
    return len(token) == 1 and token > "\u303f" and CJK_CHARACTER.match(token) is not None


CJK_CHARACTER = re.compile(f"[{CJK}]")
