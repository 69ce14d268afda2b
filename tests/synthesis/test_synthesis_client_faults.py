"""The client against a server that fails in every way: each request answered once, none paid twice."""

import logging
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from client_setup import asks, endpoint, opened
from fake_endpoint import FakeEndpoint

from mft.conversation import Message
from mft.errors import ModelError
from mft.synthesis.client.exchange import key_of
from mft.synthesis.client.request import Answer, Request, Unanswered

EVERY_FAULT = {"429": 0.06, "500": 0.06, "half": 0.05, "reset": 0.05, "null": 0.05, "json": 0.05, "slow": 0.05, "hang": 0.005}


def test_a_thousand_requests_through_every_fault_are_answered_once_and_none_is_paid_twice(tmp_path: Path) -> None:
    requests = [*asks(500, "evolve"), *asks(1000)[500:]]
    with FakeEndpoint(faults=EVERY_FAULT, hang_s=2.0) as fake, opened(tmp_path, fake.url, concurrency=16, timeout_s=1.5,
                                                                      attempts=8) as client:
        answers = client.ask(requests)
        stats, ledger = fake.stats(), client.ledger.to_json()
    assert [answer.text for answer in answers if isinstance(answer, Answer)] == [f"SAY {number}" for number in range(1000)]
    assert set(stats["faults"]) == set(EVERY_FAULT)     # the schedule of seed 0 has each of them
    assert (len(stats["charged"]), set(stats["charged"].values())) == (1000, {1})
    assert set(stats["good"].values()) == {1}           # no request was sent again after its answer
    assert stats["asked"] == 1000 + sum(count for fault, count in stats["faults"].items() if fault != "slow")
    run, kept = ledger["this_run"]["total"], ledger["all_runs"]["total"]
    assert run == {"requests": 1000, "cached": 0, "answered": 1000, "given_up": 0, "refused": 0, "budget_spent": 0,
                   "failed_attempts": kept["failed_attempts"]}
    assert (kept["answers"], kept["prompt_tokens"], kept["completion_tokens"]) == (1000, 5000, 2000)
    assert (kept["cost"], kept["uncertain_cost"]) == (0.011, 0.0)      # 5,000 at 1 and 2,000 at 3 for a million
    names = {"429": "rate_limited", "500": "server_error", "half": "truncated", "reset": "connection_lost", "null": "no_text",
             "json": "wrong_json", "hang": "timed_out"}
    assert kept["failed_attempts"] == {names[fault]: count for fault, count in stats["faults"].items() if fault != "slow"}


def test_a_second_run_asks_nothing_and_gives_the_same_list(tmp_path: Path) -> None:
    requests = asks(40)
    with FakeEndpoint(faults={"500": 0.2}, latency_s=0.002) as fake:
        with opened(tmp_path, fake.url, concurrency=7) as client:
            first = client.ask(requests)
        asked = len(fake.asked)
        with opened(tmp_path, fake.url, concurrency=1) as client:
            second, third = client.ask(requests), client.ask(requests[::-1])
            counts = client.ledger.to_json()["this_run"]["total"]
        assert len(fake.asked) == asked
    assert second == [Answer(answer.text, answer.cut, answer.prompt_tokens, answer.completion_tokens, cached=True) for answer in first]
    assert third == second[::-1]
    assert (counts["requests"], counts["cached"], counts["answered"]) == (80, 80, 0)


def test_equal_requests_are_asked_once_and_another_sample_is_another_request(tmp_path: Path) -> None:
    chat = (Message("system", "be brief"), Message("user", "hi"))
    requests = [Request("a", chat, temperature=0.7), Request("b", chat, temperature=0.7), Request("a", chat, temperature=0.7, sample=1)]
    with FakeEndpoint() as fake, opened(tmp_path, fake.url, extra={"top_k": 20}, seed=5) as client:
        answers = client.ask(requests)
        bodies = sorted((body for _, body, _ in fake.asked), key=lambda body: body["seed"])
    assert [answer.cached for answer in answers if isinstance(answer, Answer)] == [False, True, False]
    assert bodies == [{"model": "m", "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}],
                       "temperature": 0.7, "top_p": 1.0, "seed": seed, "max_tokens": 2048, "top_k": 20} for seed in (5, 6)]


def test_the_place_of_an_answer_follows_from_what_is_asked_and_not_from_server_or_purpose() -> None:
    request = asks(1)[0]
    key = key_of(endpoint("http://a/v1"), request)
    assert key_of(endpoint("http://b/v1", concurrency=3, key_variable=None), asks(1, "other")[0]) == key
    others = [key_of(endpoint("http://a/v1", model="n"), request), key_of(endpoint("http://a/v1", extra={"top_k": 1}), request),
              *(key_of(endpoint("http://a/v1"), asks(1, **change)[0]) for change in (
                  {"max_tokens": 21}, {"temperature": 0.1}, {"top_p": 0.5}, {"sample": 1}, {"stops": ("x",)}))]
    assert len({key, *others}) == 8


def test_an_answer_ends_at_its_first_stop_string_and_says_when_it_was_cut(tmp_path: Path) -> None:
    stops = tuple("123456")
    with FakeEndpoint(lambda messages: "a b 6 c" if "stop" in messages[0]["content"] else "a b c d") as fake, \
            opened(tmp_path, fake.url) as client:
        stopped = client.ask([Request("a", (Message("user", "stop"),), stops=stops)])
        cut = client.ask([Request("a", (Message("user", "go"),), max_tokens=3)])
        assert fake.asked[0][1]["stop"] == ["1", "2", "3", "4"]     # as many as every server takes
    assert stopped == [Answer("a b ", False, 4, 4)]
    assert cut == [Answer("a b c", True, 4, 3)]


def test_work_goes_to_the_servers_that_live_and_a_dead_one_is_tried_again_in_vain(tmp_path: Path) -> None:
    with FakeEndpoint(latency_s=0.01) as one, FakeEndpoint(latency_s=0.01) as two, \
            opened(tmp_path, "http://127.0.0.1:9/v1", one.url, two.url, concurrency=4) as client:
        answers = client.ask(asks(100))
        assert (one.most_busy, two.most_busy) == (4, 4)
        shares = len(one.asked), len(two.asked)
    assert all(isinstance(answer, Answer) for answer in answers)
    assert sum(shares) == 100
    assert min(shares) > 25


def test_a_server_that_comes_back_is_used_again(tmp_path: Path) -> None:
    down = threading.Event()
    down.set()
    with FakeEndpoint(hook=lambda body, headers: (503, {}, "down") if down.is_set() else None) as fake, \
            opened(tmp_path, fake.url, concurrency=2, attempts=30) as client:
        threading.Timer(0.4, down.clear).start()
        answers = client.ask(asks(10))
    assert all(isinstance(answer, Answer) for answer in answers)


def test_a_request_that_only_fails_is_given_up_and_the_others_are_answered(tmp_path: Path) -> None:
    with FakeEndpoint(hook=lambda body, headers: (500, {}, {}) if body["messages"][0]["content"] == "say 3" else None) as fake:
        with opened(tmp_path, fake.url, concurrency=2, attempts=4) as client:
            answers = client.ask(asks(8))
        tries = Counter(body["messages"][0]["content"] for _, body, _ in fake.asked)
    assert answers[3] == Unanswered("given_up", "4 attempts: server_error")
    assert sum(isinstance(answer, Answer) for answer in answers) == 7
    assert (tries["say 3"], sum(tries.values())) == (4, 11)


def test_a_request_that_the_server_refuses_is_asked_once(tmp_path: Path) -> None:
    def picky(body: dict, headers: object) -> tuple | None:
        text = body["messages"][0]["content"]
        return (400, {}, {"error": {"message": f"no: {text}", "code": "context_length_exceeded"}}) if text == "say 1" else None

    with FakeEndpoint(hook=picky) as fake, opened(tmp_path, fake.url) as client:
        answers = client.ask(asks(3))
        assert len(fake.asked) == 3
        row = client.ledger.to_json()["this_run"]["by_purpose"]["answer"]
    assert answers[1] == Unanswered("refused", "status 400 context_length_exceeded")
    assert (row["answered"], row["refused"], row["failed_attempts"]) == (2, 1, {"refused": 1})


def test_a_server_that_refuses_everything_ends_the_run_unless_the_requests_are_too_long(tmp_path: Path) -> None:
    said = {"error": {"message": "Invalid value for 'temperature'", "type": "bad"}}
    with FakeEndpoint(hook=lambda body, headers: (400, {}, said)) as fake, opened(tmp_path / "a", fake.url) as client, \
            pytest.raises(ModelError, match="requests and answered none: status 400 bad: Invalid value for 'temperature'; check model"):
        client.ask(asks(500))
    said = {"error": {"message": "maximum context length is 8", "type": "bad"}}
    with FakeEndpoint(hook=lambda body, headers: (400, {}, said) if len(body["messages"][0]["content"]) < 6 + 1 else None) as fake, \
            opened(tmp_path / "b", fake.url) as client:
        answers = client.ask(asks(120))
    assert [isinstance(answer, Answer) for answer in answers] == [False] * 100 + [True] * 20


def test_a_filtered_answer_and_a_spoken_refusal_are_refused_and_paid(tmp_path: Path) -> None:
    def filtered(body: dict, headers: object) -> tuple:
        message = {"content": None, "refusal": "I will not"} if body["messages"][0]["content"] == "say 1" else {"content": "half an"}
        reason = "stop" if message["content"] is None else "content_filter"
        return 200, {}, {"choices": [{"message": message, "finish_reason": reason}], "usage": {"prompt_tokens": 7, "completion_tokens": 2}}

    with FakeEndpoint(hook=filtered) as fake, opened(tmp_path, fake.url) as client:
        answers = client.ask(asks(2))
        total = client.ledger.to_json()["all_runs"]["total"]
    assert answers == [Unanswered("refused", "content_filter"), Unanswered("refused", "refusal")]
    assert (total["prompt_tokens"], total["completion_tokens"]) == (14, 4)


def test_all_tokens_spent_on_thinking_are_an_empty_answer_that_was_cut(tmp_path: Path) -> None:
    reply = {"choices": [{"message": {"content": None}, "finish_reason": "length"}], "usage": {"prompt_tokens": 7, "completion_tokens": 20}}
    with FakeEndpoint(hook=lambda body, headers: (200, {}, reply)) as fake, opened(tmp_path, fake.url) as client:
        assert client.ask(asks(1)) == [Answer("", True, 7, 20)]


@pytest.mark.parametrize(("status", "error", "message"), [
    (401, {"message": "Incorrect API key"}, "answered 401: Incorrect API key; OPENAI_API_KEY is not set, so no key was sent"),
    (402, {"message": "Insufficient Balance"}, "answered 402: Insufficient Balance"),
    (403, {"message": "Country not supported"}, "answered 403: Country not supported"),
    (404, {"message": "There is no model `m`"}, "answered 404: There is no model `m`; check urls (up to and with /v1) and model"),
    (308, {}, "answered 308; give the URL that it moved to"),
    (429, {"code": "insufficient_quota"}, "answered 429: the account has no quota left (insufficient_quota)"),
    (400, {"message": "Unsupported parameter: 'max_tokens' is not supported with this model."},
     "does not take 'max_tokens'; set max_tokens_key: max_completion_tokens"),
    (400, {"message": "Unknown parameter: 'seed'."}, "does not take 'seed'; add it to omit: [seed]")])
def test_what_no_request_can_pass_is_one_message_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, error: dict,
                                                         message: str) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with FakeEndpoint(hook=lambda body, headers: (status, {}, {"error": error})) as fake, opened(tmp_path, fake.url) as client:
        with pytest.raises(ModelError) as raised:
            client.ask(asks(1000))
        assert str(raised.value) == f"{fake.url}/chat/completions: {message}"
        assert len(fake.asked) <= 8     # those that were on their way together


def test_settings_that_a_server_refuses_can_be_left_out(tmp_path: Path) -> None:
    with FakeEndpoint(lambda messages: "a b c") as fake, \
            opened(tmp_path, fake.url, omit=["temperature", "top_p", "stop", "seed"], max_tokens_key="max_completion_tokens") as client:
        answers = client.ask(asks(1, stops=(" c",)))
        assert fake.asked[0][1] == {"model": "m", "messages": [{"role": "user", "content": "say 0"}], "max_completion_tokens": 20}
    assert isinstance(answers[0], Answer)
    assert answers[0].text == "a b"


def test_no_server_at_all_is_one_message_and_nothing_is_given_up(tmp_path: Path) -> None:
    with opened(tmp_path, "http://127.0.0.1:9/v1", attempts=3) as client, \
            pytest.raises(ModelError, match=r"cannot be reached; .* What was answered is kept"):
        client.ask(asks(100))


def test_servers_that_break_down_end_the_run_and_the_next_run_goes_on(tmp_path: Path) -> None:
    broken = threading.Event()
    with FakeEndpoint(hook=lambda body, headers: (500, {}, {}) if broken.is_set() else None, latency_s=0.005) as fake:
        with opened(tmp_path, fake.url, concurrency=2, attempts=2) as client, \
                pytest.raises(ModelError, match="5 requests in a row had no answer after 2 attempts each"):
            client.ask(asks(200), lambda settled, total: broken.set() if settled >= 50 else None)
        answered = len(fake.good)
        broken.clear()
        with opened(tmp_path, fake.url, concurrency=2) as client:
            answers = client.ask(asks(200))
    assert 50 <= answered < 200
    assert sum(isinstance(answer, Answer) and answer.cached for answer in answers) == answered
    assert set(fake.good.values()) == {1}


def test_ctrl_c_keeps_the_answers_that_are_on_their_way(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def press(settled: int, total: int) -> None:
        if settled >= 10:
            raise KeyboardInterrupt

    with FakeEndpoint(latency_s=0.05) as fake:
        with opened(tmp_path, fake.url, concurrency=4) as client:
            once = iter([press])
            with caplog.at_level(logging.WARNING), pytest.raises(KeyboardInterrupt):
                client.ask(asks(100), lambda settled, total: next(once, lambda *_: None)(settled, total) if settled >= 10 else None)
        asked = len(fake.asked)
        assert asked == len(fake.good) < 100
        with opened(tmp_path, fake.url) as client:
            cached = sum(isinstance(answer, Answer) and answer.cached for answer in client.ask(asks(100)))
    assert cached == asked
    assert "on their way and paid for" in caplog.text


def test_progress_tells_how_many_of_all_are_settled(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    with FakeEndpoint() as fake, opened(tmp_path, fake.url) as client:
        client.ask(asks(5))
        client.ask([*asks(8), *asks(8)], lambda settled, total: told.append((settled, total)))
    assert told[0] == (10, 16)
    assert told[-1] == (16, 16)
    assert told == sorted(told)


def test_an_answer_that_does_not_come_is_asked_again_after_the_time_limit(tmp_path: Path) -> None:
    started = time.monotonic()
    with FakeEndpoint(faults={"hang": 1.0}, most_faults=1, hang_s=3.0) as fake, opened(tmp_path, fake.url, timeout_s=0.3) as client:
        answers = client.ask(asks(1))
    assert isinstance(answers[0], Answer)
    assert time.monotonic() - started < 2.5
