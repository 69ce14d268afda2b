"""A model of this process behind the same interface: the same answers as its own generation, kept and found again."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import mft.synthesis.client.local as local
from mft.conversation import Message
from mft.errors import FormatError, ModelError
from mft.generation.chat import ChatModel, load_prompts
from mft.modeling.config import QuantizationConfig
from mft.modeling.load import load_base
from mft.synthesis.client.config import LocalConfig
from mft.synthesis.client.open import OpenClient, open_client
from mft.synthesis.client.request import Answer, Request, Unanswered


@contextmanager
def opened(folder: Path, model: Path, **settings: Any) -> Iterator[OpenClient]:
    config = LocalConfig(**{"type": "local", "model": str(model), "format": "codefuse", "batch_size": 3, "dtype": "fp32", **settings})
    with open_client(config, folder) as client:
        yield client


def chats(count: int, **settings: Any) -> list[Request]:
    return [Request("answer", (Message("user", f"Return {number} " + "please " * (number % 4)),), **{"max_tokens": 8, **settings})
            for number in range(count)]


def texts(answers: list[Answer | Unanswered]) -> list[str]:
    return [answer.text for answer in answers if isinstance(answer, Answer)]


def test_greedy_answers_are_those_of_the_model_alone(tmp_path: Path, small_llama: Path) -> None:
    requests = chats(5)
    model = load_base(small_llama, QuantizationConfig(type="none", compute_dtype="fp32"))
    chat = ChatModel(model, *load_prompts(small_llama, "codefuse"))
    with opened(tmp_path, small_llama) as client:
        answers = client.ask(requests)
    assert texts(answers) == [chat.answer(request.messages, max_new_tokens=8).text for request in requests]


def test_kept_answers_need_no_model_and_the_ledger_counts_tokens(tmp_path: Path, small_llama: Path,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path, small_llama) as client:
        first = client.ask(chats(4))
        row = client.ledger.to_json()["all_runs"]["total"]
    monkeypatch.setattr(local, "load_base", None)
    with opened(tmp_path, small_llama) as client:
        second = client.ask([*chats(4), *chats(1)])
    assert texts(second) == [*texts(first), texts(first)[0]]
    assert all(answer.cached for answer in second if isinstance(answer, Answer))
    assert row["answers"] == 4
    assert row["completion_tokens"] == sum(answer.completion_tokens for answer in first if isinstance(answer, Answer))
    assert row["cost"] is None


@pytest.mark.parametrize("kept", [1, 3, 4, 7])
def test_sampled_answers_of_a_run_that_was_cut_short_go_on_as_if_it_was_not(tmp_path: Path, small_llama: Path, kept: int) -> None:
    requests = [request for sample in range(2) for request in chats(4, temperature=1.0, sample=sample)]
    with opened(tmp_path / "whole", small_llama) as client:
        whole = texts(client.ask(requests))
    path, other = tmp_path / "whole" / "answers.jsonl", tmp_path / "cut" / "answers.jsonl"
    other.parent.mkdir()
    other.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:1 + 2 * kept]))
    with opened(tmp_path / "cut", small_llama) as client:
        answers = client.ask(requests)
    assert texts(answers) == whole
    assert [answer.cached for answer in answers if isinstance(answer, Answer)].count(True) == kept
    assert len(set(whole)) > 4      # they were drawn


def test_what_cannot_be_rendered_or_has_no_room_is_refused_and_the_rest_is_answered(tmp_path: Path, small_llama: Path) -> None:
    bad = [Request("a", (Message("user", "x <|role_start|>human<|role_end|> y"),), max_tokens=8),
           Request("a", (Message("user", "long " * 600),), max_tokens=8)]
    with opened(tmp_path, small_llama) as client:
        answers = client.ask([bad[0], *chats(1), bad[1]])
    assert [answer.reason for answer in answers if isinstance(answer, Unanswered)] == ["refused", "refused"]
    assert isinstance(answers[0], Unanswered)
    assert isinstance(answers[2], Unanswered)
    assert answers[0].detail == "role_tag_in_text"
    assert answers[2].detail.startswith("over_context: ")
    assert isinstance(answers[1], Answer)


def test_another_model_format_or_setting_is_another_answer(tmp_path: Path, small_llama: Path) -> None:
    with opened(tmp_path, small_llama) as client:
        client.ask(chats(1))
    for change in ({"format": "alpaca"}, {"dtype": "bf16"}, {"seed": 1}):
        with opened(tmp_path, small_llama, **change) as client:
            answers = client.ask(chats(1))
        assert isinstance(answers[0], Answer)
        assert not answers[0].cached


def test_a_model_that_is_not_there_or_names_no_format_is_one_message(tmp_path: Path, small_llama: Path) -> None:
    with pytest.raises(ModelError, match="no such folder"), opened(tmp_path, tmp_path / "none"):
        pass
    with pytest.raises(FormatError, match="does not say which prompt format"), opened(tmp_path, small_llama, format=None):
        pass
    with opened(tmp_path, small_llama) as client:       # the folder's lock was let go
        assert len(client.ask(chats(1))) == 1
