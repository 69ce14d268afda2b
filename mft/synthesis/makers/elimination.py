"""Why a text that a model wrote is not used. Each check returns a reason to count, or an empty string."""

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Final

from mft.data.filters.fences import find_fences, prose_of
from mft.data.filters.language import INLINE_CODE

HEAD_CHARACTERS: Final = 200
"""An apology stands at the beginning; further down the word may belong to a task."""

REFUSALS: Final = re.compile(
    r"\b(?:i(?:'|\u2019)?m sorry|i am sorry|sorry, (?:but )?i|i apologi[sz]e|as an ai\b|as a(?:n ai)? language model|"
    r"i (?:can(?:'|\u2019)?t|cannot|am (?:not able|unable)|won(?:'|\u2019)?t be able) (?:to )?"
    r"(?:help|assist|fulfil|comply|provide|do|write|rewrite|create|generate|answer|translate))"
    r"|^\W*sorry\b|^\W*(?:很|非常)?抱歉|对不起|作为一[个名种]?\s?(?:AI|人工智能|语言模型)|我(?:无法|不能)(?:帮|提供|回答|完成|协助|满足)",
    re.IGNORECASE)

DEFINES: Final = re.compile(r"(?:async )?def |class |import |from |func |fn |pub |public |#include")

RUN_WORDS: Final = 8
"""So many words of a prompt in a row are no accident. For Chinese these are characters, twice as many."""


def refused(text: str) -> str:
    """`refused`: the model apologises or says what it is.

    >>> refused("I'm sorry, but I cannot help with that."), refused("对不起，我无法完成。"), refused("Write a sorry-looking menu.")
    ('refused', 'refused', '')
    """
    return "refused" if REFUSALS.search(prose_of(text)[:HEAD_CHARACTERS]) else ""


def words_of(text: str) -> list[str]:
    """Words in lower case; each Han letter is a word."""
    return re.findall(r"[\u3400-\u9fff]|[^\W\u3400-\u9fff]+", text.lower())


def copied(text: str, parent: str, min_new_words: int) -> str:
    """`unchanged`: the same words in the same order; `copied`: fewer new ones among them than asked for.

    >>> copied("Sort it.", "sort it", 3), copied("Now sort it.", "Sort it.", 3), copied("Sort at most ten names.", "Sort.", 3)
    ('unchanged', 'copied', '')
    """
    new, old = words_of(text), words_of(parent)
    if new == old:
        return "unchanged"
    same = sum(block.size for block in SequenceMatcher(None, old, new, autojunk=False).get_matching_blocks())
    return "copied" if len(new) - same < min_new_words else ""


def leaked(text: str, template: str) -> str:
    """`prompt_leaked`: a run of words of the prompt's own wording stands in the answer."""
    said = words_of(text)
    runs = {tuple(said[start:start + size]) for size in (RUN_WORDS, 2 * RUN_WORDS) for start in range(len(said) - size + 1)}
    for part in re.split(r"\{\w+\}", template):
        asked = words_of(part)
        size = 2 * RUN_WORDS if re.search(r"[\u3400-\u9fff]", part) else RUN_WORDS
        if any(tuple(asked[start:start + size]) in runs for start in range(len(asked) - size + 1)):
            return "prompt_leaked"
    return ""


def code_in_text(text: str, code: str, most_lines_shared: float) -> str:
    """`code_in_instruction`: more than this share of the code's telling lines stand in the text, or it holds a block of them.

    A line tells something where it has twelve characters or more and does not begin a definition, whose name a request may give.
    """
    telling = {line for line in map(str.strip, code.splitlines()) if len(line) >= 12 and not DEFINES.match(line)}
    shared = [line for line in telling if line in text]
    if telling and len(shared) > most_lines_shared * len(telling):
        return "code_in_instruction"
    return "code_in_instruction" if any(len([line for line in telling if line in fence.code]) > 1 for fence in find_fences(text)) else ""


def code_spans(text: str) -> list[str]:
    """All that is code in a Markdown text: fenced blocks, then inline code, sorted, for a translation must copy it.

    >>> code_spans("Use `f`:\\n```\\nf()\\n```")
    ['`f`', 'f()\\n']
    """
    return sorted([fence.code for fence in find_fences(text)] + INLINE_CODE.findall(prose_of(text)))


def first_of(*faults: str) -> str:
    """The first fault that is one."""
    return next(filter(None, faults), "")


def unfenced(text: str) -> str:
    """A text without the one fence that some models put around all of it, and without white space at its ends."""
    fences: Sequence = find_fences(text)
    bare = text.strip()
    whole = len(fences) == 1 and fences[0].tag in ("", "text", "markdown", "md") and not prose_of(bare).strip()
    return fences[0].code.strip() if whole else bare
