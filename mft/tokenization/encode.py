"""Conversations to ids and labels: the one place where the mask is made.

A *section* is the text between two control tokens; it is one string to the tokenizer. Where an answer begins inside a
section, its ids are ids(prompt) + continuation(answer), so that the ids before an answer are those of the served prompt:

    section  <|role_start|>human<|role_end|>2+2?<|role_start|>bot<|role_end|> | 4        then </s>, by id
    labels   -100 ...                                                     -100 | 29946         2

A later prompt holds the same section as history, encoded as one string. When its tokens then run over the boundary
(codefuse: an answer that begins with one of `" & ' ( ) , . / : ; < = > [ \\ ` {`), no single row can match both prompts.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from mft.conversation import Conversation, Message, Span
from mft.errors import DataError, FormatError
from mft.formats.base import PromptFormat, Segment

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
class EncodedRow:
    """A sample and the whole text that was rendered for it."""

    sample: TokenizedSample
    text: str


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


def encode(conversation: Conversation, prompt_format: PromptFormat, tokenizer: "TextTokenizer", task_id: int = 0) -> TokenizedSample:
    """One row that trains every trainable answer.

    Each answer is ids(prompt of its section) + continuation. Where an earlier answer's tokens would have run over its
    boundary, a server's history has other ids there than this row; `encode_rows` then gives a row for each turn.

    Raises:
        FormatError: the format cannot render the conversation, or needs a row for each of its answers (`encode_rows`).
        DataError: a message holds what this vocabulary cannot say (TEXT_FAULTS).
        TokenizerError: the format's control tokens are not in this vocabulary.
    """
    plans = _plans_of(conversation, prompt_format, tokenizer)
    if len(plans) > 1:
        raise FormatError(f"{conversation.id}: format '{prompt_format.name}' trains one row per assistant turn, and {len(plans)} are to be "
                          "trained here; use encode_rows")
    sections = plans[0].sections
    trained = [index for index, section in enumerate(sections) if section.train_answer]
    return _row(sections, trained, _texts([sections], tokenizer), tokenizer, task_id, plans[0].name).sample


def encode_rows(conversation: Conversation, prompt_format: PromptFormat, tokenizer: "TextTokenizer",
                task_id: int = 0) -> list[TokenizedSample]:
    """The rows that train a conversation so that each answer sees the ids a server would give (law 3).

    One row when that is possible. When the format needs a row per turn (codellama70b), or the tokens of a trained answer
    that is not the last would run over its boundary: one row per trained answer, `id#k` for the k-th assistant turn, which
    ends there and trains that answer alone. Either way each trainable answer is trained once. `codefuse_2023` always gives one row.

    Raises:
        As `encode`.
    """
    return [row.sample for row in encode_many([conversation], prompt_format, tokenizer, [task_id])[0]]


def encode_many(conversations: Sequence[Conversation], prompt_format: PromptFormat, tokenizer: "TextTokenizer",
                task_ids: Sequence[int]) -> list[list[EncodedRow]]:
    """`encode_rows` of many conversations, with the text of each row; the tokenizer is called for all of them at once."""
    plans = [_plans_of(conversation, prompt_format, tokenizer) for conversation in conversations]
    texts = _texts([plan.sections for own in plans for plan in own], tokenizer)
    return [[row for plan in own for row in _rows(plan.sections, texts, tokenizer, task_id, plan.name)]
            for own, task_id in zip(plans, task_ids, strict=True)]


def encode_prompt(messages: Sequence[Message], prompt_format: PromptFormat, tokenizer: "TextTokenizer") -> list[int]:
    """The ids of a prompt as they are served: each section one string, whatever the format does in training.

    Raises:
        As `encode`.
    """
    _refuse_text_faults(messages, tokenizer, "prompt", prompt=True)
    ids: list[int] = []
    for section in split_sections(prompt_format.render_prompt(messages)):
        ids += tokenizer.encode_text(section.text)
        if section.end is not None:
            ids.append(tokenizer.control_id(section.end))
    return ids


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
    try:
        content.encode()
    except UnicodeEncodeError:
        return "half_surrogate"
    return "space_mark" if tokenizer.family == "llama" and "▁" in content else None


def _refuse_text_faults(messages: Sequence[Message], tokenizer: "TextTokenizer", where: str, *, prompt: bool = False) -> None:
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
        text = "".join(segment.text for segment in answer)
        # A span may leave out all of an answer; its end mark still tells that it is trained.
        trained = bool(end and end.trainable) or any(segment.trainable for segment in answer)
        sections.append(Section(
            prompt="".join(prompt), answer=text if answer else None, end=end.control_token if end else None,
            train_answer=bool(answer) and trained, train_end=bool(end and end.trainable),
            untrained=_untrained_spans(answer) if trained else (), end_text=end.text if end else ""))
        prompt.clear()
        answer.clear()

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


@dataclass(frozen=True, slots=True)
class _Plan:
    """The sections of one row, or of the rows that `_rows` makes of them, and its name."""

    sections: list[Section]
    name: str


def _plans_of(conversation: Conversation, prompt_format: PromptFormat, tokenizer: "TextTokenizer") -> list[_Plan]:
    _refuse_text_faults(conversation.messages, tokenizer, conversation.id)
    segments = prompt_format.render(conversation)
    if not prompt_format.row_per_turn:
        return [_Plan(split_sections(segments, segmentwise=prompt_format.segmentwise), conversation.id)]
    messages = conversation.messages
    answers = [index for index, message in enumerate(messages) if message.role == "assistant"]
    names = [f"{conversation.id}#{number}" if len(answers) > 1 else conversation.id for number in range(1, len(answers) + 1)]
    return [_Plan(split_sections(prompt_format.render_messages(messages[:index + 1], generate=False)), name)
            for index, name in zip(answers, names, strict=True) if messages[index].train]


@dataclass(frozen=True, slots=True)
class _Texts:
    """Ids of the strings that a batch of conversations needs: as a section, and as the continuation of one."""

    sections: Mapping[str, list[int]]
    continuations: Mapping[str, list[int]]

    def answer(self, section: Section) -> tuple[list[int], list[int]]:
        """Ids of the prompt and of the answer of a section, as they are trained."""
        assert section.answer is not None
        if not section.prompt:
            return [], self.sections[section.answer]
        return self.sections[section.prompt], self.continuations[section.answer]

    def crosses(self, section: Section) -> bool:
        """Whether the section as one string has other ids than its prompt and its answer."""
        prompt, answer = self.answer(section)
        return self.sections[section.text] != prompt + answer


def _texts(plans: Sequence[Sequence[Section]], tokenizer: "TextTokenizer") -> _Texts:
    """Encode every string of these plans once. An answer that others follow is also needed as history, with its prompt."""
    whole: dict[str, None] = {}
    after: dict[str, None] = {}
    for sections in plans:
        last = max(index for index, section in enumerate(sections) if section.answer is not None)
        for index, section in enumerate(sections):
            if section.answer is not None and section.prompt:
                whole[section.prompt] = after[section.answer] = None
            if index != last or not section.prompt:
                whole[section.text] = None
    return _Texts(dict(zip(whole, tokenizer.encode_texts(list(whole)), strict=True)),
                  dict(zip(after, tokenizer.encode_continuations(list(after)), strict=True)))


def _rows(sections: list[Section], texts: _Texts, tokenizer: "TextTokenizer", task_id: int, name: str) -> Iterator[EncodedRow]:
    answers = [index for index, section in enumerate(sections) if section.answer is not None]
    trained = [index for index in answers if sections[index].train_answer]
    if not any(texts.crosses(sections[index]) for index in trained if index != answers[-1]):
        yield _row(sections, trained, texts, tokenizer, task_id, name)
        return
    for number, index in enumerate(answers, 1):
        if sections[index].train_answer:
            yield _row(sections[:index + 1], [index], texts, tokenizer, task_id, f"{name}#{number}")


def _row(sections: list[Section], trained: Sequence[int], texts: _Texts, tokenizer: "TextTokenizer", task_id: int,
         name: str) -> EncodedRow:
    """Lay sections end to end. A trained one is prompt and continuation; any other is one string, as a server's history."""
    input_ids: list[int] = []
    labels: list[int] = []
    for index, section in enumerate(sections):
        train = index in trained
        if train or (index == len(sections) - 1 and section.answer is not None):
            prompt, answer = texts.answer(section)
        else:
            prompt, answer = texts.sections[section.text], []
        input_ids += prompt + answer
        labels += [IGNORE_INDEX] * len(prompt) + (_labels(section, answer, tokenizer) if train else [IGNORE_INDEX] * len(answer))
        if section.end is not None:
            end = tokenizer.control_id(section.end)
            input_ids.append(end)
            labels.append(end if train and section.train_end else IGNORE_INDEX)
    labels[0] = IGNORE_INDEX   # no left neighbour to be predicted from (a text without BOS)
    sample = TokenizedSample(tuple(input_ids), tuple(labels), task_id, name)
    assert sample.trained_tokens > 0, "a row must train something"
    return EncodedRow(sample, "".join(section.text + section.end_text for section in sections))


def _labels(section: Section, answer: list[int], tokenizer: "TextTokenizer") -> list[int]:
    """The labels of a trained answer: its ids, but for the tokens that hold a character of an untrained span."""
    if not section.untrained or section.answer is None:
        return answer
    position = [0, *accumulate(len(character.encode()) for character in section.answer)]
    left_out = [(position[start], position[end]) for start, end in section.untrained]
    edges = tokenizer.byte_edges(answer, section_start=not section.prompt)
    return [IGNORE_INDEX if any(first < end and start < last for start, end in left_out) else token
            for token, first, last in zip(answer, edges, edges[1:], strict=False)]
