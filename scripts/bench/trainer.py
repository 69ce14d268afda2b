"""What exact multi-task training costs: mft's trainer beside trl.SFTTrainer on the same packed rows.

    PYTHONPATH=scripts/bench python scripts/bench/trainer.py [--data BUILT] [--pairs 7] [--steps 4] [--warmup 1] [--rows 4]
        [--context 1024] [--balance task_token_mean] [--json]

The quickstart's model and settings (built-in base, NF4, LoRA of rank 16 with dropout), `--rows` packed rows a step, one at a time, a
constant rate, a log line every step, no recomputation, no checkpoint. Without `--data` (a folder of `mft data build`) the quickstart's
recipe is built first. mft is `mft.training.run.train`, whole. TRL is SFTTrainer at its fastest for such rows: ready `input_ids`,
`labels` and `seq_lengths`, padding-free, preparation skipped, its fused head, the adapter in bf16 as it always holds it under
4-bit weights (mft: float32).

One process, on one CPU where there is no GPU, in turns: A B A B. The first pair is not counted: under `token_mean`, without dropout, it
shows that both embeddings get the same ids in the same order (sha256) and that the losses of every step agree. In a counted pair the
first step's losses must agree (before a weight has moved the balance changes nothing), and the tokens of every step. Where
anything differs, no ratio is printed and the exit code is 3.
Clocks are read after every optimizer step; counted is from the end of step `--warmup` to the end of the last. A ratio is TRL's seconds
by mft's in one pair: above 1, mft is faster. The interval is that of the median by order statistics, of at least 95%.
"""

import argparse
import json
import logging
import math
import os
import statistics
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

# One thread, that does not spin: several on the one CPU that the bench keeps to would wait for each other most of the time.
os.environ.update({"OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "3000", "TOKENIZERS_PARALLELISM": "false"})

import torch
import transformers
from trainer_contestants import Seen, Work, make_work, run_mft, run_trl

from mft.data.pipeline import build
from mft.errors import MftError
from mft.modeling.base import resolve_base
from mft.modeling.config import AdapterConfig, ModelConfig, QuantizationConfig
from mft.training.config import TasksConfig, TrainingConfig
from mft.training.job import TrainJob
from mft.training.tokens import encode_run

ROOT = Path(__file__).resolve().parents[2]
BASE = "tiny-code-llama"
CONTESTANTS = {"mft": run_mft, "trl": run_trl}
AGREE = 1e-3
"""Largest relative difference of two losses over the same tokens in bf16, while the weights are the same or nearly so."""


class Disagreement(Exception):
    """The two did not do the same work."""


def make_job(options: argparse.Namespace) -> TrainJob:
    """The quickstart's job with these rows and steps."""
    training = TrainingConfig(max_steps=options.steps + options.warmup, global_batch_rows=options.rows, micro_batch_rows=1,
                              learning_rate=options.learning_rate, schedule="constant", warmup=0, weight_decay=0.0, clip=1.0, seed=1234,
                              recompute="none", log_every=1, evaluate_every=0, checkpoint_every=0)
    model = ModelConfig(base=BASE, format="codefuse", context=options.context)
    return TrainJob(resolve_base(BASE), model, QuantizationConfig(type="nf4", double_quant=True, compute_dtype="bf16"),
                    AdapterConfig(rank=16, alpha=32, dropout=0.05), TasksConfig(balance=options.balance), training)


def without_noise(work: Work) -> Work:
    """The same rows under TRL's loss, without dropout, so that every step's loss can be compared."""
    job = work.job
    return replace(work, job=replace(job, adapter=job.adapter.model_copy(update={"dropout": 0.0}), tasks=TasksConfig(balance="token_mean")))


def check_same_work(work: Work, seen: dict[str, Seen], steps: Sequence[int]) -> float:
    """The largest relative difference of the losses of `steps`.

    Raises:
        Disagreement: other ids, other numbers of tokens, or losses further apart than AGREE.
    """
    expected = [work.tokens_of_step(step) for step in range(work.steps)]
    for name, one in seen.items():
        if one.tokens != expected or len(one.losses) != work.steps or len(one.wall_s) != work.steps:
            raise Disagreement(f"{name}: tokens by step {one.tokens}, expected {expected}; {len(one.losses)} losses, "
                               f"{len(one.wall_s)} optimizer steps. No ratio is printed")
    if len({one.ids_sha256 for one in seen.values()}) != 1:
        raise Disagreement("the two embeddings were given other ids, or in another order. No ratio is printed")
    ours, theirs = (seen[name].losses for name in CONTESTANTS)
    worst = max(abs(ours[step] - theirs[step]) / abs(theirs[step]) for step in steps)
    if not worst <= AGREE:
        raise Disagreement(f"losses differ by {worst:.2e} of their value, more than {AGREE:g}: mft {ours}, trl {theirs}. "
                           "No ratio is printed")
    return worst


def median_interval(values: Sequence[float]) -> dict[str, float]:
    """The median, and the narrowest symmetric pair of order statistics that holds the true one with at least 95%.

    Source: the sign test's interval: with n values, the k-th least and the k-th most miss it with 2 * P(Binomial(n, 1/2) < k).

    >>> median_interval([5.0, 1.0, 2.0, 3.0, 4.0, 6.0, 7.0])
    {'median': 4.0, 'low': 1.0, 'high': 7.0, 'coverage': 0.984375}
    """
    ordered, n = sorted(values), len(values)

    def coverage(k: int) -> float:
        return 1 - 2 * sum(math.comb(n, i) for i in range(k)) / 2 ** n

    k = max([1, *(k for k in range(1, n // 2 + 1) if coverage(k) >= 0.95)])
    return {"median": statistics.median(ordered), "low": ordered[k - 1], "high": ordered[-k], "coverage": coverage(k)}


def pair(work: Work, folder: Path, hash_ids: bool = False) -> dict[str, Seen]:
    """Both, one after the other."""
    return {name: contestant(work, folder, hash_ids) for name, contestant in CONTESTANTS.items()}


def run(options: argparse.Namespace) -> dict[str, Any]:
    """The whole benchmark as plain data.

    Raises:
        Disagreement: see `check_same_work`.
    """
    cpu, load = pin_to_one_cpu(), os.getloadavg()
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        data = options.data or build(ROOT / "data_recipes" / "python-stdlib.yaml", folder / "data").out
        job = make_job(options)
        work = make_work(job, encode_run(data, job.base, job.model, folder / "tokens"))
        note("pair 0, not counted: same ids, same losses?")
        proving = without_noise(work)
        worst = check_same_work(proving, pair(proving, folder, hash_ids=True), range(work.steps))
        seconds: list[dict[str, dict[str, float]]] = []
        for number in range(1, options.pairs + 1):
            seen = pair(work, folder)
            check_same_work(work, seen, [0])
            seconds.append({name: one.seconds(options.warmup) for name, one in seen.items()})
            note(f"pair {number} of {options.pairs}: " + ", ".join(f"{name} {one['wall_s']:.2f} s" for name, one in seconds[-1].items()))
    counted = sum(work.tokens_of_step(step) for step in range(options.warmup, work.steps))
    return {
        "machine": {"device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu", "cpus": os.cpu_count(),
                    "pinned_to": cpu, "load_before": load, "load_after": os.getloadavg()},
        "versions": {name: version(name) for name in ("torch", "transformers", "trl", "peft", "bitsandbytes")},
        "balance": options.balance, "pairs": options.pairs, "steps": options.steps, "rows_per_step": options.rows, "tokens": counted,
        "largest_loss_difference": worst,
        "tokens_per_s": {name: counted / statistics.median(one[name]["wall_s"] for one in seconds) for name in CONTESTANTS},
        "mft_is_times_as_fast": {clock: median_interval([one["trl"][clock] / one["mft"][clock] for one in seconds])
                                 for clock in ("wall_s", "cpu_s")},
        "seconds": seconds,
    }


def pin_to_one_cpu() -> int | None:
    """Without a GPU, keep this process on the last CPU that it may use; returns its number."""
    if torch.cuda.is_available():
        return None
    cpu = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpu})
    return cpu


def show(result: dict[str, Any]) -> None:
    """The result as a table."""
    machine = result["machine"]
    print(f"{machine['device']}, {machine['cpus']} CPUs, pinned to {machine['pinned_to']}; load {machine['load_before'][0]:.2f} before, "
          f"{machine['load_after'][0]:.2f} after; " + ", ".join(f"{name} {number}" for name, number in result["versions"].items()))
    print(f"{result['balance']}; {result['pairs']} pairs, each {result['steps']} steps of {result['rows_per_step']} rows, "
          f"{result['tokens']:,} tokens; losses under token_mean differ by at most {result['largest_loss_difference']:.1e}\n")
    print("| | tokens/s | |\n|---|---|---|")
    for name, rate in result["tokens_per_s"].items():
        print(f"| {name} | {rate:,.0f} | |")
    for clock, one in result["mft_is_times_as_fast"].items():
        print(f"| mft is times as fast, {clock} | {one['median']:.3f} | {one['low']:.3f} to {one['high']:.3f} ({one['coverage']:.0%}) |")


def note(text: str) -> None:
    """Say how far it is, beside the result."""
    print(text, file=sys.stderr, flush=True)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="a folder of `mft data build`; default: the quickstart's recipe, built first")
    parser.add_argument("--pairs", type=int, default=7, help="counted pairs; below 6 there is no interval of 95%%")
    parser.add_argument("--steps", type=int, default=4, help="counted optimizer steps of a run")
    parser.add_argument("--warmup", type=int, default=1, help="steps before the clock starts, at least 1")
    parser.add_argument("--rows", type=int, default=4, help="packed rows of a step, one at a time")
    parser.add_argument("--context", type=int, default=1024, help="tokens of a packed row")
    parser.add_argument("--balance", default="task_token_mean", help="mft's loss in the counted pairs")
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    if min(options.pairs, options.steps, options.warmup, options.rows) < 1:
        note("--pairs, --steps, --warmup and --rows are at least 1")
        return 2
    logging.basicConfig(level=logging.ERROR)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    warnings.simplefilter("ignore", FutureWarning)
    try:
        result = run(options)
    except MftError as error:
        note(str(error))
        return 2
    except Disagreement as error:
        note(str(error))
        return 3
    if options.json:
        print(json.dumps(result))
    else:
        show(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
