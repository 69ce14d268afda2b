"""Every row once, the same rows a step for every number of ranks, like work for all."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mft.errors import DataError
from mft.tokenization.dealing import attention_weight, deal_epoch, deal_step, row_costs, waiting
from mft.tokenization.packing import pack

LAWS = settings(derandomize=True, database=None, deadline=None, max_examples=60)
COSTS = st.lists(st.integers(1, 9), min_size=0, max_size=70)


def rows_of(deal):
    return [row for own in deal for batch in own for row in batch]


def order_of(count, seed=0):
    return np.random.default_rng(seed).permutation(count).tolist()


@LAWS
@given(COSTS, st.integers(0, 3))
def test_every_row_is_dealt_once_and_steps_hold_the_same_rows_for_every_number_of_ranks(costs, seed):
    order, values = order_of(len(costs), seed), np.array(costs, dtype=np.float64)
    steps = {}
    for ranks, rows_per_rank in ((1, 1), (2, 1), (3, 2), (4, 3), (12, 1)):
        deals = list(deal_epoch(order, values, ranks=ranks, rows_per_rank=rows_per_rank, global_rows=12))
        steps[ranks, rows_per_rank] = [sorted(rows_of(deal)) for deal in deals]
        assert sorted(row for step in steps[ranks, rows_per_rank] for row in step) == list(range(len(costs)))
    assert all(found == steps[1, 1] for found in steps.values())
    assert steps[1, 1] == [sorted(order[start:start + 12]) for start in range(0, len(order), 12)]


@LAWS
@given(COSTS, st.integers(1, 5), st.integers(1, 3))
def test_all_ranks_have_equally_many_micro_steps_and_only_the_last_rows_of_an_epoch_leave_room(costs, ranks, rows_per_rank):
    deal = deal_step(range(len(costs)), np.array(costs, dtype=np.float64), ranks, rows_per_rank)
    micro_steps = -(-len(costs) // (ranks * rows_per_rank))
    assert [len(own) for own in deal] == [micro_steps] * ranks
    assert all(len(batch) == rows_per_rank for own in deal for batch in own[:-1])
    assert all(len(batch) <= rows_per_rank for own in deal for batch in own)


@LAWS
@given(st.lists(st.integers(1, 9), min_size=2, max_size=30), st.randoms(use_true_random=False))
def test_a_deal_does_not_depend_on_the_order_of_a_steps_rows(costs, random):
    values, shuffled = np.array(costs, dtype=np.float64), list(range(len(costs)))
    random.shuffle(shuffled)
    assert deal_step(shuffled, values, 2, 2) == deal_step(range(len(costs)), values, 2, 2)


def test_rows_of_like_cost_run_side_by_side_and_the_ranks_make_up_for_each_other():
    costs = np.array([10.0, 1.0, 9.0, 2.0, 5.0, 5.0])
    assert deal_step([0, 1, 2, 3, 4, 5], costs, ranks=2, rows_per_rank=1) == [[[0], [4], [1]], [[2], [5], [3]]]


def test_a_micro_batch_of_several_rows_takes_the_lightest_with_the_heaviest():
    costs = np.array([8.0, 7.0, 2.0, 1.0])
    assert deal_step([0, 1, 2, 3], costs, ranks=2, rows_per_rank=2) == [[[0, 3]], [[1, 2]]]


def test_a_last_step_with_too_few_rows_leaves_ranks_without_any_but_with_the_step():
    deals = list(deal_epoch([0, 1, 2, 3, 4], np.ones(5), ranks=4, rows_per_rank=1, global_rows=4))
    assert deals == [[[[0]], [[1]], [[2]], [[3]]], [[[4]], [[]], [[]], [[]]]]


def test_ranks_wait_much_less_than_when_rows_are_dealt_in_order():
    lengths = np.clip(np.random.default_rng(0).lognormal(6.0, 1.2, 4000).round(), 1, 4096).astype(int).tolist()
    rows = pack(lengths, 4096)
    costs = row_costs(lengths, rows, attention_weight(6.74e9, 32, 4096))
    order = order_of(len(rows) // 64 * 64)
    plain = [[[order[start + step * 8 + rank:][:1] for step in range(8)] for rank in range(8)] for start in range(0, len(order), 64)]
    dealt = list(deal_epoch(order, costs, ranks=8, rows_per_rank=1, global_rows=64))
    for per_micro_step, better in ((True, 4), (False, 4)):
        before, after = (np.mean([waiting(deal, costs, per_micro_step=per_micro_step) for deal in deals]) for deals in (plain, dealt))
        assert after * better < before


def test_a_rows_cost_is_its_tokens_and_the_weighted_squares_of_its_samples():
    assert row_costs([3, 4, 5], [[0, 1], [2], []], weight=0.5).tolist() == [7 + 0.5 * (9 + 16), 5 + 0.5 * 25, 0.0]


@pytest.mark.parametrize(("ranks", "rows_per_rank", "global_rows", "message"), [
    (3, 1, 8, "8 rows a step cannot be dealt to 3 ranks by 1; give a multiple of 3"),
    (2, 3, 8, "give a multiple of 6"),
    (0, 1, 8, "all three must be at least 1")])
def test_numbers_that_do_not_fit_are_refused(ranks, rows_per_rank, global_rows, message):
    with pytest.raises(DataError, match=message):
        list(deal_epoch([0], np.ones(1), ranks=ranks, rows_per_rank=rows_per_rank, global_rows=global_rows))
