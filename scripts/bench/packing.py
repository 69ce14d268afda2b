"""How fast and how full: mft's packing beside trl's best-fit decreasing and axolotl's multipack, on the same lengths, in turns.

    python scripts/bench/packing.py [--samples 600000] [--setting 500@4096 ...] [--sigma 0.8] [--rounds 5]
        [--axolotl axolotl/src/axolotl/utils/samplers/multipack.py] [--json]

A setting is MEAN@CAPACITY of lognormal lengths. `trl, per 1000` is what `trl.pack_dataset` does unless told otherwise; `trl, all at
once` has the larger view that mft has. axolotl's own code is read from `--axolotl` (needs numba; one process, its defaults) and is
left out without it. Seconds are CPU time on one core: waiting on a busy machine does not count; a packer that takes over 10 s is
run once. Every packer gets lengths of at most the capacity, and what it makes is counted: all tokens there, no row too long. What
becomes of longer samples is said below each table, from the first 20,000 of the same draw before they were cut to the capacity.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.update({"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"})

import numpy as np
from peers_packing import TRL_BATCH, Packed, axolotl_packer, first_fit_decreasing, next_fit, of_indices, of_tables, trl_rows

from mft.errors import DataError
from mft.tokenization.packing import pack

Packer = tuple[Callable[[Sequence[int], int], Any], Callable[[Any, Sequence[int], int], Packed]]
"""A packer, which is timed, and how its result is counted, which is not."""
SLOW_S = 10.0
LONG_SAMPLES = 20_000
SETTINGS = ("300@4096", "500@4096", "700@4096", "1130@4096", "500@16384")


def lognormal_lengths(samples: int, mean: float, sigma: float) -> list[int]:
    """Whole numbers from 1 around a lognormal curve with this mean."""
    draw = np.random.default_rng(0).lognormal(np.log(mean) - sigma * sigma / 2, sigma, samples)
    return np.maximum(draw.round(), 1).astype(int).tolist()


def packers(axolotl: Path | None) -> dict[str, Packer]:
    """The packers by name, mft first."""
    def tables(made: Any, lengths: Sequence[int], capacity: int) -> Packed:
        return of_tables(made, capacity)

    found: dict[str, Packer] = {
        "mft": (pack, of_indices),
        "trl bfd, per 1000": (lambda lengths, capacity: trl_rows(lengths, capacity, TRL_BATCH), tables),
        "trl bfd, all at once": (lambda lengths, capacity: trl_rows(lengths, capacity, len(lengths)), tables),
    }
    if axolotl is not None:
        found["axolotl multipack"] = (axolotl_packer(axolotl), of_indices)
    found["textbook first-fit decreasing, per 1000"] = (first_fit_decreasing, of_indices)
    found["textbook next-fit (as MFTCoder)"] = (next_fit, of_indices)
    return found


def measure(found: Mapping[str, Packer], lengths: Sequence[int], capacity: int, rounds: int) -> dict[str, dict[str, Any]]:
    """Each packer's seconds, rows and fill.

    Raises:
        DataError: a packer lost tokens or made a row that is too long.
    """
    seconds: dict[str, list[float]] = {name: [] for name in found}
    packed: dict[str, Packed] = {}
    for _ in range(rounds):
        for name, (run, count) in found.items():
            if max(seconds[name], default=0.0) > SLOW_S:
                continue
            start = time.process_time()
            made = run(lengths, capacity)
            seconds[name].append(time.process_time() - start)
            packed[name] = count(made, lengths, capacity)
            del made
    total = sum(lengths)
    for name, one in packed.items():
        if one.tokens != total or one.overfull:
            raise DataError(f"{name}: {total - one.tokens} of {total} tokens are missing, {one.overfull} rows are longer than {capacity}")
    fewest = -(-total // capacity)
    ours = statistics.median(seconds["mft"])
    return {name: {
        "median_s": statistics.median(times), "min_s": min(times), "max_s": max(times), "runs": len(times), "rows": packed[name].rows,
        "rows_above_bound": packed[name].rows - fewest, "fill": total / (packed[name].rows * capacity),
        "times_mft": statistics.median(times) / ours} for name, times in seconds.items()}


def overlong(found: Mapping[str, Packer], lengths: Sequence[int], capacity: int) -> dict[str, Any]:
    """What each library's packer does when some samples are longer than a row: tokens that it cuts in silence, rows that are too long.

    axolotl drops such samples before it packs; its packer alone is shown here.
    """
    over = [length for length in lengths if length > capacity]
    answers: dict[str, Any] = {}
    for name, (run, count) in found.items():
        if name.startswith("textbook") or name == "trl bfd, all at once":
            continue
        try:
            packed = count(run(lengths, capacity), lengths, capacity)
            answers[name] = {"tokens_lost": sum(lengths) - packed.tokens, "rows_too_long": packed.overfull}
        except DataError as error:
            answers[name] = {"refused": str(error)}
    return {"samples": len(over), "tokens_beyond_capacity": sum(over) - len(over) * capacity, "packers": answers}


def run(options: argparse.Namespace) -> dict[str, Any]:
    """The whole benchmark as plain data."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    found, before = packers(options.axolotl), os.getloadavg()
    settings = []
    for setting in options.setting or SETTINGS:
        mean, capacity = (int(number) for number in setting.split("@"))
        drawn = lognormal_lengths(options.samples, mean, options.sigma)
        lengths = [min(length, capacity) for length in drawn]
        print(f"{setting}: {options.rounds} rounds", file=sys.stderr, flush=True)
        settings.append({"setting": setting, "samples": len(lengths), "mean": statistics.mean(lengths), "capacity": capacity,
                         "bound": -(-sum(lengths) // capacity), "packers": measure(found, lengths, capacity, options.rounds),
                         "overlong": overlong(found, drawn[:LONG_SAMPLES], capacity)})
    return {"rounds": options.rounds, "sigma": options.sigma, "load_before": before, "load_after": os.getloadavg(), "settings": settings}


def show(result: Mapping[str, Any], axolotl: Path | None) -> None:
    """The result as tables, one for each setting."""
    print(f"{result['rounds']} rounds in turns; load average before {' '.join(f'{one:.2f}' for one in result['load_before'])}, after "
          f"{' '.join(f'{one:.2f}' for one in result['load_after'])}" + ("" if axolotl else "; no --axolotl, so its packer is left out"))
    for one in result["settings"]:
        print(f"\n{one['samples']:,} lengths, mean {one['mean']:.0f}, capacity {one['capacity']}; at least {one['bound']:,} rows are "
              "needed")
        print("| packer | fill | rows | above the bound | median s (least-most) | runs | times mft |\n"
              "|---|---|---|---|---|---|---|")
        for name, facts in one["packers"].items():
            print(f"| {name} | {facts['fill']:.4%} | {facts['rows']:,} | {facts['rows_above_bound']:,} | {facts['median_s']:.3f} "
                  f"({facts['min_s']:.3f}-{facts['max_s']:.3f}) | {facts['runs']} | {facts['times_mft']:.1f} |")
        beyond = one["overlong"]
        print(f"before the cut {beyond['samples']:,} of {min(LONG_SAMPLES, one['samples']):,} samples are longer than a row, by "
              f"{beyond['tokens_beyond_capacity']:,} tokens:")
        for name, answer in beyond["packers"].items():
            said = answer.get("refused") or f"{answer['tokens_lost']:,} tokens cut in silence, {answer['rows_too_long']:,} rows too long"
            print(f"  {name}: {said}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=600_000)
    parser.add_argument("--setting", action="append", metavar="MEAN@CAPACITY", help=f"may be repeated; default: {' '.join(SETTINGS)}")
    parser.add_argument("--sigma", type=float, default=0.8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--axolotl", type=Path, help="axolotl's src/axolotl/utils/samplers/multipack.py")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    options = parser.parse_args()
    result = run(options)
    if options.json:
        print(json.dumps(result))
    else:
        show(result, options.axolotl)


if __name__ == "__main__":
    main()
