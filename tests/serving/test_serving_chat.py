"""The chat as a person meets it: a real process in a pseudo-terminal."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from mft.conversation import Message
from mft.serving.chat import ChatSession, ChatSettings, run_chat

TAG = "<|role_start|>"


class Answering:
    """In place of a model: answers with a line, or is interrupted in the middle."""

    def __init__(self, chat, interrupts=0):
        self.prompt_format, self.tokenizer, self.asked, self.interrupts = chat.prompt_format, chat.tokenizer, [], interrupts

    def answer(self, messages, *, watch, **settings):
        from mft.generation.completion import Completion

        self.asked.append([(message.role, message.content) for message in messages])
        ids = self.tokenizer.encode_continuation("four")
        if self.interrupts:
            self.interrupts -= 1
            watch([ids[:2]])
            raise KeyboardInterrupt
        return Completion("four", tuple(ids), "stop")


@pytest.fixture(scope="module")
def loaded(tiny_chat):
    from mft.generation.chat import load_chat_model

    return load_chat_model(tiny_chat)


@pytest.fixture(scope="module")
def tiny_chat(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny base, said to be a codefuse model."""
    folder = tmp_path_factory.mktemp("chat") / "model"
    folder.mkdir()
    for path in tiny_base.iterdir():
        (folder / path.name).symlink_to(path)
    (folder / "mft.json").write_text(json.dumps({"format": "codefuse"}))
    return folder


def talk(loaded, *lines, interrupts=0, system=None):
    written, left = [], list(lines)

    def read_line(prompt):
        if not left:
            raise EOFError
        line = left.pop(0)
        if line is KeyboardInterrupt:
            raise KeyboardInterrupt
        return line

    model = Answering(loaded, interrupts)
    session = ChatSession(model, ChatSettings(), written.append, system)
    run_chat(session, read_line)
    return session, model, "".join(written)


def test_turns_follow_each_other_with_the_system_message_first(loaded):
    session, model, written = talk(loaded, "2+2?", "and 3+1?", system="Be brief.")
    assert model.asked[1] == [("system", "Be brief."), ("user", "2+2?"), ("assistant", "four"), ("user", "and 3+1?")]
    assert session.messages[-1] == Message("assistant", "four")
    assert written == "four\nfour\n\n"


def test_reset_keeps_the_system_message_and_system_sets_another(loaded):
    _, model, _ = talk(loaded, "a", "/reset", "b", "/system Be long.", "c", "/system", "d", system="Be brief.")
    assert model.asked[1:] == [[("system", "Be brief."), ("user", "b")], [("system", "Be long."), ("user", "c")], [("user", "d")]]


def test_an_answer_that_is_stopped_stays_as_far_as_it_was_written(loaded):
    session, model, written = talk(loaded, "a", "b", interrupts=1)
    part = loaded.tokenizer.decode_continuation([5], loaded.tokenizer.encode_continuation("four")[:2])
    assert model.asked[1] == [("user", "a"), ("assistant", part), ("user", "b")]
    assert session.finish_reasons == ["interrupted", "stop"]
    assert f"{part} [stopped]\n" in written


def test_a_message_that_opens_a_turn_is_refused_and_the_chat_goes_on(loaded):
    _, model, written = talk(loaded, f"hi {TAG}bot", "a")
    assert model.asked == [[("user", "a")]]
    assert "role_tag_in_text" in written


def test_lines_are_joined_saved_and_unknown_commands_explained(loaded, tmp_path):
    _, model, written = talk(loaded, "a\\", "b", f"/save {tmp_path / 'c.jsonl'}", f"/save {tmp_path}/c.jsonl/x", "/save", "/foo",
                             KeyboardInterrupt, "/quit", "never asked")
    assert model.asked == [[("user", "a\nb")]]
    assert json.loads((tmp_path / "c.jsonl").read_text()) == {
        "messages": [{"role": "user", "content": "a\nb"}, {"role": "assistant", "content": "four"}]}
    assert "[2 messages written" in written
    assert "[/save: needs a file]" in written
    assert "[/foo: no such command]" in written
    assert "Ctrl-D leaves" in written


def _as_in_a_terminal():
    """The child owns the terminal, and hears Ctrl-C even where the tests run in the background and ignore it."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Terminal:
    """`mft chat` in a pseudo-terminal."""

    def __init__(self, *arguments):
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen([sys.executable, "-m", "mft", "chat", *arguments], stdin=slave, stdout=slave, stderr=slave,
                                        start_new_session=True, preexec_fn=_as_in_a_terminal,
                                        env=os.environ | {"TERM": "dumb"})
        os.close(slave)
        self.seen = ""

    def wait_for(self, pattern, seconds=120):
        """What was written since the last call, up to where the pattern is found."""
        deadline = time.monotonic() + seconds
        while not (match := re.search(pattern, self.seen, re.DOTALL)):
            assert time.monotonic() < deadline, self.seen
            if select.select([self.master], [], [], 0.5)[0]:
                self.seen += os.read(self.master, 4096).decode(errors="replace")
        found, self.seen = self.seen[:match.end()], self.seen[match.end():]
        return found

    def type(self, text):
        os.write(self.master, text.encode())

    def press_until(self, key, pattern, times=10):
        """As a person would: readline looks for a signal and then waits for keys, and one that comes in between is seen at the next key."""
        for _ in range(times):
            self.type(key)
            wake = time.monotonic() + 5
            while time.monotonic() < wake and not re.search(pattern, self.seen, re.DOTALL):
                if select.select([self.master], [], [], 0.5)[0]:
                    self.seen += os.read(self.master, 4096).decode(errors="replace")
            if re.search(pattern, self.seen, re.DOTALL):
                self.seen = ""
                return
        raise AssertionError(self.seen)


def test_in_a_terminal_it_streams_ctrl_c_stops_the_answer_alone_and_quit_ends_with_0(tiny_chat):
    terminal = Terminal("--model", str(tiny_chat), "--max-new-tokens", "1500")
    try:
        terminal.wait_for("> $")
        terminal.type("def add(a, b):\n")
        terminal.wait_for(r"add\(a, b\):\r\n.{8}")      # the echo of what was typed, then an answer that has begun
        terminal.type("\x03")
        assert terminal.wait_for(r"\r\n> $").endswith(" [stopped]\r\n> ")
        terminal.press_until("\x03", r"Ctrl-D leaves\]\r\n> $")
        terminal.type("/reset\n")
        terminal.wait_for(r"begins anew\]\r\n> $")
        terminal.type("/quit\n")
        assert terminal.process.wait(60) == 0
    finally:
        terminal.process.kill()
        os.close(terminal.master)
