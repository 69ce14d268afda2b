"""Samples of a benchmark, written so that a killed run goes on where it was and several ranks share the work."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mft.evaluation.completions import Sample, sample_row
from mft.evaluation.programs import user_text
from mft.evaluation.protocol import Protocol
from mft.evaluation.writers import Writer, Written
from mft.files import write_text
from mft.hashes import sha256_text
from mft.journal import Journal
from mft.problems.problem import Problem

SAMPLES: Final = "samples.jsonl"
PARTS: Final = "samples.part*.jsonl"


@dataclass(frozen=True, slots=True)
class Unit:
    """Problems that are given to the writer at once, for their sample of this number."""

    problems: tuple[Problem, ...]
    number: int
    seed: int


def units(problems: Sequence[Problem], protocol: Protocol, samples: int, batch: int) -> list[Unit]:
    """The work, longest prompts first: the same whatever is done already and however many ranks there are.

    A batch is drawn with a seed of its own, so that a run that was killed, or ran on other ranks, draws what it would have drawn.
    """
    ordered = sorted(problems, key=lambda problem: (-len(user_text(problem, protocol)), problem.id))
    out = []
    for number in range(samples):
        for start in range(0, len(ordered), batch):
            seed = int(sha256_text(f"{protocol.decoding.seed}/{number}/{start}")[:8], 16) >> 1
            out.append(Unit(tuple(ordered[start:start + batch]), number, seed))
    return out


def write_samples(problems: Sequence[Problem], protocol: Protocol, writer: Writer, folder: Path, *, samples: int = 1, rank: int = 0,
                  ranks: int = 1, progress: Callable[[int, int], None] | None = None) -> None:
    """Let the writer answer what `folder` does not hold yet; this rank's share of it.

    Each rank appends to a file of its own; `collect_samples` lays them together.
    """
    done = {_key(row) for row in _parts(folder)}
    journal = Journal(folder / PARTS.replace("*", str(rank)))
    work = [unit for index, unit in enumerate(units(problems, protocol, samples, writer.batch)) if index % ranks == rank]
    total = sum(len(unit.problems) for unit in work)
    finished = 0
    for unit in work:
        missing = {problem.id for problem in unit.problems if (problem.id, unit.number) not in done}
        finished += len(unit.problems) - len(missing)
        if not missing:
            continue
        asked = [problem for problem in unit.problems if problem.id in missing] if writer.streams else unit.problems
        rows = (_row(asked[index], unit, written) for index, written in writer.write(asked, protocol, unit.seed)
                if asked[index].id in missing)
        for piece in ([row] for row in rows) if writer.streams else [list(rows)]:
            journal.append(piece)
            finished += len(piece)
            if progress:
                progress(finished, total)


def _row(problem: Problem, unit: Unit, written: Written) -> dict[str, Any]:
    return {**sample_row(problem.id, written.text), "sample": unit.number, "finish_reason": written.finish_reason,
            "tokens": written.tokens}


def collect_samples(folder: Path, problems: Sequence[Problem], samples: int) -> list[Sample]:
    """All samples, in the order of the problems; written as `samples.jsonl`, which evalplus and `mft evaluate score` read."""
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    for row in _parts(folder):
        rows.setdefault(_key(row), row)
    ordered = [rows[problem.id, number] for problem in problems for number in range(samples)]
    write_text(folder / SAMPLES, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ordered))
    return [Sample(row["task_id"], row["sample"], row["completion"]) for row in ordered]


def endings(folder: Path) -> dict[str, int]:
    """How many answers ended for which reason: `stop`, `length`, `no_room`."""
    counts: dict[str, int] = {}
    for row in _parts(folder):
        counts[row["finish_reason"]] = counts.get(row["finish_reason"], 0) + 1
    return dict(sorted(counts.items()))


def _parts(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.glob(PARTS)):
        yield from Journal(path).rows


def _key(row: dict[str, Any]) -> tuple[str, int]:
    return row["task_id"], row["sample"]
