"""`jinja`: the tokenizer's own chat template, whatever it writes.

Boundaries are found by rendering: the text of the messages before an answer, with the generation prompt, must be how the
text of the whole begins. What follows, up to and with the first control token, is the answer as the model must write it, and
is trained. A template that writes its history otherwise than its prompts cannot be trained in one row, and is refused.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from mft.conversation import Message
from mft.errors import FormatError
from mft.formats.base import PromptFormat, Segment


class JinjaFormat(PromptFormat):
    """The template's own text is the exported template; BOS is what it writes, never added.

    A message with the text of a control token is refused (`control_text`): the template's text is parsed for them.
    """

    name = "jinja"

    def __init__(self, bos: str = "<s>", eos: str = "</s>", control: Mapping[str, str] | None = None, template: str = "") -> None:
        super().__init__(bos, eos, control)
        self.template = template
        if not template:
            raise FormatError("format 'jinja' is the tokenizer's own chat template, and this tokenizer has none "
                              "(chat_template.jinja, or chat_template in tokenizer_config.json)")
        self._compiled = _compile(template)
        tokens = sorted({**{bos: re.escape(bos), eos: re.escape(eos)}, **self.control}.items(), key=lambda item: -len(item[0]))
        self._control = [token for token, _ in tokens if token]
        self._pattern = re.compile("|".join(f"({pattern})" for token, pattern in tokens if token))
        self._end = self._end_of_answers()

    @property
    def uses_bos(self) -> bool:   # type: ignore[override]
        return bool(self.bos) and self._text([Message("user", "a")], generate=True).startswith(self.bos)

    @property
    def end_token(self) -> str:
        """The control token that the template writes after an answer."""
        return self._end

    def fault(self, messages: tuple[Message, ...], *, prompt: bool = False) -> str | None:
        reason = super().fault(messages, prompt=prompt)
        if reason is None and any(token in message.content for message in messages for token in self._control):
            return "control_text"
        if reason is None:
            try:
                self.render_messages(messages, generate=prompt)
            except FormatError:
                return "template_refuses"
        return reason

    def render_messages(self, messages: Sequence[Message], *, generate: bool) -> list[Segment]:
        out: list[Segment] = []
        done = ""
        for number, message in enumerate(messages):
            if message.role != "assistant":
                continue
            prompt = self._text(messages[:number], generate=True)
            out += self._segments(_rest(prompt, done, "what it wrote before an answer"))
            after = self._text(messages[:number + 1], generate=False)
            out += self._answer(_rest(after, prompt, "the prompt of an answer"), message)
            done = after
        whole = self._text(messages, generate=generate)
        return out + self._segments(_rest(whole, done, "its shorter history"))

    def chat_template(self) -> str:
        return self.template

    def _end_of_answers(self) -> str:
        """The end mark of two short rounds, which also shows whether the template goes on from its prompts and its history."""
        rounds = [Message("user", "a"), Message("assistant", "b"), Message("user", "c"), Message("assistant", "d")]
        segments = self.render_messages(rounds, generate=False)
        return next(segment.control_token for segment in segments if segment.control and segment.trainable)

    def _answer(self, text: str, message: Message) -> list[Segment]:
        """The segments of an answer with what the template puts around it, up to and with its end mark; then the rest."""
        segments = self._segments(text)
        end = next((index for index, segment in enumerate(segments) if segment.control), None)
        written = "".join(segment.text for segment in segments[:end])
        content = message.content if message.content in written else message.content.strip()
        if end is None or content not in written:
            what = "no control token ends the answer" if end is None else "the answer is not written as it is"
            raise FormatError(f"format 'jinja': {what} by this tokenizer's chat template (it gives {text[:80]!r}); use another format")
        lead, _, tail = written.partition(content)
        shift = message.content.index(content)
        # A template may strip the content: what a span covers of the rest stays left out.
        cut = ((max(0, start - shift), min(len(content), stop - shift)) for start, stop in message.untrained)
        spans = tuple((start, stop) for start, stop in cut if start < stop)
        answer = self.answer_segments(Message("assistant", content, message.train, spans), lead=lead, tail=tail)
        return [*answer, Segment(segments[end].text, message.train, control=True, token=segments[end].token), *segments[end + 1:]]

    def _segments(self, text: str) -> list[Segment]:
        """Text cut at its control tokens, each with the spaces that it takes in."""
        out: list[Segment] = []
        done = 0
        for match in self._pattern.finditer(text):
            out += [Segment(text[done:match.start()])] if match.start() > done else []
            token = self._control[(match.lastindex or 1) - 1]
            out.append(Segment(match[0], control=True, token=token if token != match[0] else ""))
            done = match.end()
        return out + ([Segment(text[done:])] if done < len(text) else [])

    def _text(self, messages: Sequence[Message], *, generate: bool) -> str:
        values = [{"role": message.role, "content": message.content} for message in messages]
        try:
            return str(self._compiled.render(messages=values, add_generation_prompt=generate, bos_token=self.bos, eos_token=self.eos))
        except TemplateError as error:
            raise FormatError(f"format 'jinja': this tokenizer's chat template refuses the messages: {error}") from error


def _rest(text: str, start: str, what: str) -> str:
    if not text.startswith(start):
        raise FormatError(f"format 'jinja': this tokenizer's chat template does not go on from {what}: {start[-60:]!r} is not how "
                          "the longer text begins, so no row could be trained as it is served; use a format by name")
    return text[len(start):]


def _compile(template: str) -> Any:
    """The template as transformers compiles it: sandboxed, with trim_blocks and lstrip_blocks, `raise_exception`, `tojson`.

    `strftime_now` is not given: a template with today's date would train other prompts than it serves tomorrow.
    """
    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    environment.globals["raise_exception"] = raise_exception
    try:
        return environment.from_string(template)
    except TemplateError as error:
        raise FormatError(f"format 'jinja': this tokenizer's chat template is not valid Jinja: {error}") from error
