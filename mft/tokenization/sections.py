"""What is encoded as one string: the sections of a rendered conversation, and what no vocabulary can say.

A *section* is the text between two control tokens. Where an answer begins inside one, its ids are ids(prompt) +
continuation(answer), so that the ids before an answer are those of the served prompt:

    section  <|role_start|>human<|role_end|>2+2?<|role_start|>bot<|role_end|> | 4        then </s>, by id
    labels   -100 ...                                                     -100 | 29946         2
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from mft.conversation import Message, Span
from mft.errors import DataError
from mft.formats.base import PromptFormat, Segment

if TYPE_CHECKING:
    from mft.tokenization.load import TextTokenizer


@dataclass(frozen=True, slots=True)
class Section:
    """Text up to an answer, the answer if there is one, and the control token that closes them if there is one.

    `untrained`: spans of a trained answer that are left out. `end_text`: how the closing token stands in the row's text.
    """

    prompt: str
    answer: str | None = None
    end: str | None = None
    train_answer: bool = False
    train_end: bool = False
    untrained: tuple[Span, ...] = ()
    end_text: str = ""

    @property
    def text(self) -> str:
        return self.prompt + (self.answer or "")


TEXT_FAULTS: Final[Mapping[str, str]] = {
    "half_surrogate": "holds half a surrogate pair (such as \\ud800), which is not text; remove it",
    "space_mark": "holds U+2581 '▁', with which this vocabulary writes a space: its ids would say a space; replace it",
}
"""Reasons, beside those of `PromptFormat.fault`, why a row is not encoded."""


def encoding_fault(messages: Sequence[Message], prompt_format: PromptFormat, tokenizer: "TextTokenizer") -> str | None:
    """Why these messages cannot become a training row, as a reason to count, or None: the format's, or one of TEXT_FAULTS."""
    reasons = (_text_fault(message.content, tokenizer) for message in messages)
    return next((reason for reason in reasons if reason), None) or prompt_format.fault(tuple(messages))


def _text_fault(content: str, tokenizer: "TextTokenizer") -> str | None:
    if content.isascii():
        return None
    try:
        content.encode()
    except UnicodeEncodeError:
        return "half_surrogate"
    return "space_mark" if tokenizer.family == "llama" and "▁" in content else None


def refuse_text_faults(messages: Sequence[Message], tokenizer: "TextTokenizer", where: str, *, prompt: bool = False) -> None:
    """Raise DataError for content that has no ids of its own. A prompt with U+2581 is served, as any server would."""
    for number, message in enumerate(messages, 1):
        reason = _text_fault(message.content, tokenizer)
        if reason and not (prompt and reason == "space_mark"):
            raise DataError(f"{where}: message {number} {TEXT_FAULTS[reason]}")


def split_sections(segments: Sequence[Segment], *, segmentwise: bool = False) -> list[Section]:
    """Segments as sections; `segmentwise` makes each text segment one of its own."""
    sections: list[Section] = []
    prompt: list[str] = []
    answer: list[Segment] = []

    def close(end: Segment | None) -> None:
        token, end_text, train_end = (end.control_token, end.text, end.trainable) if end else (None, "", False)
        if answer:
            # A span may leave out all of an answer; its end mark still tells that it is trained.
            trained = train_end or any(segment.trainable for segment in answer)
            plain = not trained or (len(answer) == 1 and answer[0].trainable)
            sections.append(Section("".join(prompt), "".join(segment.text for segment in answer), token, trained, train_end,
                                    () if plain else _untrained_spans(answer), end_text))
            answer.clear()
        else:
            sections.append(Section("".join(prompt), None, token, False, train_end, (), end_text))
        prompt.clear()

    for segment in segments:
        if segmentwise and not segment.control and (prompt or answer):
            close(None)
        if segment.control:
            close(segment)
        elif answer or segment.answer:
            answer.append(segment)
        else:
            prompt.append(segment.text)
    if prompt or answer:
        close(None)
    return sections


def _untrained_spans(answer: Sequence[Segment]) -> tuple[Span, ...]:
    """The spans of an answer's text that are not trained."""
    ends = [0, *accumulate(len(segment.text) for segment in answer)]
    return tuple((start, end) for segment, start, end in zip(answer, ends, ends[1:], strict=False) if not segment.trainable and end > start)
