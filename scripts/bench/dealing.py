"""How long ranks wait for each other: packed rows dealt by cost beside rows dealt in the order of the epoch.

    python scripts/bench/dealing.py [--samples 600000] [--mean 500] [--sigma 0.8] [--global-rows 64] [--seed 0]

Lognormal lengths, cut to the capacity, are packed by `mft.tokenization.packing.pack` and shuffled; one epoch is dealt. Costs are those of
a 7B Llama (T + weight * sum of squared lengths); time is taken as proportional to cost, so the figures are a share of the ranks' time
and say nothing of communication. `in order`: row i of a micro-step goes to rank i. Two moments at which ranks wait: at the end of each
micro-step (sharded weights) and at the end of each optimizer step (DDP).
"""

import argparse
import time

import numpy as np

from mft.tokenization.dealing import Deal, attention_weight, deal_epoch, row_costs, waiting
from mft.tokenization.packing import fill, pack

CAPACITIES = (4096, 16384)
RANKS = (2, 8, 16)


def in_order(rows: list[int], ranks: int) -> Deal:
    """Row i to rank i, one row a micro-batch."""
    steps = -(-len(rows) // ranks)
    return [[rows[step * ranks + rank:step * ranks + rank + 1] for step in range(steps)] for rank in range(ranks)]


def spread(deal: Deal, values: np.ndarray) -> float:
    """Largest over mean of what the ranks get of something in one step, minus 1."""
    sums = np.array([sum(values[batch].sum() for batch in own if batch) for own in deal])
    return float(sums.max() / sums.mean() - 1)


def table(options: argparse.Namespace, capacity: int) -> None:
    drawn = np.random.default_rng(0).lognormal(np.log(options.mean) - options.sigma ** 2 / 2, options.sigma, options.samples)
    lengths = np.clip(drawn.round(), 1, capacity).astype(int).tolist()
    rows = pack(lengths, capacity, options.seed)
    weight = attention_weight(6.74e9, 32, 4096)
    costs, tokens = row_costs(lengths, rows, weight), row_costs(lengths, rows, 0.0)
    squares = (costs - tokens) / weight
    order = np.random.default_rng(options.seed).permutation(len(rows)).tolist()
    print(f"\n{options.samples:,} samples, mean {np.mean(lengths):.0f}, {len(rows):,} rows of {capacity} "
          f"({fill(lengths, rows, capacity):.3%} full); attention {1 - tokens.sum() / costs.sum():.1%} of the cost; a row's cost "
          f"{costs.min():.0f} to {costs.max():.0f}, mean {costs.mean():.0f}; {options.global_rows} rows a step")
    print("| ranks | dealt | waiting, per micro-step | waiting, per step | worst step | squares, largest rank | "
          "tokens, largest rank | seconds |\n"
          "|---|---|---|---|---|---|---|---|")
    for ranks in RANKS:
        size = options.global_rows
        plain = [in_order(order[start:start + size], ranks) for start in range(0, len(order), size)]
        start = time.process_time()
        dealt = list(deal_epoch(order, costs, ranks=ranks, rows_per_rank=1, global_rows=size))
        seconds = time.process_time() - start
        for name, deals in (("in order", plain), ("by cost", dealt)):
            whole = deals[:len(order) // size]    # the last step may be short of rows, which no deal can mend
            micro = np.mean([waiting(deal, costs, per_micro_step=True) for deal in whole])
            steps = [waiting(deal, costs, per_micro_step=False) for deal in whole]
            apart = np.mean([spread(deal, squares) for deal in whole]), np.mean([spread(deal, tokens) for deal in whole])
            print(f"| {ranks} | {name} | {micro:.3%} | {np.mean(steps):.3%} | {max(steps):.3%} | +{apart[0]:.2%} | +{apart[1]:.4%} | "
                  f"{f'{seconds:.2f}' if name == 'by cost' else ''} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=600_000)
    parser.add_argument("--mean", type=float, default=500)
    parser.add_argument("--sigma", type=float, default=0.8)
    parser.add_argument("--global-rows", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for capacity in CAPACITIES:
        table(options, capacity)


if __name__ == "__main__":
    main()
