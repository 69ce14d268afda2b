"""Reading and cleaning: which steps run in which stage, and what this process keeps of the rows between stages."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress, groupby
from pathlib import Path
from sys import intern
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mft.data.config import RecipeConfig, join_rule
from mft.data.engine.jobs import Job
from mft.data.engine.map_job import MapJob
from mft.data.engine.names import Names, final_names
from mft.data.engine.plan import Shard, plan_shards
from mft.data.engine.read import ONCE_A_FILE, conclude_file
from mft.data.engine.work import save_array
from mft.data.ledger import BuildLedger, Ledger
from mft.data.outline import Outline
from mft.data.sources import source_names
from mft.data.step_registry import is_group_step
from mft.data.steps import check_tasks_stay, judge_group
from mft.data.verdict import RowName

RunJobs = Callable[[str, Sequence[Job]], list[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class StepRef:
    """A step of the recipe: its ledger, its place among all steps, and what the recipe says of it."""

    number: int
    config: Any
    counts: Ledger


@dataclass(frozen=True, slots=True)
class Run:
    """Row steps of a task up to the group step that ends them."""

    steps: tuple[StepRef, ...]
    group: StepRef | None


@dataclass(slots=True)
class ShardRows:
    """What is left of a shard: the file that holds its rows, their numbers there, their names, and their numbers among the outlines."""

    shard: Shard
    file: str
    rows: NDArray[np.int64]
    names: Names
    outlines: str = ""
    outlined: NDArray[np.int64] | None = None

    def keep(self, stays: Sequence[bool]) -> None:
        """Take out the rows that do not stay."""
        mask = np.array(stays, bool)
        self.rows = self.rows[mask]
        self.names = Names(list(compress(self.names.ids, stays)), list(compress(self.names.places, stays)))
        if self.outlined is not None:
            self.outlined = self.outlined[mask]


class Cleaning:
    """Reads all shards of a recipe and runs its steps over them."""

    def __init__(self, recipe: RecipeConfig, folder: Path, ledger: BuildLedger) -> None:
        self._recipe = recipe
        self._folder = folder
        self._read = {name: ledger.open("read", name) for name in recipe.tasks}
        self._runs = _runs_of(recipe, ledger)
        self._shards: list[ShardRows] = []
        self._joins = {name for name, task in recipe.tasks.items() if join_rule(task)}   # a task that joins another may be left empty

    def run(self, run_jobs: RunJobs, key_bytes: dict[str, int]) -> list[Outline]:
        """The rows that stay, in the order of the recipe; tasks with steps of their own stand behind the others.

        `key_bytes` is filled with the bytes of the keys of each group step.
        """
        planned = plan_shards(self._recipe)
        self._first_stage(planned, run_jobs("read and clean", [self._job(0, shard) for shard in planned]))
        self._judge_groups(0, key_bytes)
        for stage in range(1, max(map(len, self._runs.values()))):
            state = [one for one in self._shards if stage < len(self._runs[one.shard.task])]
            for one in state:
                save_array(self._folder, f"{self._job(stage, one.shard, one.file).name}.select.npy", one.rows)
            results = run_jobs("clean", [self._job(stage, one.shard, one.file) for one in state])
            self._later_stage(stage, state, results)
            self._judge_groups(stage, key_bytes)
        steps = [step for runs in self._runs.values() for run in runs for step in (*run.steps, *((run.group,) if run.group else ()))]
        for counts in {id(step.counts): step.counts for step in steps}.values():   # a common step has one ledger for all tasks
            counts.close()
        ordered = [one for one in self._shards if not self._recipe.tasks[one.shard.task].steps]
        for task in self._recipe.tasks:
            ordered += [one for one in self._shards if one.shard.task == task and self._recipe.tasks[task].steps]
        return [outline for one in ordered for outline in self._outlines(one)]

    def row_files(self) -> dict[int, str]:
        """Number of a shard -> the file of its rows."""
        return {one.shard.number: one.file for one in self._shards}

    def _job(self, stage: int, shard: Shard, rows: str | None = None) -> MapJob:
        runs = self._runs[shard.task]
        run = runs[stage]
        group = (run.group.number, run.group.config) if run.group else None
        return MapJob(self._folder, self._recipe, shard, stage, rows, tuple(step.config for step in run.steps), group,
                      last=stage == len(runs) - 1)

    def _first_stage(self, planned: Sequence[Shard], results: Sequence[dict[str, Any]]) -> None:
        both = list(zip(planned, results, strict=True))
        for task in self._recipe.tasks:
            counts, sources = self._read[task], source_names(self._recipe.tasks[task].sources)
            of_task = [(shard, result) for shard, result in both if shard.task == task]
            for _, group in groupby(of_task, key=lambda pair: (pair[0].source, pair[0].piece.label if pair[0].piece else "")):
                pieces = list(group)
                noted_before: set[str] = set()
                for _, result in pieces:
                    noted = result["read"]["noted"]
                    counts.absorb(result["read"] | {"noted": {name: n for name, n in noted.items() if name not in noted_before}},
                                  sources[pieces[0][0].source])
                    noted_before |= noted.keys() & ONCE_A_FILE if len(pieces) > 1 else set()
                if len(pieces) > 1:
                    conclude_file(self._recipe, pieces[0][0], [result["findings"] for _, result in pieces], counts)
            counts.close()
        names = final_names(planned, [self._folder / f"{self._job(0, shard).name}.names.parquet" for shard in planned])
        self._shards = [ShardRows(shard, result["file"], np.arange(result["kept"]), own)
                        for (shard, result), own in zip(both, names, strict=True)]
        self._count_steps(0, self._shards, results)
        self._note_outlines(0, self._shards)

    def _later_stage(self, stage: int, state: Sequence[ShardRows], results: Sequence[dict[str, Any]]) -> None:
        for one, result in zip(state, results, strict=True):
            if result["file"] != one.file:
                one.keep(np.load(self._folder / f"{self._job(stage, one.shard).name}.kept.npy").tolist())
                one.file, one.rows = result["file"], np.arange(result["kept"])
        self._count_steps(stage, state, results)
        self._note_outlines(stage, state)

    def _note_outlines(self, stage: int, state: Iterable[ShardRows]) -> None:
        for one in state:
            if stage == len(self._runs[one.shard.task]) - 1:
                one.outlines = f"{self._job(stage, one.shard).name}.outlines.parquet"
                one.outlined = np.arange(len(one.rows))

    def _count_steps(self, stage: int, state: Sequence[ShardRows], results: Sequence[dict[str, Any]]) -> None:
        """Add the counts of a stage's row steps, in the order of the steps, and look whether a task is left without rows."""
        seen: dict[int, tuple[StepRef, list[tuple[str, int, int]]]] = {}
        for one, result in zip(state, results, strict=True):
            for step, counts in zip(self._runs[one.shard.task][stage].steps, result["steps"], strict=True):
                step.counts.absorb(counts)
                seen.setdefault(step.number, (step, []))[1].append((one.shard.task, counts["read"], counts["kept"]))
        for _, (step, tasks) in sorted(seen.items()):
            check_tasks_stay(step.config.type, step.counts, [task for task, read, _ in tasks if read and task not in self._joins],
                             [task for task, _, kept in tasks if kept])

    def _judge_groups(self, stage: int, key_bytes: dict[str, int]) -> None:
        groups: dict[int, tuple[StepRef, list[ShardRows]]] = {}
        for one in self._shards:
            runs = self._runs[one.shard.task]
            if stage < len(runs) and (group := runs[stage].group):
                groups.setdefault(group.number, (group, []))[1].append(one)
        for _, (step, state) in sorted(groups.items()):
            key_bytes[step.config.type] = max(key_bytes.get(step.config.type, 0), self._judge(step, stage, state))

    def _judge(self, step: StepRef, stage: int, state: Sequence[ShardRows]) -> int:
        """Judge the rows of some shards by their keys; returns the bytes of the keys."""
        keys = [key for one in state for key in self._keys(stage, one)]
        names = _AllNames(state)
        stays = judge_group(step.config, keys, names, step.counts)
        read, start = [one.shard.task for one in state if len(one.rows) and one.shard.task not in self._joins], 0
        for one in state:
            end = start + len(one.rows)
            one.keep(stays[start:end])
            start = end
        check_tasks_stay(step.config.type, step.counts, read, (one.shard.task for one in state if len(one.rows)))
        return sum(map(len, keys))

    def _keys(self, stage: int, one: ShardRows) -> list[bytes]:
        found: list[bytes] = pq.read_table(self._folder / f"{self._job(stage, one.shard).name}.keys.parquet")["key"].to_pylist()
        return found

    def _outlines(self, one: ShardRows) -> Iterator[Outline]:
        table = pq.read_table(self._folder / one.outlines)
        columns = [column.to_pylist() for column in table.take(one.outlined).columns]
        for name, place, row, (key, characters, trained, choice) in zip(one.names.ids, one.names.places, one.rows.tolist(),
                                                                       zip(*columns, strict=True), strict=True):
            yield Outline(name, one.shard.task, place, intern(key), characters, trained, choice, one.shard.number, row)


class _AllNames(Sequence[RowName]):
    """The names of the rows of some shards, made when they are asked for."""

    def __init__(self, state: Sequence[ShardRows]) -> None:
        self._ids = [name for one in state for name in one.names.ids]
        self._tasks = [one.shard.task for one in state]
        self._ends = np.cumsum([len(one.rows) for one in state])

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[RowName]:
        start = 0
        for task, end in zip(self._tasks, self._ends.tolist(), strict=True):
            yield from (RowName(name, task) for name in self._ids[start:end])
            start = end

    def __getitem__(self, index: Any) -> Any:
        """One name; slices are not needed."""
        return RowName(self._ids[index], self._tasks[int(np.searchsorted(self._ends, index, side="right"))])


def _runs_of(recipe: RecipeConfig, ledger: BuildLedger) -> dict[str, list[Run]]:
    """The runs of each task. The common steps open their ledgers first, once for all tasks; then each task's own."""
    common = [StepRef(number, config, ledger.open(config.type)) for number, config in enumerate(recipe.steps)]
    number, out = len(common), {}
    for name, task in recipe.tasks.items():
        own = []
        for config in task.steps:
            own.append(StepRef(number, config, ledger.open(config.type, name)))
            number += 1
        out[name] = _cut([*common, *own])
    return out


def _cut(steps: Sequence[StepRef]) -> list[Run]:
    """Runs of row steps, each up to a group step; no empty one at the end unless there is nothing else."""
    runs: list[Run] = []
    open_run: list[StepRef] = []
    for step in steps:
        if is_group_step(step.config):
            runs.append(Run(tuple(open_run), step))
            open_run = []
        else:
            open_run.append(step)
    return [*runs, Run(tuple(open_run), None)] if open_run or not runs else runs
