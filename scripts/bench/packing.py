"""How fast and how full: mft's packing beside trl's best-fit decreasing, on the same lengths, in turns.

    python scripts/bench/packing.py [--samples 600000] [--capacity 4096] [--mean 500] [--sigma 0.8] [--rounds 5]

trl packs a table of tokens; here its table holds nulls, which take no memory, so that only the choice of rows is timed.
`trl, per 1000` is what `trl.pack_dataset` does unless told otherwise; `trl, all at once` has the larger view that mft has.
mft returns indices by row, trl the table in its new order. Seconds are CPU time: waiting on a busy machine does not count.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pyarrow as pa
from trl.data_utils import _pack_bfd

from mft.tokenization.packing import pack


def lognormal_lengths(samples: int, mean: float, sigma: float, capacity: int) -> list[int]:
    """Whole numbers from 1 to `capacity` around a lognormal curve with this mean."""
    draw = np.random.default_rng(0).lognormal(np.log(mean) - sigma * sigma / 2, sigma, samples)
    return np.clip(draw.round(), 1, capacity).astype(int).tolist()


def trl_rows(lengths: Sequence[int], capacity: int, batch: int) -> int:
    """Number of rows that trl makes of `lengths`, looking at `batch` samples at a time."""
    rows = 0
    for start in range(0, len(lengths), batch):
        ends = np.cumsum([0, *lengths[start:start + batch]], dtype=np.int32)
        tokens = pa.ListArray.from_arrays(pa.array(ends), pa.nulls(int(ends[-1])))
        rows += _pack_bfd(pa.table({"input_ids": tokens}), capacity).num_rows
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=600_000)
    parser.add_argument("--capacity", type=int, default=4096)
    parser.add_argument("--mean", type=float, default=500)
    parser.add_argument("--sigma", type=float, default=0.8)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    lengths = lognormal_lengths(options.samples, options.mean, options.sigma, options.capacity)
    contestants: dict[str, Callable[[], int]] = {
        "mft": lambda: len(pack(lengths, options.capacity)),
        "trl, per 1000": lambda: trl_rows(lengths, options.capacity, 1000),
        "trl, all at once": lambda: trl_rows(lengths, options.capacity, len(lengths)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    rows: dict[str, int] = {}
    for _ in range(options.rounds):
        for name, run in contestants.items():
            start = time.process_time()
            rows[name] = run()
            seconds[name].append(time.process_time() - start)
    fewest = -(-sum(lengths) // options.capacity)
    print(f"{len(lengths):,} lengths, mean {statistics.mean(lengths):.0f}, capacity {options.capacity}; "
          f"at least {fewest:,} rows are needed")
    print(f"{'':18}{'best s':>9}{'median s':>10}{'rows':>10}{'fill':>10}{'times mft':>11}")
    for name, times in seconds.items():
        full = sum(lengths) / (rows[name] * options.capacity)
        ratio = statistics.median(times) / statistics.median(seconds["mft"])
        print(f"{name:18}{min(times):9.3f}{statistics.median(times):10.3f}{rows[name]:10,}{full:10.4%}{ratio:11.1f}")


if __name__ == "__main__":
    main()
