"""Where jobs run: in this process, or in several. Results come in the order of the jobs, whoever is done first."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from multiprocessing.connection import Connection, wait
from typing import Any

from mft.data.engine.config import Engine
from mft.data.engine.jobs import Job, run_job
from mft.errors import MftError
from mft.extras import require

Results = Generator[dict[str, Any], None, None]
Executor = Callable[[Sequence[Job]], Results]
"""Jobs -> the result of each, in order. Whoever stops before the end closes it."""

KILLED = ("a worker was killed before its shard was done{why}; this is what happens when memory runs out: use fewer workers, or split "
          "packed files into smaller ones. What is finished is kept, and the same command goes on from there")


def executor_of(engine: Engine) -> AbstractContextManager[Executor]:
    """The executor that an engine asks for; workers end with the block.

    Raises:
        DependencyError: Ray is asked for and not installed.
    """
    if engine.engine == "ray":
        require("ray", extra="scale", why="the engine ray")
        from mft.data.engine.ray_executor import ray_executor

        return ray_executor(engine.ray_address)
    return _processes(engine.workers) if engine.workers > 1 else _this_process()


@contextmanager
def _this_process() -> Iterator[Executor]:
    yield lambda jobs: (run_job(job) for job in jobs)


@contextmanager
def _processes(workers: int) -> Iterator[Executor]:
    """Fresh processes (`spawn`): forking one that has threads, as pyarrow's, may hang.

    If the block fails or is interrupted, they end at once, in the middle of their jobs: what a job writes is whole or not there.
    """
    spawn = multiprocessing.get_context("spawn")
    told, tell = spawn.Pipe(duplex=False)
    pool = ProcessPoolExecutor(workers, spawn, initializer=_end_with_parent, initargs=(told,))
    try:
        yield lambda jobs: _in_pool(pool, jobs)
    except BaseException:
        tell.close()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        tell.close()
        told.close()


def _in_pool(pool: ProcessPoolExecutor, jobs: Sequence[Job]) -> Results:
    try:
        futures = [pool.submit(run_job, job) for job in jobs]
        for future in futures:
            yield future.result()
    except BrokenProcessPool as error:
        raise MftError(KILLED.format(why="")) from error


def _end_with_parent(told: Connection) -> None:
    """A worker ends when the process that started it does, even if that was killed, or closes its end of the pipe.

    An interrupt is that process's to handle.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            wait([parent.sentinel, told])
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
