"""A build over shards, stage by stage.

    map      each shard: read, then its row steps up to the next group step; keys of the rows that stay
    group    all keys in this process: which rows stay
    map ...  until no step is left
    mix      names and sizes of all rows in this process: join, split, mixture, order
    scatter, gather      the rows into their final files (mft/data/engine/shuffle.py)

The function of a shard is the same wherever it runs, and this process takes results in the order of the shards, so rows, ledger and
hash depend on the recipe and the files alone. A job that has been finished in the working folder is not done again.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mft.data.config import RecipeConfig
from mft.data.engine.clean import Cleaning
from mft.data.engine.config import Engine
from mft.data.engine.executors import Executor, executor_of
from mft.data.engine.jobs import Job, replay
from mft.data.engine.map_job import forget_build
from mft.data.engine.shuffle import GatherJob, OutputFile, ScatterJob, output_files, write_orders
from mft.data.engine.work import finished
from mft.data.ledger import BuildLedger
from mft.data.mixture.emit import emit_rows, repeats_rows
from mft.data.mixture.join import join_small_tasks
from mft.data.split import rows_per_task, split_rows
from mft.hashes import CHUNK
from mft.process import peak_rss_bytes

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a stage is: `rows` have gone through `done` of `total` jobs; what an earlier run had finished is not counted."""

    stage: str
    done: int
    total: int
    rows: int


Report = Callable[[Progress], None]


def report_nothing(progress: Progress) -> None:
    """For callers that show nothing."""


@dataclass(slots=True)
class Usage:
    """What a build took: seconds by stage, the peak memory of this process and of the largest worker, bytes of keys by group step."""

    seconds: dict[str, float] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    worker_peak_rss_bytes: int = 0
    peak_rss_bytes: int = 0
    key_bytes: dict[str, int] = field(default_factory=dict)
    resumed_jobs: int = 0


@dataclass(frozen=True, slots=True)
class ShardedBuild:
    """A build whose output files lie finished in the working folder."""

    facts: dict[str, Any]
    lists: dict[str, Any]
    files: tuple[tuple[OutputFile, Path], ...]
    usage: Usage


def build_shards(recipe: RecipeConfig, folder: Path, engine: Engine, report: Report) -> ShardedBuild:
    """Build a recipe in the working folder `folder`.

    Raises:
        DataError: a source cannot be used, or no row of a task is left. MftError: a worker was killed.
    """
    usage, ledger = Usage(), BuildLedger()
    try:
        with executor_of(engine) as executor:
            runner = Runner(executor, report, usage)
            cleaning = Cleaning(recipe, folder, ledger)
            outlines = cleaning.run(runner.run, usage.key_bytes)
            started = time.monotonic()
            rows, joined = join_small_tasks(recipe, outlines)
            emitted = emit_rows(recipe, split_rows(rows, recipe.split), ledger)
            parts = emitted.parts
            del outlines, rows
            usage.seconds["mix"] = time.monotonic() - started
            files = output_files(parts, engine.shard_rows)
            gathered = _shuffle(folder, cleaning.row_files(), write_orders(folder, parts, files), files, engine.shard_rows, runner)
    finally:
        forget_build()
    usage.peak_rss_bytes = peak_rss_bytes()
    facts = ledger.close(emitted=sum(map(len, parts.values())), weighted=repeats_rows(recipe))
    facts |= {"per_task": rows_per_task(parts), "sha256": _hash_of(gathered), "joined": joined, "mixture": emitted.facts}
    return ShardedBuild(facts, ledger.lists, tuple((job.file, job.parquet) for job in gathered), usage)


class Runner:
    """Runs the jobs of a stage that are not finished yet, and says how far it is."""

    def __init__(self, executor: Executor, report: Report, usage: Usage) -> None:
        self._executor = executor
        self._report = report
        self._usage = usage

    def run(self, stage: str, jobs: Sequence[Job]) -> list[dict[str, Any]]:
        """The results in the order of the jobs; what they logged is logged here.

        Raises:
            MftError: of the first job, in their order, that failed.
        """
        started, rows, done = time.monotonic(), 0, 0
        before = {index: result for index, job in enumerate(jobs) if (result := finished(job.folder, job.name)) is not None}
        out = []
        self._report(Progress(stage, 0, len(jobs) - len(before), 0))
        with closing(self._executor([job for index, job in enumerate(jobs) if index not in before])) as fresh:
            for index in range(len(jobs)):
                result = replay(before[index] if index in before else next(fresh))
                self._usage.worker_peak_rss_bytes = max(self._usage.worker_peak_rss_bytes, result["peak_rss_bytes"])
                out.append(result)
                if index not in before:
                    rows, done = rows + result["rows"], done + 1
                    self._report(Progress(stage, done, len(jobs) - len(before), rows))
        self._usage.seconds[stage] = self._usage.seconds.get(stage, 0.0) + time.monotonic() - started
        self._usage.rows[stage] = self._usage.rows.get(stage, 0) + rows
        self._usage.resumed_jobs += len(before)
        return out


def _shuffle(folder: Path, rows: dict[int, str], shards: Sequence[int], files: Sequence[OutputFile], rows_per_file: int,
             runner: Runner) -> list[GatherJob]:
    scatter = [ScatterJob(folder, shard, rows[shard], rows_per_file) for shard in shards]
    runner.run("sort", scatter)
    gather = [GatherJob(folder, file, tuple(job.name for job in scatter), rows_per_file) for file in files]
    runner.run("write", gather)
    return gather


def _hash_of(files: Sequence[GatherJob]) -> str:
    """`mft.data.rows.content_hash` of all rows, by the lines that the jobs have written."""
    digest = hashlib.sha256()
    for job in files:
        with job.lines.open("rb") as stream:
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
    return digest.hexdigest()
