"""The rows as they are written: drawn by the mixture, shuffled, with what was asked for beside what came out."""

import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic

from mft.conversation import Conversation
from mft.data.config import RecipeConfig
from mft.data.ledger import BuildLedger, Ledger
from mft.data.mixture.config import ProportionalMixture, QuotasMixture
from mft.data.mixture.draw import copies, draw_exactly, number_of_copies, shuffle_key
from mft.data.mixture.targets import requested_rows
from mft.data.outline import Outline
from mft.data.split import Row, rows_per_task
from mft.errors import DataError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Emitted(Generic[Row]):
    """The two parts in training order, and `facts["mixture"]`: `mixture_facts` shows it."""

    parts: dict[str, list[Row]]
    facts: dict[str, Any]


def emit_rows(recipe: RecipeConfig, parts: Mapping[str, Sequence[Row]], ledger: BuildLedger) -> Emitted[Row]:
    """Draw the training rows by the recipe's mixture and put all rows in the order of `shuffle_key`.

    A training row that the mixture leaves out is counted as `over_quota` (quotas) or `sampled_out`; a copy is called `id~2`,
    `id~3`. Validation rows appear once.

    Raises:
        DataError: a task is left without a training row.
    """
    counts = ledger.open("mixture")
    counts.read = sum(map(len, parts.values()))
    counts.kept = len(parts["validation"])
    by_task: dict[str, list[Row]] = defaultdict(list)
    for row in parts["train"]:
        by_task[row.task].append(row)
    own_ids = {(row.task, row.id) for part in parts.values() for row in part} if repeats_rows(recipe) else set()
    found = {row.task for part in parts.values() for row in part}
    present = [task for task in recipe.tasks if task in found]
    available = {task: len(by_task[task]) for task in present}
    wanted = requested_rows(recipe.mixture, available)
    train: list[Row] = []
    for task in present:
        times = _times(recipe, task, by_task[task], wanted)
        train += _emit_task(recipe, by_task[task], times, own_ids, counts)
    counts.close()
    emitted = {"train": train, "validation": list(parts["validation"])}
    _check_tasks(recipe, present, emitted)
    facts = mixture_facts(recipe, available, wanted, train)
    return Emitted({part: sorted(rows, key=lambda row: shuffle_key(row, recipe.seed)) for part, rows in emitted.items()}, facts)


def repeats_rows(recipe: RecipeConfig) -> bool:
    """True when the recipe says that a row may appear more than once."""
    if isinstance(recipe.mixture, ProportionalMixture):
        return any(task.weight != 1 for task in recipe.tasks.values())
    return recipe.mixture.max_epochs > 1


def mixture_facts(recipe: RecipeConfig, available: Mapping[str, int], wanted: Mapping[str, int] | None,
                  train: Sequence[Conversation | Outline]) -> dict[str, Any]:
    """What was asked of each task beside what came out, of training rows:

        {"type": "quotas", "requested": 450000, "realised": 440000, "shortfall": 10000,
         "tasks": {"zh": {"available": 90000, "requested": 100000, "realised": 90000, "shortfall": 10000, "epochs": 1.0,
                          "requested_share": 0.2222, "realised_share": 0.2045, "characters": ..., "character_share": ...,
                          "trained_characters": ..., "trained_character_share": ...}, ...}}

    `epochs` is realised / available. With `proportional`, `requested` is the rounded product of rows and weight; rows are
    drawn one by one, so `realised` is near it and there is no shortfall. A shortfall is logged as a warning.
    """
    asked = wanted or {task: round(rows * recipe.tasks[task].weight) for task, rows in available.items()}
    realised = Counter(row.task for row in train)
    characters: Counter[str] = Counter()
    trained: Counter[str] = Counter()
    for row in train:
        characters[row.task] += characters_of(row)
        trained[row.task] += trained_characters(row)
    tasks = {}
    for task, rows in available.items():
        short = asked[task] - realised[task] if wanted else 0
        if short:
            logger.warning("mixture: task '%s' was asked for %d training rows and gives %d: it has %d%s; %d are missing and nothing "
                           "takes their place", task, asked[task], realised[task], rows, _rounds(recipe), short)
        tasks[task] = {
            "available": rows, "requested": asked[task], "realised": realised[task], "shortfall": short,
            "epochs": round(realised[task] / rows, 4) if rows else 0.0,
            "requested_share": _share(asked[task], sum(asked.values())), "realised_share": _share(realised[task], realised.total()),
            "characters": characters[task], "character_share": _share(characters[task], characters.total()),
            "trained_characters": trained[task], "trained_character_share": _share(trained[task], trained.total())}
    return {"type": recipe.mixture.type, "requested": sum(asked.values()), "realised": realised.total(),
            "shortfall": sum(task["shortfall"] for task in tasks.values()), "tasks": tasks}


def characters_of(row: Conversation | Outline) -> int:
    """Characters of all messages."""
    return row.characters if isinstance(row, Outline) else sum(len(message.content) for message in row.messages)


def trained_characters(row: Conversation | Outline) -> int:
    """Characters of the answers that are trained, without the spans that are left out."""
    if isinstance(row, Outline):
        return row.trained_characters
    return sum(len(message.content) - sum(end - start for start, end in message.untrained)
               for message in row.messages if message.role == "assistant" and message.train)


def _share(part: int, whole: int) -> float:
    return round(part / whole, 6) if whole else 0.0


def _rounds(recipe: RecipeConfig) -> str:
    most = 1 if isinstance(recipe.mixture, ProportionalMixture) else recipe.mixture.max_epochs
    return "" if most == 1 else f", each at most {most} times"


def _times(recipe: RecipeConfig, task: str, rows: Sequence[Row], wanted: Mapping[str, int] | None) -> Mapping[str, int]:
    """Row id -> how often it is emitted."""
    if wanted is None or isinstance(recipe.mixture, ProportionalMixture):
        return {row.id: number_of_copies(row, recipe.tasks[task].weight, recipe.seed) for row in rows}
    return draw_exactly(rows, min(wanted[task], len(rows) * recipe.mixture.max_epochs), recipe.seed)


def _emit_task(recipe: RecipeConfig, rows: Sequence[Row], times: Mapping[str, int], own_ids: set[tuple[str, str]],
               counts: Ledger) -> list[Row]:
    out: list[Row] = []
    for row in rows:
        if times[row.id]:
            counts.kept += 1
            out += copies(row, times[row.id], own_ids)
        elif isinstance(recipe.mixture, QuotasMixture):
            counts.drop("over_quota")
        else:
            counts.drop("sampled_out")
    return out


def _check_tasks(recipe: RecipeConfig, tasks: Sequence[str], parts: Mapping[str, Sequence[Row]]) -> None:
    """Refuse a task without training rows; warn about one without validation rows."""
    split, per_task = recipe.split, rows_per_task(parts)
    for task in tasks:
        counts = per_task.get(task, {"train": 0, "validation": 0})
        if not counts["train"]:
            other = "id" if split.by == "file" else "file"
            raise DataError(f"task '{task}' has no training row: {counts['validation']} rows are held out by {split.by}, "
                            f"{_what_decides(recipe, task)}; set split.by: {other}, another split.validation or a greater "
                            f"{'weight' if isinstance(recipe.mixture, ProportionalMixture) else 'share'}")
        if not counts["validation"] and split.validation:
            logger.warning("task '%s' has no validation row: none of its keys falls into the held-out %g%% (split.by: %s)",
                           task, 100 * split.validation, split.by)


def _what_decides(recipe: RecipeConfig, task: str) -> str:
    if isinstance(recipe.mixture, ProportionalMixture):
        return f"the weight is {recipe.tasks[task].weight:g}"
    return f"the mixture is of type {recipe.mixture.type}"
