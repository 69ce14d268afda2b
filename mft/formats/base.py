"""A prompt format: how a conversation becomes text, which of it is trained, and which of it is control.

A format renders to segments. Text segments are ordinary text, encoded as such whatever they contain; control segments
(`<s>`, `</s>`) are single tokens, put in by id. Between two control segments lies a *section*, encoded as one string.

    codefuse, one round:   Segment('<|role_start|>human<|role_end|>')  Segment('2+2?')  Segment('<|role_start|>bot<|role_end|>')
                           Segment('4', trainable=True, answer=True)   Segment('</s>', trainable=True, control=True)
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from mft.conversation import Conversation, Message, Shape, turn_fault
from mft.errors import FormatError

EXPLANATIONS: Final[Mapping[str, str]] = {
    "no_messages": "there is no message",
    "system_not_first": "a system message stands after another message; it may only be the first",
    "assistant_first": "the assistant speaks before the user; the first turn must be the user's",
    "repeated_role": "two turns in a row have the same role; user and assistant must take turns",
    "empty_message": "a user or assistant message has no text",
    "last_not_user": "the last message of a prompt must be the user's",
    "no_answer": "the last message must be the assistant's, or there is nothing to train",
    "nothing_trained": "every assistant message has train: false",
    "role_tag_in_text": "a message contains a role tag, which would open a turn",
    "control_text": "a message contains the text of a control token, and this format's text is parsed for them",
    "not_a_text": "the row is not one text (an assistant message alone), and this format knows no turns",
    "not_an_infill": "the row is not prefix, suffix and middle (user, user, assistant)",
    "template_refuses": "the tokenizer's own chat template does not take this conversation",
    "no_system_slot": "there is a system message, and this format has no place for one",
}
"""The reasons of `PromptFormat.fault`, in words."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a rendered conversation.

    `trainable`: its tokens are trained. `control`: one token, inserted by id. `answer`: an assistant's turn begins
    here, so the ids before it must be those of the served prompt (law 3), whether it is trained or not. `token` is the
    control token where `text` is more than that: CodeLlama-70B's `<step>` takes in the spaces on both sides of it.
    """

    text: str
    trainable: bool = False
    control: bool = False
    answer: bool = False
    token: str = ""

    @property
    def control_token(self) -> str:
        """The token to insert by id."""
        return self.token or self.text


class PromptFormat(ABC):
    """The bytes of one prompt format for a tokenizer with these `bos` and `eos` tokens.

    `control` maps each control token of the vocabulary to the regular expression by which a server finds it in text (with
    the spaces around it, where the token takes them in); only formats whose text is parsed for control tokens need it.
    """

    name: str
    uses_bos: bool = False
    segmentwise: bool = False
    """True only for the encoding that repeats the 2023 CodeFuse run: each segment is encoded alone."""
    row_per_turn: bool = False
    """The history is written otherwise than the prompt, so that one row can train one assistant turn only (law 3)."""
    shape: Shape = "chat"
    """The rows that it renders."""
    stop_strings: tuple[str, ...] = ()
    """Text that a model which runs on would write next; generation stops there too."""
    tags: tuple[str, ...] = ()
    """Role tags made of ordinary text. A message that contains one would open a turn (law 4)."""
    spec: Mapping[str, Any] | None = None
    """What a user's YAML says; None for the formats that have a name of their own."""

    def __init__(self, bos: str = "<s>", eos: str = "</s>", control: Mapping[str, str] | None = None) -> None:
        self.bos = bos
        self.eos = eos
        self.control = dict(control or {})

    @property
    def end_token(self) -> str:
        """The control token that ends an answer: the tokenizer's eos, unless the format names another."""
        return self.eos

    @property
    def stop_tokens(self) -> tuple[str, ...]:
        """The control tokens at which generation stops."""
        return tuple(dict.fromkeys([self.end_token, self.eos]))

    @property
    def required_tokens(self) -> tuple[str, ...]:
        """Control tokens that the vocabulary must have, as one id each."""
        return (*((self.bos,) if self.uses_bos else ()), self.end_token)

    @property
    def reference(self) -> str | dict[str, Any]:
        """What `formats.get` makes this format from: its name, or what the user's YAML says."""
        return self.name if self.spec is None else dict(self.spec)

    @abstractmethod
    def render_messages(self, messages: Sequence[Message], *, generate: bool) -> list[Segment]:
        """Segments of the messages; with `generate`, followed by the prompt of the assistant's next turn."""

    @abstractmethod
    def chat_template(self) -> str:
        """A Jinja template that renders the same bytes through `apply_chat_template` of transformers."""

    def canonical(self, answer: str) -> str:
        """The text of an answer as this format trains it (some formats strip)."""
        return answer

    def answer_segments(self, message: Message, *, lead: str = "", tail: str = "") -> list[Segment]:
        """The answer of an assistant's message, cut where `untrained` spans begin and end; `lead` and `tail` stand around it.

        >>> from mft.formats.registry import get
        >>> [(s.text, s.trainable) for s in get("codefuse").answer_segments(Message("assistant", "ab cd", untrained=((0, 2),)))]
        [('ab', False), (' cd', True)]
        """
        text = self.canonical(message.content)
        if not message.untrained:
            first = [Segment(lead, message.train, answer=True)] if lead else []
            return [*first, Segment(text + tail, message.train, answer=not lead)]
        shift = message.content.index(text)
        cuts = [(max(0, start - shift), min(len(text), end - shift)) for start, end in sorted(message.untrained)]
        segments = [Segment(lead, message.train)] if lead else []
        done = 0
        for start, end in cuts:
            segments += [Segment(text[done:start], message.train)] if start > done else []
            segments += [Segment(text[max(start, done):end])] if end > max(start, done) else []
            done = max(done, end)
        segments += [Segment(text[done:] + tail, message.train)] if text[done:] + tail or not segments else []
        return [replace(segments[0], answer=True), *segments[1:]]

    def render(self, conversation: Conversation) -> list[Segment]:
        """Segments of a whole conversation, to be trained. With `row_per_turn`: of the row that trains its last answer.

        Raises:
            FormatError: the turns do not follow each other as this format needs, or a message contains a role tag.
        """
        self._check(conversation.messages, prompt=False, where=conversation.id)
        return self.render_messages(conversation.messages, generate=False)

    def render_prompt(self, messages: Sequence[Message]) -> list[Segment]:
        """Segments that end where the assistant's next turn begins.

        Raises:
            FormatError: as `render`, or the last message is not the user's.
        """
        self._check(tuple(messages), prompt=True, where="prompt")
        return self.render_messages(messages, generate=True)

    def fault(self, messages: tuple[Message, ...], *, prompt: bool = False) -> str | None:
        """Why this format cannot render the messages, as a reason to count, or None. Adds `role_tag_in_text` to `turn_fault`."""
        if self.shape == "chat" and (reason := turn_fault(messages, prompt=prompt)):
            return reason
        if any(tag in message.content for message in messages for tag in self.tags):
            return "role_tag_in_text"
        return None

    def _check(self, messages: tuple[Message, ...], *, prompt: bool, where: str) -> None:
        if reason := self.fault(messages, prompt=prompt):
            meaning = EXPLANATIONS[reason] + (f" ({' or '.join(self.tags)})" if reason == "role_tag_in_text" else "")
            raise FormatError(f"{where}: format '{self.name}' cannot render this ({reason}): {meaning}")


def joined(segments: Sequence[Segment]) -> str:
    """The text of segments laid end to end: what a server would send as one string."""
    return "".join(segment.text for segment in segments)
