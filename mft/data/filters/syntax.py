"""`syntax`: code in answers parses."""

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from mft.conversation import Conversation, Message
from mft.data.filters.config import CodeLanguage, SyntaxStep
from mft.data.filters.fences import find_fences
from mft.data.filters.grammars import TAGS, parses
from mft.data.verdict import KEEP, RowStep, Verdict, drop


class Syntax(RowStep):
    """`unclosed_fence`: a fence of a trained answer has no end. `syntax_error`: a fenced block, or the answer, does not parse.

    Blocks without a tag, or with one that is no language of `TAGS`, are not judged; the report counts blocks by language or tag.
    """

    def __init__(self, config: SyntaxStep) -> None:
        self.config = config
        self._judged: Counter[str] = Counter()
        self._not_judged: Counter[str] = Counter()

    def judge(self, row: Conversation) -> Verdict:
        for before, answer in pairwise([Message("system", ""), *row.messages]):
            if answer.role != "assistant" or not answer.train:
                continue
            fences = find_fences(answer.content)
            if any(not fence.closed for fence in fences):
                return drop("unclosed_fence")
            if not fences and self.config.answers is not None:
                self._judged[self.config.answers] += 1
                if not any(parses(code, self.config.answers) for code in self._whole(before, answer)):
                    return drop("syntax_error", f"the answer is no {self.config.answers}")
            for number, fence in enumerate(fences, start=1):
                if (language := self._language(fence.tag)) and not parses(fence.code, language):
                    return drop("syntax_error", f"fence {number} is no {language}")
        return KEEP

    def report(self) -> dict[str, dict[str, int]]:
        """`judged`: fenced blocks and whole answers by language. `not_judged`: fenced blocks by tag."""
        return {"judged": dict(sorted(self._judged.items())), "not_judged": dict(sorted(self._not_judged.items()))}

    def _language(self, tag: str) -> CodeLanguage | None:
        language = TAGS.get(tag)
        counts, name = (self._judged, language) if language else (self._not_judged, tag)
        counts[name] += 1
        return language

    def _whole(self, before: Message, answer: Message) -> Iterator[str]:
        """The code that an answer without a fence stands for; any one of the readings may parse."""
        if not self.config.joined:
            yield answer.content
            return
        for prefix in _prefixes(before):
            yield f"{prefix}\n{answer.content}"
            yield prefix + answer.content


def _prefixes(message: Message) -> Iterator[str]:
    """The code of a user's message that an answer goes on with: its last fence, its input, what follows its first line, or all of it."""
    if message.role != "user":
        yield ""
        return
    if fences := find_fences(message.content):
        yield fences[-1].code.rstrip("\n")
    if message.input_start is not None:
        yield message.content[message.input_start:]
    yield message.content.partition("\n")[2]
    yield message.content
