"""Conversations to ids and labels: the one place where the mask is made.

A row is its sections laid end to end (mft/tokenization/sections.py). A later prompt holds the same section as history, encoded
as one string. When its tokens then run over the boundary (codefuse: an answer that begins with one of `" & ' ( ) , . / : ; < = >
[ \\ ` {`), no single row can match both prompts.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Final

import numpy as np

from mft.conversation import Conversation, Message, Span
from mft.errors import FormatError
from mft.formats.base import PromptFormat, Segment
from mft.tokenization.sections import Section, refuse_text_faults, split_sections

if TYPE_CHECKING:
    from mft.tokenization.load import TextTokenizer

IGNORE_INDEX: Final = -100
"""The label of a token that is not trained."""


@dataclass(frozen=True, slots=True)
class TokenizedSample:
    """One row as token ids. `labels[i]` is `input_ids[i]` where trained, else IGNORE_INDEX.

    `id` is the conversation's, with `#k` when the row trains its k-th assistant turn alone.
    """

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    task_id: int
    id: str = ""

    def __post_init__(self) -> None:
        if len(self.input_ids) != len(self.labels):
            raise ValueError(f"{len(self.input_ids)} input_ids but {len(self.labels)} labels")

    @property
    def trained_tokens(self) -> int:
        """How many tokens are trained."""
        return len(self.labels) - self.labels.count(IGNORE_INDEX)


@dataclass(frozen=True, slots=True)
class IdRow:
    """A row as it is stored: `ids`, little-endian whole numbers of the tokenizer's `id_type`; `spans`, [start, end) of the tokens
    that are trained; the sections that it was made from."""

    ids: bytes
    spans: tuple[Span, ...]
    tokens: int
    name: str
    sections: Sequence[Section]

    @property
    def text(self) -> str:
        """All that was rendered for the row."""
        return "".join(section.text + section.end_text for section in self.sections)

    def sample(self, task_id: int, id_type: "np.dtype[np.unsignedinteger]") -> TokenizedSample:
        """The row with a label for each token."""
        ids = np.frombuffer(self.ids, dtype=id_type).tolist()
        labels = [IGNORE_INDEX] * len(ids)
        for start, end in self.spans:
            labels[start:end] = ids[start:end]
        return TokenizedSample(tuple(ids), tuple(labels), task_id, self.name)


def encode(conversation: Conversation, prompt_format: PromptFormat, tokenizer: "TextTokenizer", task_id: int = 0) -> TokenizedSample:
    """One row that trains every trainable answer.

    Each answer is ids(prompt of its section) + continuation. Where an earlier answer's tokens would have run over its
    boundary, a server's history has other ids there than this row; `encode_rows` then gives a row for each turn.

    Raises:
        FormatError: the format cannot render the conversation, or needs a row for each of its answers (`encode_rows`).
        DataError: a message holds what this vocabulary cannot say (TEXT_FAULTS).
        TokenizerError: the format's control tokens are not in this vocabulary.
    """
    refuse_text_faults(conversation.messages, tokenizer, conversation.id)
    prompt_format.render(conversation)
    plans = _plans_of(conversation, prompt_format)
    if len(plans) > 1:
        raise FormatError(f"{conversation.id}: format '{prompt_format.name}' trains one row per assistant turn, and {len(plans)} are to be "
                          "trained here; use encode_rows")
    sections, name = plans[0].sections, plans[0].name
    trained = [index for index, section in enumerate(sections) if section.train_answer]
    return _row(sections, trained, _texts([sections], tokenizer), tokenizer, name).sample(task_id, tokenizer.id_type)


def encode_rows(conversation: Conversation, prompt_format: PromptFormat, tokenizer: "TextTokenizer",
                task_id: int = 0) -> list[TokenizedSample]:
    """The rows that train a conversation so that each answer sees the ids a server would give (law 3).

    One row when that is possible. When the format needs a row per turn (codellama70b), or the tokens of a trained answer
    that is not the last would run over its boundary: one row per trained answer, `id#k` for the k-th assistant turn, which
    ends there and trains that answer alone. Either way each trainable answer is trained once. `codefuse_2023` always gives one row.

    Raises:
        As `encode`.
    """
    refuse_text_faults(conversation.messages, tokenizer, conversation.id)
    prompt_format.render(conversation)
    return [row.sample(task_id, tokenizer.id_type) for row in encode_many([conversation], prompt_format, tokenizer)[0]]


def encode_many(conversations: Sequence[Conversation], prompt_format: PromptFormat, tokenizer: "TextTokenizer") -> list[list[IdRow]]:
    """The rows of `encode_rows` for many conversations that have no fault; the tokenizer is called for all of them at once."""
    plans = [_plans_of(conversation, prompt_format) for conversation in conversations]
    texts = _texts([plan.sections for own in plans for plan in own], tokenizer)
    return [[row for plan in own for row in _rows(plan.sections, texts, tokenizer, plan.name)] for own in plans]


def encode_prompt(messages: Sequence[Message], prompt_format: PromptFormat, tokenizer: "TextTokenizer", *, prefill: str = "") -> list[int]:
    """The ids of a prompt as they are served: each section one string, whatever the format does in training.

    `prefill`: text that the answer begins with, encoded as a server encodes it behind the prompt, in one string with its last section.

    Raises:
        As `encode`.
    """
    refuse_text_faults(messages, tokenizer, "prompt", prompt=True)
    ids: list[int] = []
    for section in split_sections([*prompt_format.render_prompt(messages), *([Segment(prefill)] if prefill else [])]):
        ids += tokenizer.encode_text(section.text)
        if section.end is not None:
            ids.append(tokenizer.control_id(section.end))
    return ids


@dataclass(frozen=True, slots=True)
class _Plan:
    """The sections of one row, or of the rows that `_rows` makes of them, and its name."""

    sections: list[Section]
    name: str


def _plans_of(conversation: Conversation, prompt_format: PromptFormat) -> list[_Plan]:
    messages = conversation.messages
    if not prompt_format.row_per_turn:
        segments = prompt_format.render_messages(messages, generate=False)
        return [_Plan(split_sections(segments, segmentwise=prompt_format.segmentwise), conversation.id)]
    answers = [index for index, message in enumerate(messages) if message.role == "assistant"]
    names = [f"{conversation.id}#{number}" if len(answers) > 1 else conversation.id for number in range(1, len(answers) + 1)]
    return [_Plan(split_sections(prompt_format.render_messages(messages[:index + 1], generate=False)), name)
            for index, name in zip(answers, names, strict=True) if messages[index].train]


@dataclass(frozen=True, slots=True)
class _Texts:
    """Ids of the strings that a batch of conversations needs: as a section, and as the continuation of one."""

    sections: Mapping[str, bytes]
    continuations: Mapping[str, bytes]

    def answer(self, section: Section) -> tuple[bytes, bytes]:
        """Ids of the prompt and of the answer of a section, as they are trained."""
        assert section.answer is not None
        if not section.prompt:
            return b"", self.sections[section.answer]
        return self.sections[section.prompt], self.continuations[section.answer]

    def whole(self, section: Section) -> bytes:
        """Ids of the section as one string."""
        return self.sections[section.text] if section.text in self.sections else b"".join(self.answer(section))

    def crosses(self, section: Section) -> bool:
        """Whether the section as one string has other ids than its prompt and its answer."""
        return section.text in self.sections and self.sections[section.text] != b"".join(self.answer(section))


def _texts(plans: Sequence[Sequence[Section]], tokenizer: "TextTokenizer") -> _Texts:
    """Encode every string of these plans once. An answer that others follow is also needed as history, with its prompt,
    but where the vocabulary proves that its ids are those of the two."""
    whole: dict[str, None] = {}
    after: dict[str, None] = {}
    for sections in plans:
        last = max(index for index, section in enumerate(sections) if section.answer is not None)
        for index, section in enumerate(sections):
            if section.answer is not None and section.prompt:
                whole[section.prompt] = after[section.answer] = None
            if index != last and section.answer and tokenizer.never_joins(section.prompt, section.answer):
                continue
            if index != last or not section.prompt:
                whole[section.text] = None
    return _Texts(dict(zip(whole, tokenizer.section_bytes(list(whole)), strict=True)),
                  dict(zip(after, tokenizer.continuation_bytes(list(after)), strict=True)))


def _rows(sections: list[Section], texts: _Texts, tokenizer: "TextTokenizer", name: str) -> Iterator[IdRow]:
    answers = [index for index, section in enumerate(sections) if section.answer is not None]
    trained = [index for index in answers if sections[index].train_answer]
    if not any(texts.crosses(sections[index]) for index in trained if index != answers[-1]):
        yield _row(sections, trained, texts, tokenizer, name)
        return
    for number, index in enumerate(answers, 1):
        if sections[index].train_answer:
            yield _row(sections[:index + 1], [index], texts, tokenizer, f"{name}#{number}")


def _row(sections: list[Section], trained: Sequence[int], texts: _Texts, tokenizer: "TextTokenizer", name: str) -> IdRow:
    """Lay sections end to end. A trained one is prompt and continuation; any other is one string, as a server's history."""
    size, last = tokenizer.id_type.itemsize, len(sections) - 1
    parts: list[bytes] = []
    spans: list[Span] = []
    at = 0
    for index, section in enumerate(sections):
        train = index in trained
        if train or (index == last and section.answer is not None):
            prompt, answer = texts.answer(section)
        else:
            prompt, answer = texts.whole(section), b""
        start = at + len(prompt) // size
        at = start + len(answer) // size
        parts += (prompt, answer)
        if train:
            spans += [(start + first, start + end) for first, end in _trained_runs(section, answer, tokenizer)]
        if section.end is not None:
            parts.append(tokenizer.control_bytes(section.end))
            if train and section.train_end:
                spans.append((at, at + 1))
            at += 1
    joined = _joined_spans(spans)
    assert joined, "a row must train something"
    return IdRow(b"".join(parts), joined, at, name, sections)


def _trained_runs(section: Section, answer: bytes, tokenizer: "TextTokenizer") -> list[Span]:
    """Runs of a trained answer's tokens: all of them, but for those that hold a character of an untrained span."""
    if not section.untrained or section.answer is None:
        return [(0, len(answer) // tokenizer.id_type.itemsize)]
    position = [0, *accumulate(len(character.encode()) for character in section.answer)]
    left_out = [(position[start], position[end]) for start, end in section.untrained]
    edges = tokenizer.byte_edges(np.frombuffer(answer, dtype=tokenizer.id_type).tolist(), section_start=not section.prompt)
    return [(index, index + 1) for index, (first, last) in enumerate(pairwise(edges))
            if not any(first < end and start < last for start, end in left_out)]


def _joined_spans(spans: Sequence[Span]) -> tuple[Span, ...]:
    """Neighbouring spans as one; the first token of a row is never trained, since nothing stands before it (a text without BOS)."""
    out: list[Span] = []
    for start, end in spans:
        first = max(start, 1)
        if first >= end:
            continue
        if out and out[-1][1] == first:
            out[-1] = (out[-1][0], end)
        else:
            out.append((first, end))
    return tuple(out)
