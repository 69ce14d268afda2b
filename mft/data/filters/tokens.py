"""Text as tokens, without a model's tokenizer: words and signs, single characters of Chinese, Japanese and Korean."""

import re
import unicodedata
from typing import Final

CJK: Final = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3\uf900-\ufaff"
"""Kana, Han and Hangul, as the inside of a character class."""

TOKEN: Final = re.compile(rf"[{CJK}]|[^\W{CJK}]+|[^\w\s]")


def tokens_of(text: str) -> list[str]:
    """The tokens of a text after NFC and lower case; white space separates and is no token.

    >>> tokens_of("x[0] = f(求和, Max_1)")
    ['x', '[', '0', ']', '=', 'f', '(', '求', '和', ',', 'max_1', ')']
    """
    return TOKEN.findall(unicodedata.normalize("NFC", text).lower())
