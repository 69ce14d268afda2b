"""A budget is never passed, is used up to the last request that fits, and lets the same requests in whatever comes back first."""

from pathlib import Path

import pytest
from client_setup import asks, budget, opened
from fake_endpoint import FakeEndpoint

from mft.synthesis.client.config import Price
from mft.synthesis.client.request import Answer, Request, Unanswered

# A request `say 10` has 6 bytes and, with template_tokens=10, at most 26 + 20 tokens: 86 millionths at PRICE. It is charged 5 + 2: 11.
FAULTS = {"500": 0.1, "429": 0.05, "reset": 0.1, "half": 0.1}


def answered(results: list[Answer | Unanswered]) -> list[int]:
    return [place for place, result in enumerate(results) if isinstance(result, Answer)]


@pytest.mark.parametrize(("faults", "concurrency"), [({}, 1), ({}, 16), (FAULTS, 5)], ids=["one", "sixteen", "faulty"])
@pytest.mark.parametrize(("limits", "number"), [
    ({"cost": 0.001}, 84),                          # 83 * 11 + 86 = 999
    ({"cost": 0.000999}, 84), ({"cost": 0.000998}, 83),
    ({"tokens": 500}, 65),                          # 64 * 7 + 46 = 494
    ({"requests": 30}, 30),
    ({"cost": 0.001, "tokens": 500, "requests": 70}, 65),
    ({"cost": 0.00008}, 0)])
def test_the_budget_stops_before_the_first_request_that_could_pass_it(tmp_path: Path, limits: dict, number: int, concurrency: int,
                                                                     faults: dict) -> None:
    with FakeEndpoint(faults=faults, seed=3) as fake, opened(tmp_path, fake.url, concurrency=concurrency, template_tokens=10, attempts=9,
                                                             budget=budget(**limits)) as client:
        results = client.ask(asks(120))
        total = client.ledger.to_json()["all_runs"]["total"]
    assert answered(results) == list(range(number))
    assert {result.reason for result in results[number:] if isinstance(result, Unanswered)} == {"budget_spent"}
    assert (len(fake.charged), fake.prompt_tokens, fake.completion_tokens) == (number, 5 * number, 2 * number)
    assert total["cost"] == pytest.approx(11e-6 * number, abs=1e-12)
    assert (total["prompt_tokens"], total["completion_tokens"], total["uncertain_tokens"]) == (5 * number, 2 * number, 0)


@pytest.mark.parametrize("concurrency", [1, 8])
def test_where_every_attempt_is_charged_lost_answers_count_with_the_most_they_can_have_cost(tmp_path: Path, concurrency: int) -> None:
    with FakeEndpoint(faults={"reset": 0.2, "half": 0.1, "null": 0.1}, idempotent=False, seed=1) as fake, \
            opened(tmp_path, fake.url, concurrency=concurrency, template_tokens=10, attempts=9, charges="attempts",
                   budget=budget(cost=0.004)) as client:
        results = client.ask(asks(200))
        total = client.ledger.to_json()["all_runs"]["total"]
    charged = (fake.prompt_tokens * 1 + fake.completion_tokens * 3) / 1e6
    assert max(fake.charged.values()) > 1
    assert total["cost"] <= charged <= total["cost"] + total["uncertain_cost"] <= 0.004
    assert total["cost"] + total["uncertain_cost"] > 0.004 - 86e-6 * concurrency
    assert 20 < len(answered(results)) < 200


def test_an_answer_without_counts_is_estimated_and_held_against_the_budget_in_full(tmp_path: Path) -> None:
    with FakeEndpoint(faults={"no_usage": 1.0}) as fake, opened(tmp_path, fake.url, template_tokens=10,
                                                                budget=budget(tokens=100)) as client:
        results = client.ask(asks(5))
        total = client.ledger.to_json()["all_runs"]["total"]
        table = client.ledger.table()
    assert answered(results) == [0, 1]      # 45 tokens each at most, and no third
    assert (total["answers"], total["estimated"], total["prompt_tokens"], total["completion_tokens"]) == (2, 2, 4, 4)
    assert total["uncertain_tokens"] == 2 * 45 - 8
    assert "at most 82 tokens (0.0002 USD) more may have been charged, for answers that were lost or not counted" in table


def test_a_server_that_counts_more_than_a_prompt_can_have_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    reply = {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 900, "completion_tokens": 1}}
    with FakeEndpoint(hook=lambda body, headers: (200, {}, reply)) as fake, opened(tmp_path, fake.url) as client:
        client.ask(asks(5))
    assert caplog.text.count("counts 900 tokens in a prompt that can have 133; raise template_tokens, or a budget is not exact") == 1


def test_spending_adds_up_over_runs_and_a_larger_budget_goes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    with FakeEndpoint() as fake:
        for cost, number, new in ((0.0005, 38, 38), (0.0005, 38, 0), (0.001, 84, 46)):      # 37 * 11 + 86 = 493
            before = len(fake.asked)
            with opened(tmp_path, fake.url, template_tokens=10, budget=budget(cost=cost)) as client:
                results = client.ask(asks(120))
                run = client.ledger.to_json()["this_run"]["total"]
            assert answered(results) == list(range(number))
            assert (run["answered"], run["cached"], run["budget_spent"]) == (new, number - new, 120 - number)
            assert len(fake.asked) - before == new
    assert set(fake.charged.values()) == {1}


def test_answers_that_are_kept_cost_nothing_though_the_budget_is_spent(tmp_path: Path) -> None:
    with FakeEndpoint() as fake, opened(tmp_path, fake.url, template_tokens=10, budget=budget(requests=3)) as client:
        first = client.ask(asks(3))
        mixed = client.ask([asks(4)[3], *asks(3)])
    assert answered(first) == [0, 1, 2]
    assert answered(mixed) == [1, 2, 3]
    assert len(fake.asked) == 3


def test_one_request_in_a_thousand_that_does_not_fit_ends_the_sending_for_the_smaller_ones_too(tmp_path: Path) -> None:
    requests: list[Request] = [*asks(2), *asks(1, max_tokens=1000), *asks(5)[2:]]
    with FakeEndpoint() as fake, opened(tmp_path, fake.url, template_tokens=10, budget=budget(tokens=400)) as client:
        results = client.ask(requests)
    assert answered(results) == [0, 1]
    assert isinstance(results[2], Unanswered)
    assert results[2].detail == "14 tokens and 0.000022 USD are spent; the next request can have 1025 and cost 0.003025"


@pytest.mark.parametrize(("price", "cost"), [(Price(prompt=0.15, completion=0.6), 0.00195), (Price(prompt=0.1, completion=0.2), 0.0009)])
def test_money_is_exact_for_prices_that_binary_numbers_cannot_hold(tmp_path: Path, price: Price, cost: float) -> None:
    with FakeEndpoint() as fake, opened(tmp_path, fake.url, price=price) as client:
        client.ask(asks(1000))
        total = client.ledger.to_json()["all_runs"]["total"]
    assert total["cost"] == cost        # 5,000 and 2,000 tokens
