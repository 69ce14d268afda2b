"""Jobs as tasks of a Ray cluster. Rows go over the shared disk; only paths and counts go through Ray."""

import socket
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from mft.data.engine.executors import KILLED, Executor, Results
from mft.data.engine.jobs import Job, run_job
from mft.errors import MftError


@contextmanager
def ray_executor(address: str | None) -> Iterator[Executor]:
    """Connect to a cluster, or start one on this machine; a connection that was there before stays.

    Raises:
        MftError: no cluster answers at the address.
    """
    ours = not ray.is_initialized()
    if ours:
        _check_answers(address)
        try:
            ray.init(address=address, configure_logging=False, log_to_driver=False,
                     include_dashboard=False if address is None else None)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise _no_cluster(address, error) from error
    try:
        yield _in_ray
    finally:
        if ours:
            ray.shutdown()


def _check_answers(address: str | None) -> None:
    """Does something listen at a `host:port`? Ray itself tries for more than a minute before it says that nothing does."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise _no_cluster(address, error) from error


def _no_cluster(address: str | None, error: Exception) -> MftError:
    why = (str(error) or type(error).__name__).splitlines()[0]
    return MftError(f"no Ray cluster at '{address or 'this machine'}': {why}; start one with `ray start --head`, or leave "
                    "--ray-address out to start one on this machine")


def _in_ray(jobs: Sequence[Job]) -> Results:
    """One CPU a job, two jobs a CPU on their way. A task whose machine dies is tried again elsewhere: a job's files are whole or not there.

    Whatever runs when this ends is waited for, not cancelled: `ray.cancel` on a task that ends just then brings the process down
    (ray 2.60, "Tried to complete task that was not pending").
    """
    remote = ray.remote(num_cpus=1, max_retries=3)(run_job)
    waiting, running = iter(jobs), deque[Any]()
    try:
        running.extend(remote.remote(job) for job in islice(waiting, 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))))
        while running:
            result = ray.get(running[0])
            running.popleft()
            running.extend(remote.remote(job) for job in islice(waiting, 1))
            yield result
    except RayTaskError:
        raise
    except RayError as error:
        raise MftError(KILLED.format(why=f" ({type(error).__name__})")) from error
    finally:
        if running:
            ray.wait(list(running), num_returns=len(running))
