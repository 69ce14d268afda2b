"""What servers say of their limits is followed, and so are the limits of the config."""

import time
from itertools import pairwise
from pathlib import Path

import pytest
from client_setup import asks, opened
from fake_endpoint import FakeEndpoint

from mft.errors import ModelError
from mft.synthesis.client import lanes
from mft.synthesis.client.lanes import Lanes
from mft.synthesis.client.request import Answer
from mft.synthesis.client.waits import asked_wait_s

NOON = 1_700_000_000.0


@pytest.mark.parametrize(("headers", "wait_s"), [
    ({}, None), ({"retry-after": "7"}, 7.0), ({"retry-after": "0.25"}, 0.25), ({"retry-after": "soon"}, None),
    ({"retry-after": "Tue, 14 Nov 2023 22:13:50 GMT"}, 30.0), ({"retry-after": "Tue, 14 Nov 2023 22:13:00 GMT"}, 0.0),
    ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
    ({"x-ratelimit-reset-requests": "5s"}, None),       # the limit is not used up
    ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"}, 360.0),
    ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1s",
      "x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "20ms"}, 1.0),
    ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1700000012"}, 12.0),
    ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1700000012500"}, 12.5),
    ({"retry-after": "3", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "9"}, 3.0)])
def test_a_pause_is_read_from_every_way_in_which_servers_ask_for_it(headers: dict[str, str], wait_s: float | None) -> None:
    assert asked_wait_s(headers, NOON) == wait_s


def test_after_429_nothing_is_sent_until_the_pause_is_over(tmp_path: Path) -> None:
    sent: list[float] = []

    def once(body: dict, headers: object) -> tuple | None:
        sent.append(time.monotonic())
        return (429, {"Retry-After": "0.6"}, {}) if len(sent) == 1 else None

    with FakeEndpoint(hook=once) as fake, opened(tmp_path, fake.url, concurrency=1, attempts=1) as client:
        answers = client.ask(asks(4))
    assert all(isinstance(answer, Answer) for answer in answers)        # a 429 does not count as an attempt
    assert sent[1] - sent[0] >= 0.6
    assert sent[4] - sent[1] < 0.6


def test_a_used_up_limit_of_a_good_answer_is_waited_for(tmp_path: Path) -> None:
    sent: list[float] = []

    def used_up(body: dict, headers: object) -> tuple:
        sent.append(time.monotonic())
        reply = {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
        return 200, {"X-RateLimit-Remaining-Requests": "0", "X-RateLimit-Reset-Requests": "300ms"}, reply

    with FakeEndpoint(hook=used_up) as fake, opened(tmp_path, fake.url, concurrency=1) as client:
        client.ask(asks(3))
    assert all(second - first >= 0.3 for first, second in pairwise(sent))


def test_a_server_with_a_window_gets_all_answered_with_few_requests_turned_away(tmp_path: Path) -> None:
    with FakeEndpoint(limit=(20, 0.5), retry_after="0.3") as fake, opened(tmp_path, fake.url, concurrency=8, attempts=2) as client:
        answers = client.ask(asks(80))
        turned_away = fake.over_limit
    assert all(isinstance(answer, Answer) for answer in answers)
    assert turned_away <= 40        # eight at a time would be turned away hundreds of times


def test_one_server_that_is_slowed_down_leaves_the_work_to_the_other(tmp_path: Path) -> None:
    with FakeEndpoint(hook=lambda body, headers: (429, {"Retry-After": "5"}, {})) as one, FakeEndpoint() as two, \
            opened(tmp_path, one.url, two.url, concurrency=2) as client:
        started = time.monotonic()
        answers = client.ask(asks(20))
    assert all(isinstance(answer, Answer) for answer in answers)
    assert time.monotonic() - started < 4
    assert len(one.asked) <= 2


def test_a_pause_that_is_too_long_ends_the_run_with_a_message(tmp_path: Path) -> None:
    with FakeEndpoint(hook=lambda body, headers: (429, {"Retry-After": "86400"}, {})) as fake, opened(tmp_path, fake.url) as client, \
            pytest.raises(ModelError, match=r"asks to wait 86\d\d\d s, and longest_wait_s is 900; what was answered is kept"):
        client.ask(asks(50))


@pytest.mark.parametrize(("limit", "tokens"), [({"requests_per_minute": 10}, 1), ({"tokens_per_minute": 500}, 50)])
def test_no_window_of_a_minute_holds_more_than_the_config_allows(monkeypatch: pytest.MonkeyPatch, limit: dict[str, int],
                                                                 tokens: int) -> None:
    monkeypatch.setattr(lanes, "WINDOW_S", 0.4)
    line = Lanes(["http://a/v1"], 4, 0.01, 60.0, **limit)
    sent = []
    for _ in range(35):
        ticket = line.take(tokens, (), lambda: False)
        assert ticket is not None
        sent.append(ticket.started)
        line.answered(ticket, tokens, None)
    assert all(later - sooner >= 0.4 for sooner, later in zip(sent, sent[10:], strict=False))
    assert sent[-1] - sent[0] < 3


def test_a_request_larger_than_a_whole_minute_allows_is_sent_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "WINDOW_S", 0.2)
    line = Lanes(["http://a/v1"], 4, 0.01, 60.0, tokens_per_minute=100)
    times = []
    for _ in range(3):
        ticket = line.take(5000, (), lambda: False)
        assert ticket is not None
        times.append(ticket.started)
        line.answered(ticket, 5000, None)
    assert all(later - sooner >= 0.2 for sooner, later in pairwise(times))
