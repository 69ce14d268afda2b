"""Which rank computes which packed row: the same work for all of them, in every step and every micro-step.

A rank that is done first waits for the slowest. Packed rows have nearly the same number of tokens, so the projections cost the
same; attention costs the sum of the squared lengths of a row's samples, which differs from row to row by a factor.

    order   3 1 0 | 2 4 5 | ...            global steps of 3 rows: cut from the seeded order, whatever the number of ranks
    dealt   one rank [3] [1] [0]           three ranks  [3] [1] [0] side by side: the costliest rows of a step meet each other

The rows of a global step depend on the order alone. So a run that is resumed on another number of ranks sees, at every step, the rows
that it would have seen, and no row twice.
"""

import heapq
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from mft.errors import DataError

Floats = NDArray[np.float64]
Deal = list[list[list[int]]]
"""`deal[rank][micro_step]`: the rows of one micro-batch. All ranks have the same number of micro-steps."""


def attention_weight(parameters: float, layers: int, hidden_size: int) -> float:
    """What one unit of squared length costs, in units of one token: FLOPs of causal attention over those of the projections.

    Forward, a token costs 2 P in the projections (P parameters); a sample of n tokens costs 2 L d n^2 in attention (L layers, width d:
    scores and values, 2 n^2 d each, halved by the causal mask). Backward doubles both, recomputing adds the same share to both.

    >>> f"{16384 * attention_weight(6.74e9, 32, 4096):.3f}"     # a sample of 16k tokens of a 7B model: a quarter of all FLOPs
    '0.319'
    """
    return layers * hidden_size / parameters


def row_costs(lengths: Sequence[int], rows: Sequence[Sequence[int]], weight: float) -> Floats:
    """Cost of each packed row, in tokens: T + weight * sum(n^2) over the row's samples of n tokens.

    Args:
        lengths: tokens of each sample. rows: indices of samples by row, as `pack` gives them. weight: see `attention_weight`.
    """
    sizes = np.asarray(lengths, dtype=np.float64)
    members = np.fromiter((index for row in rows for index in row), np.int64)
    row_of = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    own = sizes[members] if len(members) else np.zeros(0)
    costs = np.zeros(len(rows))
    np.add.at(costs, row_of, own + weight * own * own)
    return costs


def deal_epoch(order: Sequence[int], costs: Floats, *, ranks: int, rows_per_rank: int, global_rows: int) -> Iterator[Deal]:
    """The deal of each global step of an epoch, in turn; every row of `order` is in exactly one of them.

    The last step has fewer rows if `global_rows` does not divide them: fewer micro-steps, and in its last one some ranks may have fewer
    rows than `rows_per_rank`, or none.

    Args:
        order: the rows of an epoch, as the seed shuffled them. costs: of each row, see `row_costs`.
        ranks: how many there are. rows_per_rank: rows of one micro-batch. global_rows: rows of one optimizer step.

    Raises:
        DataError: the numbers are not positive, or `global_rows` is no multiple of `ranks * rows_per_rank`.
    """
    if min(ranks, rows_per_rank, global_rows) < 1:
        raise DataError(f"{ranks} ranks of {rows_per_rank} rows and {global_rows} rows a step: all three must be at least 1")
    if global_rows % (ranks * rows_per_rank):
        raise DataError(f"{global_rows} rows a step cannot be dealt to {ranks} ranks by {rows_per_rank}; "
                        f"give a multiple of {ranks * rows_per_rank}")
    for start in range(0, len(order), global_rows):
        yield deal_step(order[start:start + global_rows], costs, ranks, rows_per_rank)


def deal_step(rows: Sequence[int], costs: Floats, ranks: int, rows_per_rank: int) -> Deal:
    """Deal the rows of one step; the result does not depend on the order in which they are given.

    Rows are sorted by cost and cut into micro-steps, so that rows of like cost run side by side (for one row a micro-batch no other
    grouping waits less). Inside a micro-step each row, the costliest first, goes to the rank with the least of it so far that still
    has room; of equal ranks to the one with the least of the whole step. The micro-steps with the most unequal rows are decided first,
    so that the others can make up for them. The costliest runs first: if memory does not suffice, that shows at once.

    >>> deal_step([0, 1, 2, 3], np.array([1.0, 9.0, 8.0, 2.0]), ranks=2, rows_per_rank=1)
    [[[1], [0]], [[2], [3]]]

    Source: longest processing time first, Graham 1969, with a bound on the number of rows.
    """
    falling = sorted((int(row) for row in rows), key=lambda row: (-costs[row], row))
    width = ranks * rows_per_rank
    groups = [falling[start:start + width] for start in range(0, len(falling), width)]
    dealt: Deal = [[[] for _ in groups] for _ in range(ranks)]
    totals = [0.0] * ranks
    for micro_step in sorted(range(len(groups)), key=lambda step: (_unevenness(groups[step], costs, width), step)):
        batches = _deal_group(groups[micro_step], costs, totals, rows_per_rank)
        for rank, batch in enumerate(batches):
            dealt[rank][micro_step] = batch
            totals[rank] += float(sum(costs[row] for row in batch))
    return dealt


def _unevenness(group: Sequence[int], costs: Floats, width: int) -> float:
    """Minus the difference that a group may make between two ranks; a group with too few rows leaves one without any."""
    lightest = costs[group[-1]] if len(group) == width else 0.0
    return float(lightest - costs[group[0]])


def _deal_group(group: Sequence[int], costs: Floats, totals: Sequence[float], rows_per_rank: int) -> list[list[int]]:
    """The rows of one micro-step by rank, each rank getting at most `rows_per_rank`."""
    batches: list[list[int]] = [[] for _ in totals]
    queue = [(0.0, total, rank) for rank, total in enumerate(totals)]
    heapq.heapify(queue)
    for row in group:
        load, total, rank = heapq.heappop(queue)
        batches[rank].append(row)
        if len(batches[rank]) < rows_per_rank:
            heapq.heappush(queue, (load + float(costs[row]), total, rank))
    return batches


def waiting(deal: Deal, costs: Floats, *, per_micro_step: bool) -> float:
    """Share of the ranks' time that is spent waiting for the slowest, from 0 to 1 (time taken as proportional to cost).

    `per_micro_step`: the ranks meet after each micro-step (sharded weights: ZeRO-3, FSDP), not only at the end of the step.

    >>> costs = np.array([3.0, 1.0, 1.0, 3.0])
    >>> waiting([[[0], [1]], [[2], [3]]], costs, per_micro_step=True), waiting([[[0], [1]], [[2], [3]]], costs, per_micro_step=False)
    (0.33333333333333337, 0.0)
    """
    loads = np.array([[costs[batch].sum() if batch else 0.0 for batch in own] for own in deal])   # [ranks, micro-steps]
    slowest = loads.max(axis=0).sum() if per_micro_step else loads.sum(axis=1).max()
    return float(1 - loads.sum() / (len(deal) * slowest)) if slowest else 0.0
