"""From a file of conversations to masked packed tokens on disk: mft beside three peers and the bare tokenizer, on one core.

    PYTHONPATH=scripts python scripts/bench/data.py --data rows.jsonl.gz ... --tokenizer FOLDER
        [--format codefuse] [--context 4096] [--rounds 5] [--limit N] [--prove 2000] [--json]

All run in one process on one CPU, in turns; each round is A B C ... once. The first round is not counted: from it ids and labels
of every row are compared, and of up to `--prove` differing rows of each, evenly spread, the cause is proven (peers_agreement.py).
No ratio is printed (exit code 3) when one has no proven cause, or when a timed run holds other tokens than that one. A ratio is
taken within each round; median, least and most are shown.
Seconds, rates and ratios are of CPU time, so that waiting on a busy machine does not count; wall time stands beside it.
Tokenizers are loaded before the clock starts, an empty word cache is filled after.
"""

import argparse
import gc
import json
import logging
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.update({"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"})

from peer_rows import quiet
from peers_agreement import Agreement, agreements
from peers_encoding import CONTESTANTS, Bare, BareFast, Contestant, Ours, OursCached, Tally
from peers_inputs import FORMATS, Inputs, Source, make_inputs

from mft.errors import MftError


class Disagreement(Exception):
    """A contestant did not do the same work."""


def pin_to_one_cpu() -> int:
    """Keep this process and its children on the last CPU that it may use; returns its number."""
    cpu = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpu})
    return cpu


def timed(contestant: Contestant, scratch: Path) -> tuple[Any, dict[str, float]]:
    """One run in a folder of its own: what it made, wall and CPU seconds."""
    contestant.prepare()
    with TemporaryDirectory(dir=scratch) as folder, quiet():
        gc.collect()
        wall, cpu = time.perf_counter(), time.process_time()
        made = contestant.run(Path(folder))
        seconds = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
        tally = contestant.tally(made)
    return (made, tally), seconds


def checked_round(contestants: Sequence[Contestant], inputs: Inputs, scratch: Path,
                  prove: int | None) -> dict[str, tuple[Agreement | None, Tally]]:
    """The round that is not counted.

    Raises:
        Disagreement: ids or labels differ without a proven cause, or a packing lost or cut something.
    """
    made, tallies = {}, {}
    for contestant in contestants:
        note(f"warm-up: {contestant.name}")
        (made[contestant.name], tallies[contestant.name]), _ = timed(contestant, scratch)
    note("comparing ids and labels")
    found = {agreement.name: agreement for agreement in agreements(inputs, made, prove)}
    for name, agreement in found.items():
        if not agreement.sound:
            raise Disagreement(f"{name}: {agreement.causes.get('unexplained', 0)} of {agreement.proven} rows differ from mft's without a "
                               "proven cause; see scripts/compare_ids.py. No ratio is printed")
        if not agreement.fits(tallies[name]):
            raise Disagreement(f"{name}: packed {tallies[name]}, but its rows hold {agreement.samples} samples, {agreement.tokens} tokens, "
                               f"{agreement.trained} trained. No ratio is printed")
    return {name: (found.get(name), tally) for name, tally in tallies.items()}


def rounds_of(contestants: Sequence[Contestant], rounds: int, expected: Mapping[str, Tally], scratch: Path) -> list[dict[str, dict]]:
    """The counted rounds: for each, seconds by contestant.

    Raises:
        Disagreement: a run came out with other samples, tokens or rows than the checked one.
    """
    results = []
    for number in range(1, rounds + 1):
        seconds = {}
        for contestant in contestants:
            (made, tally), seconds[contestant.name] = timed(contestant, scratch)
            del made
            if tally != expected[contestant.name]:
                raise Disagreement(f"{contestant.name}, round {number}: {tally}, checked was {expected[contestant.name]}")
        note(f"round {number} of {rounds}: " + ", ".join(f"{name} {one['cpu_s']:.2f} s" for name, one in seconds.items()))
        results.append(seconds)
    return results


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and most."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def summary(name: str, results: Sequence[Mapping[str, Mapping[str, float]]], rows: int, tokens: Mapping[str, int]) -> dict[str, Any]:
    """One contestant's figures, of CPU time but for `wall_s`: rates at the median; ratios to mft and the bare tokenizer by round."""
    taken = {each: [seconds[each]["cpu_s"] for seconds in results] for each in (name, Ours.name, OursCached.name, Bare.name, BareFast.name)}
    middle = statistics.median(taken[name])
    facts: dict[str, Any] = {"cpu_s": spread(taken[name]), "wall_s": spread([seconds[name]["wall_s"] for seconds in results]),
                             "rows_per_s": rows / middle, "tokens": tokens[name], "tokens_per_s": tokens[name] / middle}
    for ours in (Ours.name, OursCached.name):
        facts[f"{ours} is times as fast"] = spread([one / two for one, two in zip(taken[name], taken[ours], strict=True)])
    for bare in (Bare.name, BareFast.name):
        share = tokens[name] / tokens[bare]
        facts[f"tokens/s of {bare}"] = spread([share * two / one for one, two in zip(taken[name], taken[bare], strict=True)])
    return facts


def run(options: argparse.Namespace) -> dict[str, Any]:
    """The whole benchmark as plain data."""
    cpu, load = pin_to_one_cpu(), os.getloadavg()
    with TemporaryDirectory() as scratch:
        (folder := Path(scratch, "inputs")).mkdir()
        inputs = make_inputs(options.data, options.tokenizer, options.format, options.context, folder, options.limit)
        contestants = [contestant(inputs) for contestant in CONTESTANTS]
        checked = checked_round(contestants, inputs, Path(scratch), options.prove)
        tallies = {name: tally for name, (_, tally) in checked.items()}
        results = rounds_of(contestants, options.rounds, tallies, Path(scratch))
    rows, tokens = len(inputs.conversations), {name: tally.tokens for name, tally in tallies.items()}
    return {
        "machine": {"cpu": cpu_model(), "cpus": os.cpu_count(), "pinned_to": cpu, "load_before": load, "load_after": os.getloadavg()},
        "format": options.format, "context": options.context, "rounds": options.rounds, "rows": rows,
        "characters": sum(map(len, inputs.texts)), "left_out": dict(inputs.left_out),
        "agreement": {name: {"rows": one.rows, "equal": one.equal, "different": one.rows - one.equal,
                             "proven": one.proven, "causes": dict(one.causes)}
                      for name, (one, _) in checked.items() if one is not None},
        "contestants": {name: {**summary(name, results, rows, tokens), "packed_rows": tally.rows}
                        for name, tally in tallies.items()},
        "round_seconds": results,
    }


def cpu_model() -> str:
    """The processor by the name that the kernel gives."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def show(result: Mapping[str, Any]) -> None:
    """The result as tables."""
    machine = result["machine"]
    print(f"{machine['cpu']}, {machine['cpus']} CPUs, all on CPU {machine['pinned_to']}; load average before "
          f"{' '.join(f'{one:.2f}' for one in machine['load_before'])}, after {' '.join(f'{one:.2f}' for one in machine['load_after'])}")
    print(f"{result['rows']:,} rows, {result['characters']:,} characters as rendered, format {result['format']}, packed rows of "
          f"{result['context']} tokens; left out: {result['left_out'] or 'none'}; {result['rounds']} rounds\n")
    print("| ids and labels | rows | equal to mft's | different | of which proven, by cause |\n|---|---|---|---|---|")
    for name, one in result["agreement"].items():
        causes = "; ".join(f"{cause} {count:,}" for cause, count in one["causes"].items()) or "-"
        print(f"| {name} | {one['rows']:,} | {one['equal']:,} | {one['different']:,} | {one['proven']:,}: {causes} |")
    ratios = [f"{name} is times as fast" for name in (Ours.name, OursCached.name)]
    shares = [f"tokens/s of {name}" for name in (Bare.name, BareFast.name)]
    print("\n| | CPU s (least-most) | wall s | rows/s | tokens/s | packed rows | " + " | ".join([*ratios, *shares]) + " |")
    print("|" + "---|" * (7 + len(ratios) + len(shares)))
    for name, one in result["contestants"].items():
        print(f"| {name} | {_spread(one['cpu_s'], '.2f')} | {one['wall_s']['median']:.2f} | {one['rows_per_s']:,.0f} "
              f"| {one['tokens_per_s']:,.0f} | {one['packed_rows']:,} | " + " | ".join(_spread(one[key], ".2f") for key in ratios) + " | "
              + " | ".join(_spread(one[key], ".1%") for key in shares) + " |")


def _spread(values: Mapping[str, float], form: str) -> str:
    return f"{values['median']:{form}} ({values['min']:{form}}-{values['max']:{form}})"


def note(text: str) -> None:
    """Say how far it is, beside the result."""
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Source.parse, nargs="+", required=True,
                        help="files of conversations: PATH, or PATH={type: ...} with a converter")
    parser.add_argument("--tokenizer", type=Path, required=True, help="a folder with tokenizer.json and tokenizer_config.json")
    parser.add_argument("--format", choices=FORMATS, default="codefuse", help="a prompt format that MFTCoder writes")
    parser.add_argument("--context", type=int, default=4096, help="tokens of a packed row")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--limit", type=int, help="rows of each file, evenly spread")
    parser.add_argument("--prove", type=int, default=2000, help="differing rows of each contestant whose cause is looked for")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    options = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    try:
        result = run(options)
    except MftError as error:
        note(str(error))
        return 2
    except Disagreement as error:
        note(str(error))
        return 3
    if options.json:
        print(json.dumps(result, ensure_ascii=False))
    else:
        show(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
