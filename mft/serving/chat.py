"""A conversation in the terminal: turns that stream, a system message, commands; Ctrl-C stops an answer, not the program."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mft.conversation import Message
from mft.errors import MftError
from mft.files import write_text
from mft.generation.chat import ChatModel
from mft.serving.stream import TextStream
from mft.tokenization.compatibility import stop_ids
from mft.tokenization.encode import encode_prompt

HELP = """\
/system TEXT   set the system message and begin anew; without TEXT: none
/reset         begin anew, with the same system message
/save FILE     write the conversation as one row of JSONL, as `mft data build` reads it
/help          this text
/quit          leave (also Ctrl-D)
A line that ends in a backslash goes on in the next one. Ctrl-C stops an answer; what was written of it stays in the conversation."""

PROMPT, MORE = "> ", "... "
ReadLine = Callable[[str], str]
"""prompt -> a line; raises EOFError where there is none, KeyboardInterrupt at Ctrl-C."""


@dataclass(frozen=True, slots=True)
class ChatSettings:
    """How answers are drawn; as in `mft generate`."""

    max_new_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


@dataclass(slots=True)
class ChatSession:
    """A conversation with a model: `say` asks, `messages` is what has been said, the system message first if there is one."""

    chat: ChatModel
    settings: ChatSettings
    write: Callable[[str], None]
    system: str | None = None
    messages: list[Message] = field(default_factory=list)
    finish_reasons: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all turns but the system message."""
        self.messages = [Message("system", self.system)] if self.system else []
        self.finish_reasons = []

    def say(self, text: str) -> None:
        """Ask, and write the answer as it comes. An answer that Ctrl-C stops stays as far as it was written; without a word, the question
        goes too.

        Raises:
            FormatError: the format cannot render the message (a role tag in it). ModelError: the conversation has become too long.
        """
        messages = [*self.messages, Message("user", text)]
        chat, settings = self.chat, self.settings
        prompt = encode_prompt(messages, chat.prompt_format, chat.tokenizer)
        stream = TextStream(prompt, chat.tokenizer, self.write, stop_ids=stop_ids(chat.prompt_format, chat.tokenizer),
                            stop_strings=chat.prompt_format.stop_strings)
        try:
            completion = chat.answer(messages, max_new_tokens=settings.max_new_tokens, temperature=settings.temperature,
                                     top_p=settings.top_p, seed=settings.seed + len(messages), watch=stream)
            stream.finish(completion.text)
            reason: str = completion.finish_reason
        except KeyboardInterrupt:
            reason = "interrupted"
        if stream.text.strip():
            self.messages = [*messages, Message("assistant", stream.text)]
            self.finish_reasons.append(reason)
        note = {"interrupted": " [stopped]", "length": f" [cut at {settings.max_new_tokens} tokens]"}.get(reason, "")
        self.write(f"{note}\n" if stream.text.strip() else f"[no answer{note}; the question is taken back]\n")

    def to_json(self) -> dict[str, Any]:
        """`messages` and how each answer ended."""
        return {"messages": [{"role": message.role, "content": message.content} for message in self.messages],
                "finish_reasons": self.finish_reasons}

    def save(self, path: Path) -> None:
        """Write the conversation as one line of JSONL.

        Raises:
            OutputError: it cannot be written.
        """
        write_text(path, json.dumps({"messages": self.to_json()["messages"]}, ensure_ascii=False) + "\n")


def run_chat(session: ChatSession, read_line: ReadLine) -> None:
    """Read lines and answer them until /quit or the end of the input. Ctrl-C never ends it, wherever it comes."""
    while True:
        try:
            if not _turn(session, read_line):
                return
        except KeyboardInterrupt:
            session.write("\n[/quit or Ctrl-D leaves]\n")


def _turn(session: ChatSession, read_line: ReadLine) -> bool:
    """One message or command; False at the end."""
    try:
        text = _read_message(read_line)
    except EOFError:
        session.write("\n")
        return False
    if text.strip() == "/quit":
        return False
    try:
        if text.startswith("/"):
            _command(session, *text.strip().partition(" ")[::2])
        elif text.strip():
            session.say(text)
    except MftError as error:
        session.write(f"[{error}]\n")
    except OSError as error:
        session.write(f"[{error.strerror or error}]\n")
    return True


def _read_message(read_line: ReadLine) -> str:
    lines = [read_line(PROMPT)]
    while lines[-1].endswith("\\"):
        lines[-1] = lines[-1][:-1]
        lines.append(read_line(MORE))
    return "\n".join(lines)


def _command(session: ChatSession, name: str, rest: str) -> None:
    rest = rest.strip()
    if name == "/reset":
        session.reset()
        session.write("[the conversation begins anew]\n")
    elif name == "/system":
        session.system = rest or None
        session.reset()
        session.write(f"[{'system message set' if rest else 'no system message'}; the conversation begins anew]\n")
    elif name == "/save" and rest:
        session.save(Path(rest))
        session.write(f"[{len(session.messages)} messages written to {rest}]\n")
    else:
        session.write(("" if name == "/help" else f"[{name}: {'needs a file' if name == '/save' else 'no such command'}]\n") + HELP + "\n")
