"""Why a peer's row differs from ours: a ladder from our row to the peer's, one cause a rung.

    ours  ->  only the last answer trained  ->  answer and prompt one string  ->  text parsed for control tokens  ->  ...  =  the peer's

Each rung is our own encoding with one more thing done the peer's way. A row's causes are the rungs at which it changed, and they
are believed only if the last rung is the peer's row to the id and the label; otherwise the row is `unexplained`.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, Literal

from peer_rows import IGNORED, REWRITTEN_2023, REWRITTEN_HEAD, IdRow
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from mft.conversation import Conversation, Message
from mft.formats.base import PromptFormat, Segment, joined
from mft.tokenization.encode import encode_prompt, encode_rows
from mft.tokenization.load import TextTokenizer
from mft.tokenization.sections import split_sections

State = tuple[IdRow, ...]
"""The rows of one conversation; none where it was dropped."""
Ladder = Iterator[tuple[str, State]]
Encode = Callable[[Sequence[Segment]], list[int]]

BOUNDARY: Final = "boundary"
CONTROL: Final = "control text"
LEADING: Final = "leading space"
PREFIX: Final = "dummy prefix"
APART: Final = "encoded apart"
CLASS: Final = "tokenizer class"
REWRITTEN: Final = "rewritten text"
LAST_ONLY: Final = "mask: earlier answers untrained"
AFTER_END: Final = "mask: text after the end mark trained"
EVERYTHING: Final = "mask: prompts trained"
UNMARKED: Final = "mask: train marks of the row ignored"
TRUNCATED: Final = "truncated"
DROPPED: Final = "dropped"
UNEXPLAINED: Final = "unexplained"

MEANING: Final = {
    BOUNDARY: "a token runs over the end of the prompt: the ids before the answer are not those that are served",
    CONTROL: "the text of a control token in a message became the token: the data ends or opens a turn",
    LEADING: "a section that starts with a space loses one: the class put another normalizer in place of the file's",
    PREFIX: "a string has a dummy prefix (a space) that the served prompt has not, or lacks the one it has",
    APART: "strings that the served prompt holds as one were encoded apart: no token runs over their ends",
    CLASS: "the class that the folder names gives other ids than its tokenizer.json, beyond the spaces above",
    REWRITTEN: "characters of the data were replaced before it was encoded",
    LAST_ONLY: "the answers before the last one are not trained",
    AFTER_END: "what the format writes after the end mark is trained, which no server waits for",
    EVERYTHING: "system and user text is trained",
    UNMARKED: "an answer, or a part of one, that the row leaves out is trained",
    TRUNCATED: "the row is cut at max_length: an answer without its end mark, or turns that are gone",
    DROPPED: "nothing was left to train after the cut, and the row went without a count",
    UNEXPLAINED: "none of the above",
}


@dataclass(frozen=True, slots=True)
class Setting:
    """A format with a vocabulary, and the same vocabulary as a server has it: `raw` parses text for control tokens."""

    tokenizer: TextTokenizer
    prompt_format: PromptFormat
    raw: Tokenizer

    def ours(self, conversation: Conversation) -> State:
        """The rows of mft."""
        return tuple(IdRow(row.input_ids, row.labels) for row in encode_rows(conversation, self.prompt_format, self.tokenizer))

    def plain(self, segments: Sequence[Segment]) -> list[int]:
        """Ids of segments with each section one string; control tokens only where the format puts them."""
        ids: list[int] = []
        for section in split_sections(segments):
            ids += self.tokenizer.encode_text(section.text) + ([] if section.end is None else [self.tokenizer.control_id(section.end)])
        return ids

    def parsed(self, segments: Sequence[Segment]) -> list[int]:
        """Ids of the text as one string, parsed for control tokens."""
        return self.raw.encode(joined(segments), add_special_tokens=False).ids

    def holds_control_text(self, conversation: Conversation) -> bool:
        """Whether a message contains the text of a control token."""
        return any(token in message.content for message in conversation.messages for token in self.tokenizer.control.values())


def causes(ours: State, peer: State, ladder: Ladder) -> tuple[str, ...]:
    """The rungs at which the row changed, or `unexplained` if they do not lead to the peer's row; none if it is ours."""
    if ours == peer:
        return ()
    found, now = [], ours
    for cause, state in ladder:
        if state != now:
            found.append(cause)
        now = state
    return tuple(found) if now == peer else (UNEXPLAINED,)


def completion_ladder(setting: Setting, conversation: Conversation, auto: PreTrainedTokenizerBase, max_length: int) -> Ladder:
    """To TRL's rows of prompt and completion."""
    *earlier, answer = conversation.messages
    last = replace(conversation, messages=(*(_untrained(message) for message in earlier), Message(answer.role, answer.content)))
    yield LAST_ONLY, setting.ours(last)
    prompt = setting.prompt_format.render_prompt(earlier)
    whole = setting.prompt_format.render(last)
    row = _completion(setting.plain, prompt, whole)
    end = setting.tokenizer.control_id(setting.prompt_format.end_token)
    kept = len(row.labels) - row.labels[::-1].index(end)
    yield BOUNDARY, (IdRow(row.input_ids, row.labels[:kept] + (IGNORED,) * (len(row.labels) - kept)),)
    yield AFTER_END, (row,)
    yield CONTROL, (_completion(setting.parsed, prompt, whole),)
    if (scheme := prepend_scheme(auto)) is not None:
        metaspace = _with_metaspace(setting.raw, scheme)
        cause = LEADING if scheme == "always" else PREFIX
        yield cause, (_completion(lambda segments: metaspace.encode(joined(segments), add_special_tokens=False).ids, prompt, whole),)
    row = _completion(lambda segments: auto(joined(segments), add_special_tokens=False)["input_ids"], prompt, whole)
    yield CLASS, (row,)
    yield from _cut(row, max_length)


def messages_ladder(setting: Setting, conversation: Conversation, max_length: int, *, assistant_only: bool) -> Ladder:
    """To TRL's rows of messages, with a tokenizer that keeps the file's normalizer; with `assistant_only`, by marks in the template."""
    marked = replace(conversation, messages=tuple(Message(message.role, message.content) for message in conversation.messages))
    yield UNMARKED, setting.ours(marked)
    segments = setting.prompt_format.render(marked)
    row = _sections_as_one(setting, segments)
    yield BOUNDARY, (row,)
    if not assistant_only:
        yield EVERYTHING, (IdRow(row.input_ids, row.input_ids),)
    row = _text_as_one(setting, segments)
    row = row if assistant_only else IdRow(row.input_ids, row.input_ids)
    yield CONTROL, (row,)
    yield from _cut(row, max_length)


def mftcoder_ladder(setting: Setting, conversation: Conversation, *, head: bool) -> Ladder:
    """To MFTCoder's rows: those of its last commit for the format `mftcoder`, else those of 2023."""
    table = REWRITTEN_HEAD if head else REWRITTEN_2023
    marked = replace(conversation, messages=tuple(Message(message.role, message.content) for message in conversation.messages))
    yield UNMARKED, setting.ours(marked)
    rewritten = replace(marked, messages=tuple(Message(message.role, message.content.translate(table)) for message in marked.messages))
    yield REWRITTEN, setting.ours(rewritten)
    segments = setting.prompt_format.render(rewritten)
    apart = PREFIX if setting.tokenizer.family == "llama" else APART   # a byte-level vocabulary has no prefix to put
    yield apart, (_pieces(segments, setting.tokenizer.encode_text, setting, each=not head),)
    yield CONTROL, (_pieces(segments, lambda text: setting.raw.encode(text, add_special_tokens=False).ids, setting, each=not head),)


def prepend_scheme(auto: PreTrainedTokenizerBase) -> str | None:
    """How a class that put Metaspace in place of the file's normalizer sets a dummy prefix; None if it did not.

    `always`: before each section that does not start with a space. `first`: before the text alone, not after a control token.
    """
    return getattr(auto.backend_tokenizer.pre_tokenizer, "prepend_scheme", None)


@lru_cache
def _with_metaspace(raw: Tokenizer, scheme: Literal["always", "first"]) -> Tokenizer:
    """The file's vocabulary and merges with Metaspace in place of its normalizer, without transformers."""
    spec = {**json.loads(raw.to_str()), "normalizer": None,
            "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": False}}
    return Tokenizer.from_str(json.dumps(spec))


def served_prompts(setting: Setting, conversation: Conversation) -> list[tuple[list[int], str]]:
    """For each trained answer: the ids of its served prompt, and its text as the format trains it.

    The ids are those of the raw tokenizer for the prompt as one string. Where a message holds control text that would parse it,
    and law 4 wants it as text: then the ids are those that mft serves.
    """
    found = []
    for index, message in enumerate(conversation.messages):
        if message.role == "assistant" and message.train and not message.untrained:
            earlier = conversation.messages[:index]
            text = [section.answer for section in split_sections(setting.prompt_format.render_messages(
                conversation.messages[:index + 1], generate=False)) if section.answer is not None][-1]
            ids = (encode_prompt(earlier, setting.prompt_format, setting.tokenizer) if setting.holds_control_text(conversation)
                   else setting.parsed(setting.prompt_format.render_prompt(earlier)))
            found.append((ids, text))
    return found


def as_served(setting: Setting, prompts: Sequence[tuple[list[int], str]], state: State) -> int:
    """How many of these answers a row trains as served: after the ids of its prompt, its text and end mark, and no more."""
    return sum(any(_trains(setting, ids, text, row) for row in state) for ids, text in prompts)


def _trains(setting: Setting, prompt: list[int], text: str, row: IdRow) -> bool:
    start, end_id = len(prompt), setting.tokenizer.control_id(setting.prompt_format.end_token)
    if list(row.input_ids[:start]) != prompt:
        return False
    end = next((index for index in range(start, len(row.labels)) if row.labels[index] in (end_id, IGNORED)), None)
    if end is None or row.labels[end] == IGNORED or row.labels[end + 1:end + 2] not in ((), (IGNORED,)):
        return False
    return setting.tokenizer.decode_continuation(prompt, row.input_ids[start:end]) == text


def _untrained(message: Message) -> Message:
    return replace(message, train=False, untrained=())


def _completion(encode: Encode, prompt: Sequence[Segment], whole: Sequence[Segment]) -> IdRow:
    """The whole as one, trained from where its ids part from the prompt's."""
    before, ids = encode(prompt), encode(whole)
    same = next((index for index, (one, other) in enumerate(zip(before, ids, strict=False)) if one != other), min(len(before), len(ids)))
    return IdRow(tuple(ids), (IGNORED,) * same + tuple(ids[same:]))


def _sections_as_one(setting: Setting, segments: Sequence[Segment]) -> IdRow:
    """Each section one string, trained from the token that holds an answer's first character; no text is parsed."""
    ids: list[int] = []
    labels: list[int] = []
    for section in split_sections(segments):
        encoding = setting.tokenizer.backend.encode(section.text, add_special_tokens=False)
        first = encoding.char_to_token(len(section.prompt)) if section.train_answer else None
        ids += encoding.ids
        labels += [IGNORED if first is None or index < first else token for index, token in enumerate(encoding.ids)]
        if section.end is not None:
            ids.append(setting.tokenizer.control_id(section.end))
            labels.append(ids[-1] if section.train_end else IGNORED)
    return IdRow(tuple(ids), tuple(labels))


def _text_as_one(setting: Setting, segments: Sequence[Segment]) -> IdRow:
    """The text as one string, parsed; trained are the tokens from that of an answer's first character to that of its end mark's last."""
    encoding = setting.raw.encode(joined(segments), add_special_tokens=False)
    labels = [IGNORED] * len(encoding.ids)
    for start, end in _marked_spans(segments):
        first, last = encoding.char_to_token(start), encoding.char_to_token(end - 1)
        if first is not None and last is not None:   # else the row will not be the peer's, and is reported as unexplained
            labels[first:last + 1] = encoding.ids[first:last + 1]
    return IdRow(tuple(encoding.ids), tuple(labels))


def _marked_spans(segments: Sequence[Segment]) -> list[tuple[int, int]]:
    """The characters of each answer with its end mark, from its first to past its last."""
    spans: list[tuple[int, int]] = []
    position = 0
    for segment in segments:
        end = position + len(segment.text)
        if segment.trainable and segment.text:
            start = spans.pop()[0] if spans and spans[-1][1] == position else position
            spans.append((start, end))
        position = end
    return spans


def _pieces(segments: Sequence[Segment], encode: Callable[[str], list[int]], setting: Setting, *, each: bool) -> IdRow:
    """Strings encoded alone: each text segment, or (`each` false) the text of a section up to its answer, and the answer."""
    ids: list[int] = []
    labels: list[int] = []
    for section in split_sections(segments, segmentwise=each):
        for text, trained in ((section.prompt, False), (section.answer, section.train_answer)):
            piece = encode(text) if text else []
            ids += piece
            labels += piece if trained else [IGNORED] * len(piece)
        if section.end is not None:
            ids.append(setting.tokenizer.control_id(section.end))
            labels.append(ids[-1] if section.train_end else IGNORED)
    return IdRow(tuple(ids), tuple(labels))


def _cut(row: IdRow, max_length: int) -> Ladder:
    cut = IdRow(row.input_ids[:max_length], row.labels[:max_length])
    if any(label != IGNORED for label in cut.labels):
        yield TRUNCATED, (cut,)
    else:
        yield DROPPED, ()
