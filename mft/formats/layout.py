"""A chat format as a table: what stands before and after the content of each role.

    codefuse    system  <|role_start|>system<|role_end|> ...     user  <|role_start|>human<|role_end|> ...
                assistant  <|role_start|>bot<|role_end|> ... {eos}

In the strings of a layout `{bos}` and `{eos}` stand for those tokens of the tokenizer, and the tokens of `control` for
themselves; all of these are put in by id. Everything else is ordinary text.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from mft.conversation import Message
from mft.formats.base import PromptFormat, Segment
from mft.formats.layout_template import layout_template

SystemPlace = Literal["turn", "first_user", "preamble", "none"]
BOS: Final = "{bos}"
EOS: Final = "{eos}"


@dataclass(frozen=True, slots=True)
class Around:
    """The text before and after a content. With `unless_ended` the text after is left out where the content ends in it."""

    before: str = ""
    after: str = ""
    unless_ended: bool = False

    def after_of(self, content: str) -> str:
        """The text that follows this content."""
        return "" if self.unless_ended and content.endswith(self.after) else self.after


@dataclass(frozen=True, slots=True)
class Layout:
    """The table of a chat format.

    `system_place`: `turn`, a turn of its own; `first_user`, inside the first user's turn, before its content; `preamble`, in
    place of the preamble; `none`, refused. `lead`, `tail`: text of the answer before and after its content, trained like it.
    `end`: the control token that ends an answer, trained; `then`: untrained text after it. `input`: what stands between an
    instruction and its input (without it they are joined as they came, by a newline). `strip`: contents lose the space around
    them. `control`: the control tokens, beside bos and eos, that stand in these strings.
    """

    user: Around
    assistant: str
    end: str = EOS
    system: Around = Around()
    system_place: SystemPlace = "turn"
    start: str = ""
    preamble: str = ""
    preamble_with_input: str = ""
    input: str | None = None
    lead: str = ""
    tail: str = ""
    then: str = ""
    strip: bool = False
    control: tuple[str, ...] = ()


class LayoutFormat(PromptFormat):
    """A format that is nothing but its layout."""

    layout: Layout

    def __init__(self, bos: str = "<s>", eos: str = "</s>", control: Mapping[str, str] | None = None) -> None:
        super().__init__(bos, eos, control)
        self._cut: dict[str, tuple[Segment, ...]] = {}

    @property
    def end_token(self) -> str:
        return self._fill(self.layout.end)

    @property
    def required_tokens(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*super().required_tokens, *self.layout.control]))

    def fault(self, messages: tuple[Message, ...], *, prompt: bool = False) -> str | None:
        reason = super().fault(messages, prompt=prompt)
        if reason is None and self.layout.system_place == "none" and messages[0].role == "system":
            return "no_system_slot"
        return reason

    def canonical(self, answer: str) -> str:
        return answer.strip() if self.layout.strip else answer

    def render_messages(self, messages: Sequence[Message], *, generate: bool) -> list[Segment]:
        layout = self.layout
        system = messages[0] if messages[0].role == "system" else None
        turns = messages[1:] if system else messages
        out = self._pieces(layout.start) + self._opening(system, turns[0])
        for number, message in enumerate(turns):
            if message.role == "user":
                content = self._user_content(message, system if number == 0 else None)
                out += [*self._pieces(layout.user.before), Segment(content), *self._pieces(layout.user.after_of(content))]
            else:
                out += self._pieces(layout.assistant) + self.answer_segments(message, lead=layout.lead, tail=layout.tail)
                out += [Segment(self.end_token, message.train, control=True), *self._pieces(layout.then)]
        return out + (self._pieces(layout.assistant) if generate else [])

    def chat_template(self) -> str:
        return layout_template(self.layout, self.tags, bos=self.bos, eos=self.eos)

    def _opening(self, system: Message | None, first: Message) -> list[Segment]:
        """What stands before the first user's turn: the system's turn, or the preamble."""
        layout = self.layout
        if layout.system_place == "preamble":
            own = layout.preamble if first.input_start is None or not layout.preamble_with_input else layout.preamble_with_input
            return [Segment(system.content)] if system else self._pieces(own)
        if system is None or layout.system_place != "turn":
            return self._pieces(layout.preamble)
        content = self.canonical(system.content)
        return [*self._pieces(layout.preamble), *self._pieces(layout.system.before), Segment(content),
                *self._pieces(layout.system.after_of(content))]

    def _user_content(self, message: Message, system: Message | None) -> str:
        layout, content = self.layout, message.content
        if layout.input is not None and message.input_start is not None:
            content = content[:message.input_start].removesuffix("\n") + layout.input + content[message.input_start:]
        if system and layout.system_place == "first_user":
            content = layout.system.before + system.content + layout.system.after + content
        return self.canonical(content)

    def _fill(self, text: str) -> str:
        return text.replace(BOS, self.bos).replace(EOS, self.eos)

    def _pieces(self, text: str) -> list[Segment]:
        """A string of the layout as segments: control tokens by themselves, the text between them."""
        if text not in self._cut:   # every row asks for the same few strings
            tokens = "|".join(re.escape(token) for token in (BOS, EOS, *self.layout.control))
            parts = enumerate(re.split(f"({tokens})", text))
            self._cut[text] = tuple(Segment(self._fill(part), control=index % 2 == 1) for index, part in parts if part)
        return [*self._cut[text]]


def layout_of(values: dict[str, Any]) -> Layout:
    """A layout from plain values; `user` and `system` are mappings of `Around`'s fields."""
    around = {key: Around(**values[key]) for key in ("user", "system") if key in values}
    return Layout(**{**values, **around, "control": tuple(values.get("control", ()))})
