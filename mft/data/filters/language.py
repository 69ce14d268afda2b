"""`language`: Chinese, English or neither, by the script of the prose."""

import re
from collections import Counter
from typing import Final, Literal

from mft.conversation import Conversation
from mft.data.filters.config import LanguageStep
from mft.data.filters.fences import prose_of
from mft.data.filters.parts import texts_of
from mft.data.verdict import KEEP, RowStep, Verdict, drop

ProseLanguage = Literal["zh", "en", "other", "none"]

INLINE_CODE: Final = re.compile(r"`[^`\n]+`")
HAN: Final = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]|[\U00020000-\U0003ffff]")
KANA_OR_HANGUL: Final = re.compile(r"[\u3040-\u30ff\u1100-\u11ff\uac00-\ud7a3]")
LATIN: Final = re.compile(r"[A-Za-z\u00aa\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f]")

OTHER_SCRIPTS = 0.2
"""Share of letters of scripts other than Han and Latin from which a text is neither Chinese nor English."""


class Language(RowStep):
    """`other_language`: the language of the judged part is not among those to keep. The report counts rows by language."""

    def __init__(self, config: LanguageStep) -> None:
        self.config = config
        self._found: Counter[str] = Counter()

    def judge(self, row: Conversation) -> Verdict:
        text = "\n".join(texts_of(row, self.config.on))
        language = language_of(text, self.config.han_share)
        self._found[language] += 1
        return KEEP if language in self.config.keep else drop("other_language", language)

    def report(self) -> dict[str, int]:
        """Rows by language: `zh`, `en`, `other`, `none`."""
        return dict(sorted(self._found.items()))


def language_of(text: str, han_share: float) -> ProseLanguage:
    """The language of a text's prose: fenced blocks and inline code are taken out, then its letters are counted.

    `none`: no letter is left. `other`: a fifth of them are neither Han nor Latin (kana and Hangul count among these, so Japanese
    with its Han is `other`). `zh`: `han_share` or more of the Han and Latin ones are Han. `en`: the rest, so every language in
    Latin letters; scripts cannot tell French from English.

    >>> language_of("用 quicksort 排序", 0.1), language_of("sort it", 0.1), language_of("отсортируй", 0.1), language_of("1 + 1?", 0.1)
    ('zh', 'en', 'other', 'none')
    """
    prose = INLINE_CODE.sub(" ", prose_of(text))
    letters, han, latin = sum(map(str.isalpha, prose)), len(HAN.findall(prose)), len(LATIN.findall(prose))
    language: ProseLanguage = "en"
    if not letters:
        language = "none"
    elif max(len(KANA_OR_HANGUL.findall(prose)), letters - han - latin) >= OTHER_SCRIPTS * letters:
        language = "other"
    elif han and han >= han_share * (han + latin):
        language = "zh"
    return language
