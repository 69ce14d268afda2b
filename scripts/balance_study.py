"""What each `tasks.balance` does to three unequal tasks: validation losses of every mode over seeds, on the built-in tiny base.

    export MALLOC_MMAP_THRESHOLD_=8589934592 MALLOC_TRIM_THRESHOLD_=17179869184   # glibc: keep big buffers
    OMP_NUM_THREADS=1 python scripts/balance_study.py --data DIR --out balance-study --plot balance-study/losses.png

DIR holds `<task>.jsonl.gz` in the schema of MFTCoder (`chat_rounds`). Of the tasks in `--samples` so many training samples are taken that
fit the context, in the order that the recipe's seed gives; all modes see the same rows in the same order, and differ in the loss alone.
Each run is a folder under OUT and one line of OUT/results.jsonl; the same command goes on where it was stopped. Seeds are the outer loop,
so that what was measured before a stop compares all modes.

`--trial` trains one `task_token_mean` run on equal parts of all tasks in DIR and prints by how much each validation loss fell: the way to
see which task is slow to learn.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mft.data.pipeline import build
from mft.evaluation.loss import evaluate_loss
from mft.evaluation.models import ModelUnderTest
from mft.files import append_json_line, atomic_file, write_json
from mft.hashes import sha256_json
from mft.modeling.base import resolve_base
from mft.modeling.config import AdapterConfig, ModelConfig, QuantizationConfig
from mft.report.length_plot import check_plot
from mft.training.config import TasksConfig, TrainingConfig
from mft.training.job import TrainJob
from mft.training.run import train
from mft.training.starting_point import METRICS
from mft.training.tokens import RunTokens, encode_run

MODES = ("token_mean", "sample_mean", "task_token_mean", "task_sample_mean", "coba", "self_paced")
BASE = "tiny-code-llama"
PLAIN = QuantizationConfig(type="none", compute_dtype="fp32")
"""The base in float32: on a CPU faster than bf16, and without the noise of 4 bits."""

ADAPTER = AdapterConfig(rank=16, alpha=32, dropout=0.0)
LOSS, WEIGHT, TOKENS = "eval/loss/task/", "weight/task/", "tokens/task/"


@dataclass(frozen=True, slots=True)
class Study:
    """What is the same for all runs. `samples`: training samples of each task."""

    samples: Mapping[str, int]
    validation: int
    context: int
    steps: int
    rows: int
    learning_rate: float
    evaluate_every: int

    @property
    def model(self) -> ModelConfig:
        """The `model:` block of the runs."""
        return ModelConfig(base=BASE, format="codefuse", context=self.context)

    def tasks(self, mode: str) -> TasksConfig:
        """The `tasks:` block of a mode; a probe every third step, CoBa's warm-up a quarter of the run, its history three quarters."""
        probes = self.steps // 3
        block = {"every": 3, "validation_rows": 8, "history_probes": 3 * probes // 4}
        blocks = {"coba": {"coba": {**block, "warmup_probes": probes // 4}}, "self_paced": {"self_paced": block}}
        return TasksConfig.model_validate({"balance": mode, **blocks.get(mode, {})})

    def training(self, seed: int) -> TrainingConfig:
        """The `training:` block of a seed."""
        return TrainingConfig(
            epochs=100, max_steps=self.steps, global_batch_rows=self.rows, micro_batch_rows=2, learning_rate=self.learning_rate,
            min_learning_rate=self.learning_rate / 10, warmup=0.05, weight_decay=0.0, seed=seed, recompute="none",
            evaluate_every=self.evaluate_every, checkpoint_every=0)


def load_tokens(data: Path, study: Study, work: Path, *, exact: bool = True) -> RunTokens:
    """The study's samples as token ids: the first that fit the context of each task, in the order of the built folder.

    Raises:
        SystemExit: a task has too few samples; without `exact` a training part may have fewer than asked for, as validation always may.
    """
    recipe = work / "recipe.yaml"
    write_json(recipe, {
        "name": "balance-study", "seed": 1234, "mixture": {"type": "proportional"}, "split": {"validation": 0.05, "by": "id"},
        "tasks": {task: {"sources": [{"type": "jsonl", "path": str((data / f"{task}.jsonl.gz").resolve()), "converter": "chat_rounds"}]}
                  for task in study.samples},
        "steps": [{"type": "length", "min_characters": 10, "max_characters": 20000}, {"type": "exact_dedup"}]})
    build(recipe, work / "data", overwrite=True)
    tokens = encode_run(work / "data", resolve_base(BASE), study.model, work / "tokens")
    wanted = {"train": study.samples, "validation": dict.fromkeys(study.samples, study.validation)}
    parts = {}
    for name, part in tokens.parts.items():
        chosen = [_first(part.samples.records["task"], part.tasks.index(task), task, count, at_most=name == "validation" or not exact)
                  for task, count in wanted[name].items()]
        parts[name] = replace(part, store=part.samples.select(np.sort(np.concatenate(chosen))))
    return replace(tokens, parts=parts, sha256=sha256_json([tokens.sha256, wanted]))


def _first(tasks: Any, index: int, task: str, count: int, *, at_most: bool) -> Any:
    found = np.flatnonzero(tasks == index)[:count]
    if len(found) < (1 if at_most else count):
        raise SystemExit(f"{task}: only {len(found)} samples fit the context, {count} were asked for; lower --samples or raise --context")
    return found


def base_losses(tokens: RunTokens, context: int) -> dict[str, float]:
    """Validation losses before training, under the names of metrics.jsonl."""
    result = evaluate_loss(tokens.validation, tokens.task_names, [ModelUnderTest("base", resolve_base(BASE), PLAIN)], context=context,
                           prompt_format=tokens.prompt_format, tokenizer=tokens.tokenizer)
    losses = {"eval/loss": result.overall.loss["base"], **{LOSS + task: table.loss["base"] for task, table in result.tasks.items()}}
    return {name: loss for name, loss in losses.items() if loss is not None}


def run(study: Study, tokens: RunTokens, mode: str, seed: int, folder: Path) -> dict[str, Any]:
    """Train one run; what it measured, see `measured`, and its seconds."""
    job = TrainJob(resolve_base(BASE), study.model, PLAIN, ADAPTER, study.tasks(mode), study.training(seed))
    started = time.perf_counter()
    train(job, tokens, folder, overwrite=True)
    seconds = time.perf_counter() - started
    lines = [json.loads(line) for line in (folder / METRICS).read_text(encoding="utf-8").splitlines()]
    return {"mode": mode, "seed": seed, "seconds": seconds, **measured(lines, tokens.task_names, mode)}


def measured(lines: Sequence[Mapping[str, Any]], names: Sequence[str], mode: str) -> dict[str, Any]:
    """The curves of a run from its metrics.jsonl.

    `evaluations`: its lines; of each task `tokens` trained, `steps_with` a sample, and `share`, the mean over steps of its part in the
    loss, where that is known (not in `sample_mean`: samples are not logged); `weights`: step, then each task's.
    """
    steps = [line for line in lines if "loss" in line]
    weighs, shares = WEIGHT + names[0] in steps[0], []
    for line in steps:
        parts = [line[WEIGHT + name] * (line[TOKENS + name] > 0) if weighs else line[TOKENS + name] for name in names]
        shares.append([part / sum(parts) for part in parts])
    return {
        "probe_seconds": sum(line.get("probe/seconds", 0.0) for line in steps),
        "evaluations": [line for line in lines if "eval/loss" in line],
        "tokens": {name: sum(line[TOKENS + name] for line in steps) for name in names},
        "steps_with": {name: sum(line[TOKENS + name] > 0 for line in steps) for name in names},
        "share": None if mode == "sample_mean" else [statistics.fmean(part) for part in zip(*shares, strict=True)],
        "weights": [[line["step"], *(line[WEIGHT + name] for name in names)] for line in steps] if weighs else []}


def table(results: Sequence[Mapping[str, Any]], start: Mapping[str, float], tasks: Sequence[str]) -> str:
    """Markdown: final validation loss of each task, mean over seeds and (from two seeds on) standard deviation, by mode.

    The last columns: the mean over tasks, each alike, and the mean over all validation tokens.
    """
    def cells(lines: Sequence[Mapping[str, float]]) -> str:
        columns = [[line[LOSS + task] for line in lines] for task in tasks]
        columns += [[statistics.fmean(line[LOSS + task] for task in tasks) for line in lines], [line["eval/loss"] for line in lines]]
        return " | ".join(f"{statistics.fmean(column):.3f}" + (f" ± {statistics.stdev(column):.3f}" if len(column) > 1 else "")
                          for column in columns)

    rows = [f"| `balance` | {' | '.join(tasks)} | mean of tasks | all tokens |", "|---" * (len(tasks) + 3) + "|",
            f"| before training | {cells([start])} |"]
    ends = {mode: [result["evaluations"][-1] for result in results if result["mode"] == mode] for mode in MODES}
    return "\n".join([*rows, *(f"| `{mode}` | {cells(lines)} |" for mode, lines in ends.items() if lines)])


def costs(results: Sequence[Mapping[str, Any]], tasks: Sequence[str]) -> str:
    """Markdown: of each mode the runs, their seconds, those of probes; of each task its share of the loss, as a mean over steps, and
    its last weight. Means over seeds."""
    rows = [f"| `balance` | runs | seconds | probes, seconds | share of {' / '.join(tasks)} | last weights |", "|---" * 6 + "|"]
    for mode in MODES:
        if own := [result for result in results if result["mode"] == mode]:
            means = [statistics.fmean(one[kind] for one in own) for kind in ("seconds", "probe_seconds")]
            rows.append(f"| `{mode}` | {len(own)} | {means[0]:.0f} | {means[1]:.1f} | "
                        f"{_means([one['share'] for one in own if one['share']])} | "
                        f"{_means([one['weights'][-1][1:] for one in own if one['weights']])} |")
    return "\n".join(rows)


def _means(lines: Sequence[Sequence[float]]) -> str:
    return " / ".join(f"{statistics.fmean(values):.2f}" for values in zip(*lines, strict=True)) or "-"


def plot(results: Sequence[Mapping[str, Any]], start: Mapping[str, float], tasks: Sequence[str], path: Path) -> None:
    """Draw, for each task, the validation loss over steps (mean over seeds, one line a mode), and below the weights, where there are."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(tasks), 6.5), layout="constrained")
    axes = figure.subplots(2, len(tasks), squeeze=False)
    for mode in MODES:
        own = [result for result in results if result["mode"] == mode]
        for column, task in enumerate(tasks):
            curves = [[(0, start[LOSS + task]), *((line["step"], line[LOSS + task]) for line in one["evaluations"])] for one in own]
            _draw(axes[0][column], curves, mode)
            _draw(axes[1][column], [[(line[0], line[column + 1]) for line in one["weights"]] for one in own if one["weights"]], mode)
            axes[0][column].set(title=task, ylabel="validation loss, nats a token")
            axes[1][column].set(xlabel="optimizer step", ylabel="weight of the task")
    axes[0][0].legend(fontsize=7)
    with atomic_file(path) as partial:
        figure.savefig(partial, format=path.suffix[1:].lower(), dpi=120)


def _draw(axes: Any, curves: Sequence[Sequence[tuple[int, float]]], mode: str) -> None:
    """The mean over seeds at each step."""
    if curves:
        steps = [step for step, _ in curves[0]]
        axes.plot(steps, [statistics.fmean(values) for values in zip(*([value for _, value in one] for one in curves), strict=True)],
                  label=mode, linewidth=1.2, color=f"C{MODES.index(mode)}")


def key_of(study: Study, tokens: RunTokens, mode: str, seed: int) -> str:
    """Hash of the rows and of every setting that this study makes; a new option of mft, left at its default, makes no run stale."""
    settings = (study.model, PLAIN, ADAPTER, study.training(seed), study.tasks(mode))
    return sha256_json([tokens.sha256, *(block.model_dump(exclude_unset=True) for block in settings)])


def results_of(path: Path, keys: Collection[str]) -> list[dict[str, Any]]:
    """Those of these runs that are done."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [result for result in map(json.loads, lines) if result["key"] in keys]


def trial(options: argparse.Namespace) -> None:
    """Print how far each task of the folder falls in a short run on equal parts."""
    names = sorted(path.name.removesuffix(".jsonl.gz") for path in options.data.glob("*.jsonl.gz"))
    study = replace(study_of(options), samples=dict.fromkeys(names, 40), validation=8)
    tokens = load_tokens(options.data, study, options.out / "trial", exact=False)
    start = base_losses(tokens, study.context)
    end = run(study, tokens, "task_token_mean", options.seeds[0], options.out / "trial" / "run")["evaluations"][-1]
    for name in sorted(tokens.task_names, key=lambda name: end[LOSS + name] / start[LOSS + name]):
        first, last = start[LOSS + name], end[LOSS + name]
        print(f"{name:20} {first:.3f} -> {last:.3f}  {last / first - 1:+.0%}")


def study_of(options: argparse.Namespace) -> Study:
    """The study that the command line asks for."""
    samples = {name: int(count) for name, count in (pair.split("=") for pair in options.samples)}
    return Study(samples, options.validation, options.context, options.steps, options.rows, options.learning_rate, options.evaluate_every)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, required=True, help="folder of <task>.jsonl.gz")
    arguments.add_argument("--out", type=Path, required=True, help="folder of the runs and results.jsonl")
    arguments.add_argument("--samples", nargs="+", metavar="TASK=N", help="training samples of each task",
                           default=["code_repair=600", "text2sql=12", "docstring_gen=120"])
    arguments.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    arguments.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    arguments.add_argument("--steps", type=int, default=48)
    arguments.add_argument("--rows", type=int, default=8, help="packed rows of one optimizer step")
    arguments.add_argument("--context", type=int, default=256)
    arguments.add_argument("--validation", type=int, default=24, help="validation samples of each task, at most")
    arguments.add_argument("--learning-rate", type=float, default=2e-3)
    arguments.add_argument("--evaluate-every", type=int, default=12)
    arguments.add_argument("--plot", type=Path, help="picture of the curves: .png, .svg, .pdf")
    arguments.add_argument("--trial", action="store_true", help="find the slow task instead")
    return arguments


def main() -> None:
    options = parser().parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.plot:
        check_plot(options.plot, overwrite=True)
    if options.trial:
        trial(options)
    else:
        compare(options)


def compare(options: argparse.Namespace) -> None:
    """Make the runs that are not done, then print both tables and draw the picture."""
    study = study_of(options)
    tokens = load_tokens(options.data, study, options.out)
    start, path, tasks = base_losses(tokens, study.context), options.out / "results.jsonl", list(tokens.task_names)
    keys = {key_of(study, tokens, mode, seed): (mode, seed) for seed in options.seeds for mode in options.modes}
    for key, (mode, seed) in keys.items():
        if not results_of(path, [key]):
            made = run(study, tokens, mode, seed, options.out / f"{mode}-{seed}")
            append_json_line(path, {"key": key, **made})
            print(f"{mode}, seed {seed}: {made['seconds']:.0f} s, loss {made['evaluations'][-1]['eval/loss']:.3f}", file=sys.stderr)
    results = results_of(path, keys)
    print(f"\nsamples {dict(study.samples)}; of seed {results[0]['seed']}: trained tokens {results[0]['tokens']}, steps with a sample "
          f"{results[0]['steps_with']} of {study.steps}\n\n{table(results, start, tasks)}\n\n{costs(results, tasks)}")
    if options.plot:
        plot(results, start, tasks, options.plot)


if __name__ == "__main__":
    main()
