"""Read and clean one shard: its rows through a run of row steps, and what must be known of them afterwards.

    NAME.rows.parquet       the rows that stay, as they are now (mft/data/rows.py)
    NAME.names.parquet      of every row that was read: id, place, does it stay        (stage 0)
    NAME.kept.npy           of every row that was selected: does it stay               (later stages)
    NAME.keys.parquet       the key of each row that stays for the group step that follows
    NAME.outlines.parquet   split key, characters, trained characters, choice          (a task's last stage)
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mft.conversation import Conversation
from mft.data.config import RecipeConfig, copies_of
from mft.data.engine.jobs import Job
from mft.data.engine.plan import Shard
from mft.data.engine.read import read_shard
from mft.data.engine.work import part_of, save_array
from mft.data.ids import place_of
from mft.data.ledger import ShardLedger
from mft.data.mixture.config import ProportionalMixture
from mft.data.mixture.draw import text_choice
from mft.data.mixture.emit import characters_of, trained_characters
from mft.data.readers.conversations import Findings
from mft.data.rows import read_rows, write_rows
from mft.data.sources import Trees
from mft.data.step_registry import make_step
from mft.data.steps import RowSteps
from mft.data.verdict import GroupStep

ROWS_PER_GROUP = 2_000

NAMES = pa.schema([("id", pa.string()), ("place", pa.string()), ("kept", pa.bool_())])
KEYS = pa.schema([("key", pa.binary())])
OUTLINES = pa.schema([("split_key", pa.string()), ("characters", pa.int64()), ("trained_characters", pa.int64()), ("choice", pa.binary())])


@dataclass(frozen=True, slots=True)
class MapJob(Job):
    """`rows`: the file that an earlier stage wrote, of which the rows in NAME.select.npy are taken; None: the shard's source is read.

    `group`: (number, config) of the group step that follows. `last`: no step of the task follows but that.
    """

    folder: Path
    recipe: RecipeConfig
    shard: Shard
    stage: int
    rows: str | None
    steps: tuple[Any, ...]
    group: tuple[int, Any] | None
    last: bool

    @property
    def name(self) -> str:
        return f"map{self.stage}-{self.shard.number:05d}"

    def run(self) -> dict[str, Any]:
        """`rows` that came in, `kept`, the file that holds them, and the counts of reading and of each step."""
        read, findings = ShardLedger("read"), Findings()
        out = _Kept(self)
        steps = RowSteps(self.steps)
        source = self._selected() if self.rows else read_shard(self.recipe, self.shard, read, findings, _trees(self.folder))
        rewritten = self.rows is None or bool(self.steps)
        if rewritten:
            with part_of(self.folder, f"{self.name}.rows.parquet") as path:
                write_rows(path, out.through(source, steps), ROWS_PER_GROUP)
        else:
            for _ in out.through(source, steps):
                pass
        out.write()
        return {"rows": len(out.stays), "kept": sum(out.stays), "file": f"{self.name}.rows.parquet" if rewritten else self.rows,
                "read": read.to_counts(), "findings": _findings_json(findings), "steps": steps.close()}

    def _selected(self) -> Iterator[Conversation]:
        chosen = np.load(self.folder / f"{self.name}.select.npy")
        wanted = np.zeros(int(chosen.max(initial=-1)) + 1, bool)
        wanted[chosen] = True
        came = 0
        for row, take in zip(read_rows(self.folder / str(self.rows)), wanted.tolist(), strict=False):
            if take:
                came += 1
                yield row
        if came != len(chosen):
            raise AssertionError(f"{self.rows}: {len(chosen)} rows were selected, {came} are there")


class _Kept:
    """Notes of each row what the job must write of it beside the row itself."""

    def __init__(self, job: MapJob) -> None:
        self.job = job
        self.stays: list[bool] = []
        self._names: list[tuple[str, str]] = []
        self._keys: list[bytes] = []
        self._outlines: list[tuple[str, int, int, bytes]] = []
        self._group = _key_maker(job.folder, *job.group) if job.group else None
        self._chooses = not isinstance(job.recipe.mixture, ProportionalMixture) or any(
            copies_of(task.weight)[1] for task in job.recipe.tasks.values())

    def through(self, rows: Iterator[Conversation], steps: RowSteps) -> Iterator[Conversation]:
        """The rows that all steps keep."""
        for row in rows:
            after = steps.through(row)
            self.stays.append(after is not None)
            if not self.job.stage:
                self._names.append((row.id, place_of(row)))
            if after is None:
                continue
            if self._group is not None:
                self._keys.append(self._group.key(after))
            if self.job.last:
                choice = text_choice(after, self.job.recipe.seed) if self._chooses else b""
                self._outlines.append((after.split_key, characters_of(after), trained_characters(after), choice))
            yield after

    def write(self) -> None:
        """Write the files beside the rows."""
        if self.job.stage:
            save_array(self.job.folder, f"{self.job.name}.kept.npy", np.array(self.stays, bool))
        else:
            self._table("names", NAMES, [(*name, kept) for name, kept in zip(self._names, self.stays, strict=True)])
        if self._group is not None:
            self._table("keys", KEYS, [(key,) for key in self._keys])
        if self.job.last:
            self._table("outlines", OUTLINES, self._outlines)

    def _table(self, what: str, schema: pa.Schema, rows: Sequence[tuple[Any, ...]]) -> None:
        columns = [pa.array(column, kind) for column, kind in zip(zip(*rows, strict=True), schema.types, strict=True)] if rows else None
        table = pa.Table.from_arrays(columns, schema=schema) if columns else schema.empty_table()
        with part_of(self.job.folder, f"{self.job.name}.{what}.parquet") as path:
            pq.write_table(table, path, compression="zstd")


@lru_cache(maxsize=8)
def _key_maker(folder: Path, number: int, config: Any) -> GroupStep:
    """The group step whose keys are made, once a process and build: some take seconds to prepare. Making keys changes nothing in it."""
    step = make_step(config)
    assert isinstance(step, GroupStep)
    return step


@lru_cache(maxsize=1)
def _trees(folder: Path) -> Trees:
    """What this process has parsed for this build: several tasks may use one tree of code."""
    return {}


def forget_build() -> None:
    """Let go of what this process keeps for a build."""
    _key_maker.cache_clear()
    _trees.cache_clear()


def _findings_json(findings: Findings) -> dict[str, Any]:
    return {"chosen": findings.chosen, "first_unfit": findings.first_unfit, "seen": sorted(findings.seen),
            "unread": sorted(findings.unread), "dropped": findings.dropped, "kept": findings.kept}
