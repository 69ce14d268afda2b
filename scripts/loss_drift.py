"""How far the loss of tasks drifts when each micro-batch on each rank is normalised by itself, on real rows.

    python scripts/loss_drift.py --data /path/to/mft/*.jsonl.gz [--base tiny-code-llama] [--format codefuse] [--context 1024]
        [--steps 10] [--rows 32] [--json]

MFTCoder divides each task's loss by the tokens of that task in the micro-batch, takes the mean over the tasks that are there, and
lets the ranks and the accumulation average the results (its default loss; arXiv:2311.02303). mft divides by the counts of the
whole optimizer step. Here both weigh the same packed rows of the same steps, for several layouts. Of each step:

- effective weight of a task: the sum of the coefficients of its tokens, which exactly is 1 / K with K tasks in the step;
- loss: the relative difference, with the base's own token losses;
- gradient: ||theirs - exact|| / ||exact|| of the gradient by the head's weights, which needs no backward pass: it is the sum over
  trained tokens of coefficient * (softmax - one-hot) * last hidden state^T.
"""

import argparse
import json
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor

from mft.data.config import RecipeConfig
from mft.data.pipeline import build
from mft.errors import DataError, MftError
from mft.modeling.base import resolve_base
from mft.modeling.config import QuantizationConfig
from mft.modeling.load import load_base
from mft.tokenization.collate import collate
from mft.tokenization.compatibility import format_for
from mft.tokenization.encode import IGNORE_INDEX, TokenizedSample
from mft.tokenization.load import load_tokenizer
from mft.tokenization.packing import pack
from mft.tokenization.store import encode_conversations
from mft.training.losses import coefficients, count_step

MODE = "task_token_mean"
LAYOUTS = [(ranks, micro) for ranks in (1, 8) for micro in (1, 2, 4)]


@dataclass(frozen=True, slots=True)
class Row:
    """The n trained tokens of one packed row: `tasks` and `losses` [n]; `error` [n, V], softmax minus one-hot; `hidden` [n, d]."""

    tasks: Tensor
    losses: Tensor
    error: Tensor
    hidden: Tensor


def exact(rows: Sequence[Row], num_tasks: int) -> Tensor:
    """mft's coefficient of every token of a step, rows one after the other."""
    return micro_batch_coefficients(torch.cat([row.tasks for row in rows]), num_tasks)


def per_micro_batch(rows: Sequence[Row], num_tasks: int, ranks: int, micro: int) -> Tensor:
    """MFTCoder's: rows are dealt to the ranks in turn, `micro` of a rank at once; each micro-batch by itself, then all averaged."""
    dealt = [rows[rank::ranks] for rank in range(ranks)]
    batches = [own[start:start + micro] for own in dealt for start in range(0, len(own), micro)]
    by_row = {}
    for batch in batches:
        scale = micro_batch_coefficients(torch.cat([row.tasks for row in batch]), num_tasks) / len(batches)
        by_row |= {id(row): part for row, part in zip(batch, scale.split([len(row.tasks) for row in batch]), strict=True)}
    return torch.cat([by_row[id(row)] for row in rows])


def micro_batch_coefficients(tasks: Tensor, num_tasks: int) -> Tensor:
    """`task_token_mean` over these tokens alone, by mft's own function; float64."""
    labels, task_ids = torch.ones_like(tasks)[None], tasks[None]
    counts = count_step(labels, task_ids, torch.zeros_like(task_ids), num_tasks)
    return coefficients(labels, task_ids, torch.zeros_like(task_ids), MODE, counts)[0].double()


def head_gradient(rows: Sequence[Row], scale: Tensor) -> Tensor:
    """Gradient of the weighed loss by the head's weights, [V, d]."""
    parts = scale.float().split([len(row.tasks) for row in rows])
    return sum((row.error * part[:, None]).T @ row.hidden for row, part in zip(rows, parts, strict=True))


def drift_of_step(rows: Sequence[Row], num_tasks: int) -> dict[str, Any]:
    """`tokens` and `exact`: of each task, its trained tokens and effective weight [K]; and by layout: `weights` [K], and the relative
    differences of `loss` and `gradient`.
    """
    tasks, losses = torch.cat([row.tasks for row in rows]), torch.cat([row.losses for row in rows])
    right = exact(rows, num_tasks)
    loss, gradient = float((right * losses).sum()), head_gradient(rows, right)
    step: dict[str, Any] = {"tokens": torch.bincount(tasks, minlength=num_tasks).tolist(), "exact": by_task(tasks, right, num_tasks)}
    for ranks, micro in LAYOUTS:
        theirs = per_micro_batch(rows, num_tasks, ranks, micro)
        step[f"{ranks} x {micro}"] = {
            "loss": abs(float((theirs * losses).sum()) - loss) / loss, "weights": by_task(tasks, theirs, num_tasks),
            "gradient": float((head_gradient(rows, theirs) - gradient).norm() / gradient.norm())}
    return step


def by_task(tasks: Tensor, scale: Tensor, num_tasks: int) -> list[float]:
    """Sum of the coefficients of each task's tokens."""
    return torch.zeros(num_tasks, dtype=torch.float64).index_add_(0, tasks, scale).tolist()


def score(model: Any, samples: Sequence[TokenizedSample]) -> Row:
    """A packed row under the base."""
    batch = collate(samples)
    with torch.no_grad():
        output = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False, output_hidden_states=True)
    labels = batch["labels"][0, 1:]
    trained = labels != IGNORE_INDEX
    labels, places = labels[trained], torch.arange(int(trained.sum()))
    log_probs = output.logits[0, :-1][trained].float().log_softmax(-1)
    losses = -log_probs[places, labels].double()
    error = log_probs.exp_()
    error[places, labels] -= 1
    return Row(batch["task_ids"][0, 1:][trained], losses, error, output.hidden_states[-1][0, :-1][trained].float())


def measure(options: argparse.Namespace) -> tuple[list[str], list[dict[str, Any]]]:
    """Names of the tasks, and `drift_of_step` of each step.

    Raises:
        MftError: a file cannot be read, or there are too few rows.
    """
    tasks = {path.name.split(".")[0]: {"sources": [{"type": "jsonl", "path": str(path.resolve())}]} for path in options.data}
    recipe = RecipeConfig.model_validate({"name": "drift", "tasks": tasks, "split": {"validation": 0.0, "by": "id"}})
    base = resolve_base(options.base)
    tokenizer = load_tokenizer(base)
    rows = build(recipe).rows["train"]
    samples = encode_conversations(rows, format_for(options.format, tokenizer), tokenizer, options.context, list(tasks)).samples
    packed = pack([len(sample.input_ids) for sample in samples], options.context, 1234)
    if len(packed) < options.steps * options.rows:
        raise DataError(f"{len(packed)} packed rows, fewer than {options.steps} steps of {options.rows}; give more data or fewer steps")
    order = torch.randperm(len(packed), generator=torch.Generator().manual_seed(1234)).tolist()
    model = load_base(base, QuantizationConfig(type="none", compute_dtype="fp32"))
    steps = []
    for start in range(0, options.steps * options.rows, options.rows):
        own = [score(model, [samples[index] for index in packed[row]]) for row in order[start:start + options.rows]]
        steps.append(drift_of_step(own, len(tasks)))
    return list(tasks), steps


def mean(steps: Sequence[Any]) -> list[float]:
    """Mean over the steps of lists of one length."""
    return torch.tensor(list(steps), dtype=torch.float64).mean(0).tolist()


def show(names: Sequence[str], steps: Sequence[dict[str, Any]]) -> None:
    """The means over the steps as a table."""
    def line(name: str, loss: str, gradient: str, values: Sequence[float]) -> None:
        print(f"| {name} | {loss} | {gradient} | " + " | ".join(f"{value:.3f}" for value in values) + " |")

    print("| ranks x rows at once | loss | gradient | " + " | ".join(names) + " |\n|" + "---|" * (3 + len(names)))
    tokens = torch.tensor(mean(step["tokens"] for step in steps))
    line("share of the trained tokens", "", "", (tokens / tokens.sum()).tolist())
    line("exact, any layout", "0", "0", mean(step["exact"] for step in steps))
    for layout in (f"{ranks} x {micro}" for ranks, micro in LAYOUTS):
        loss, gradient = (statistics.mean(step[layout][key] for step in steps) for key in ("loss", "gradient"))
        line(layout, f"{loss:.1%}", f"{gradient:.1%}", mean(step[layout]["weights"] for step in steps))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="JSONL files of chat_rounds, one task each")
    parser.add_argument("--base", default="tiny-code-llama")
    parser.add_argument("--format", default="codefuse")
    parser.add_argument("--context", type=int, default=1024, help="tokens of a packed row")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rows", type=int, default=32, help="packed rows of an optimizer step over all ranks")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    if options.rows % max(ranks * micro for ranks, micro in LAYOUTS):
        print("--rows must be a multiple of 32: 8 ranks of 4 rows", file=sys.stderr)
        return 2
    try:
        names, steps = measure(options)
    except MftError as error:
        print(error, file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps({"tasks": names, "steps": steps}))
    else:
        show(names, steps)
    return 0


if __name__ == "__main__":
    sys.exit(main())
