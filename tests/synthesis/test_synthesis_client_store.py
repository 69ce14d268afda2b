"""The file that keeps the answers: torn, damaged, taken, full."""

import json
import logging
from pathlib import Path

import pytest
from client_setup import asks, opened
from fake_endpoint import FakeEndpoint

from mft.errors import OutputError
from mft.synthesis.client.request import Answer
from mft.synthesis.client.store import ANSWERS, AnswerStore


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A store of three answers, asked one after the other: a header, then `started` and `answer` for each."""
    with FakeEndpoint() as fake, opened(tmp_path, fake.url, concurrency=1) as client:
        client.ask(asks(3))
    assert [json.loads(line)["entry"]["record"] for line in (tmp_path / ANSWERS).read_text().splitlines()] == [
        "answers", "started", "answer", "started", "answer", "started", "answer"]
    return tmp_path


def cached_after(folder: Path) -> list[bool]:
    """Which of the three answers are still there."""
    with FakeEndpoint() as fake, opened(folder, fake.url, concurrency=1) as client:
        answers = client.ask(asks(3))
    assert [answer.text for answer in answers if isinstance(answer, Answer)] == ["SAY 0", "SAY 1", "SAY 2"]
    return [isinstance(answer, Answer) and answer.cached for answer in answers]


def test_a_file_cut_at_any_byte_loses_at_most_what_was_cut(filled: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = (filled / ANSWERS).read_bytes()
    ends = [place + 1 for place, byte in enumerate(whole) if byte == 10]
    for size in range(0, len(whole) + 1, 7):
        caplog.clear()
        (filled / ANSWERS).write_bytes(whole[:size])
        seen: list[dict] = []
        with caplog.at_level(logging.WARNING):
            store = AnswerStore(filled, seen.append)
        complete = sum(end <= size for end in ends)
        assert (len(store), len(seen)) == (max(0, complete - 1) // 2, max(0, complete - 1))
        assert ("was torn when a process" in caplog.text) == (size not in (0, *ends))
        store.close()
        if complete:
            assert (filled / ANSWERS).read_bytes() == whole[:ends[complete - 1]]


def test_a_torn_answer_is_asked_again_and_the_others_are_not(filled: Path) -> None:
    whole = (filled / ANSWERS).read_bytes()
    (filled / ANSWERS).write_bytes(whole[:-9])
    assert cached_after(filled) == [True, True, False]
    assert cached_after(filled) == [True, True, True]


def test_zeros_that_a_power_failure_left_at_the_end_are_cut_off(filled: Path) -> None:
    whole = (filled / ANSWERS).read_bytes()
    (filled / ANSWERS).write_bytes(whole + b"\0" * 4096)
    assert cached_after(filled) == [True, True, True]
    assert (filled / ANSWERS).read_bytes() == whole


@pytest.mark.parametrize("line", [3, 7])
def test_a_changed_answer_is_one_message_with_its_line(filled: Path, line: int) -> None:
    lines = (filled / ANSWERS).read_text().splitlines(keepends=True)
    lines[line - 1] = lines[line - 1].replace("SAY", "SAW")
    (filled / ANSWERS).write_text("".join(lines))
    with pytest.raises(OutputError) as raised:
        AnswerStore(filled, lambda entry: None)
    assert str(raised.value).startswith(f"{filled / ANSWERS}:{line}: is damaged, or not a line of answers that mft wrote; without")


@pytest.mark.parametrize("content", ["hello\n", '{"sum":"0","entry":{}}\n', "[]\n"])
def test_a_file_of_something_else_is_left_alone(tmp_path: Path, content: str) -> None:
    (tmp_path / ANSWERS).write_text(content)
    with pytest.raises(OutputError, match=r"answers\.jsonl:1: is damaged, or not a line of answers"):
        AnswerStore(tmp_path, lambda entry: None)
    assert (tmp_path / ANSWERS).read_text() == content


def test_a_second_process_is_told_that_the_folder_is_in_use(filled: Path) -> None:
    with opened(filled, "http://127.0.0.1:9/v1"), pytest.raises(OutputError, match="another process is asking with it"):
        AnswerStore(filled, lambda entry: None)
    AnswerStore(filled, lambda entry: None).close()


def test_an_answer_of_any_text_comes_back_as_it_was(tmp_path: Path) -> None:
    texts = ["", "\n\n", "a\u2028b\r\n\0", "\ud800 alone", "雪 ❄", '{"entry": 1}\n', "x" * 300_000]
    store = AnswerStore(tmp_path, lambda entry: None)
    for place, text in enumerate(texts):
        store.append({"record": "answer", "key": str(place), "text": text, "cut": False, "known": [1, 1, "0", 1]}, durable=True)
    store.close()
    again = AnswerStore(tmp_path, lambda entry: None)
    assert [again.answer(str(place))["text"] for place in range(len(texts))] == texts
    again.close()


def test_a_full_disk_is_one_message_and_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    store = AnswerStore(tmp_path, lambda entry: None)
    before, write = (tmp_path / ANSWERS).read_bytes(), os.write

    def full(descriptor: int, data: bytes) -> int:
        if len(data) < 50:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[:-20])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OutputError, match=r"answers\.jsonl: cannot be written: No space left on device"):
        store.append({"record": "answer", "key": "a", "text": "b" * 100, "cut": False, "known": [1, 1, "0", 1]})
    monkeypatch.setattr(os, "write", write)
    assert (tmp_path / ANSWERS).read_bytes() == before
    assert "a" not in store
    store.close()
