"""Completions from OpenAI-compatible servers, against small servers on this machine."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

import mft.generation.openai_endpoint as openai_endpoint
from mft.errors import ModelError
from mft.generation.openai_endpoint import Ask, Endpoints

Answers = Callable[[str, dict[str, Any]], tuple[int, Any]]


@contextmanager
def server(answers: Answers) -> Iterator[tuple[str, list[tuple[str, dict[str, Any], Any]]]]:
    """A server that answers each (path, body); yields its URL and what it was asked: (path, body, authorization)."""
    asked: list[tuple[str, dict[str, Any], Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append((self.path, body, self.headers.get("Authorization")))
            code, reply = answers(self.path, body)
            data = (reply if isinstance(reply, str) else json.dumps(reply)).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{running.server_port}/v1", asked
    finally:
        running.shutdown()
        running.server_close()


def echo(path: str, body: dict[str, Any]) -> tuple[int, Any]:
    if path.endswith("chat/completions"):
        return 200, {"choices": [{"message": {"content": body["messages"][-1]["content"].upper()}, "finish_reason": "length"}]}
    return 200, {"choices": [{"text": body["prompt"].upper(), "finish_reason": "stop"}], "usage": {"completion_tokens": 3}}


def ask_all(endpoints: Endpoints, asks: list[Ask], stops: tuple[str, ...] = ()) -> dict[int, Any]:
    return dict(endpoints.answers(asks, temperature=0.0, top_p=1.0, max_tokens=7, stops=stops))


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_endpoint, "PAUSES_S", (0.0, 0.0))


def test_text_and_chat_requests_give_answers_and_settings_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with server(echo) as (url, asked):
        found = ask_all(Endpoints([url], "m"), [Ask("ab", 5), Ask([{"role": "user", "content": "cd"}], 6)], ("\n#",))
    assert (found[0].text, found[0].finish_reason, found[0].tokens) == ("AB", "stop", 3)
    assert (found[1].text, found[1].finish_reason, found[1].tokens) == ("CD", "length", None)
    _, body, key = next(each for each in asked if each[0] == "/v1/completions")
    assert key == "Bearer secret"
    assert body == {"model": "m", "temperature": 0.0, "top_p": 1.0, "max_tokens": 7, "stop": ["\n#"], "seed": 5, "prompt": "ab",
                    "top_k": -1, "repetition_penalty": 1.0}


def test_several_servers_share_the_work() -> None:
    with server(echo) as (one, first), server(echo) as (two, second):
        found = ask_all(Endpoints([one, two], "m", concurrency=2), [Ask(f"p{index}", 0) for index in range(10)])
    assert [found[index].text for index in range(10)] == [f"P{index}" for index in range(10)]
    assert (len(first), len(second)) == (5, 5)


def test_a_setting_that_a_server_does_not_know_is_left_out_and_said() -> None:
    def picky(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        return (400, {"error": {"message": "Unknown parameter: 'top_k'"}}) if "top_k" in body else echo(path, body)

    endpoints = Endpoints([""], "m", concurrency=1)
    with server(picky) as (url, asked):
        endpoints.urls = [url]
        found = ask_all(endpoints, [Ask("a", 0), Ask("b", 0)])
    assert ([found[0].text, found[1].text], endpoints.dropped) == (["A", "B"], ["top_k"])
    assert [sorted(body.keys() & {"top_k", "repetition_penalty"}) for _, body, _ in asked] == [
        ["repetition_penalty", "top_k"], ["repetition_penalty"], ["repetition_penalty"]]


def test_a_busy_server_is_asked_again() -> None:
    calls: list[int] = []

    def busy(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        calls.append(1)
        return (429, "slow down") if len(calls) == 1 else echo(path, body)

    with server(busy) as (url, _):
        assert ask_all(Endpoints([url], "m"), [Ask("a", 0)])[0].text == "A"
    assert len(calls) == 2


def test_half_an_answer_is_asked_for_again() -> None:
    served: list[bytes] = []
    whole = b'{"choices": [{"text": "A", "finish_reason": "stop"}]}'

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            served.append(whole[:len(whole) // 2] if not served else whole)
            self.send_response(200)
            self.send_header("Content-Length", str(len(whole)))
            self.end_headers()
            self.wfile.write(served[-1])

        def log_message(self, *_: Any) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    try:
        assert ask_all(Endpoints([f"http://127.0.0.1:{running.server_port}/v1"], "m"), [Ask("a", 0)])[0].text == "A"
    finally:
        running.shutdown()
        running.server_close()
    assert len(served) == 2


@pytest.mark.parametrize(("reply", "message"), [
    ((401, "no key"), "answered 401: no key"), ((503, "down"), "answered 503: down"), ((200, "<html>"), "the answer is not JSON"),
    ((200, {"choices": []}), "the answer is no completion"), ((400, "prompt too long"), "answered 400: prompt too long")])
def test_a_server_that_cannot_answer_is_one_message(reply: tuple[int, Any], message: str) -> None:
    with server(lambda path, body: reply) as (url, _), pytest.raises(ModelError, match=message):
        ask_all(Endpoints([url], "m"), [Ask("a", 0)])


def test_no_server_at_all_is_one_message() -> None:
    with pytest.raises(ModelError, match="cannot be reached"):
        ask_all(Endpoints(["http://127.0.0.1:9/v1"], "m"), [Ask("a", 0)])
