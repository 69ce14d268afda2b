"""The processes of a run: joining them, and doing a thing once for all of them."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed
from accelerate import PartialState

from mft.errors import ContactLost, MftError

T = TypeVar("T")

CONTACT_WORDS = ("gloo/transport", "gloo::", "connection closed by peer", "connection reset by peer", "nccl error", "nccl communicator")
"""What the libraries below torch.distributed say where another process is gone; gloo's errors have no type of their own."""


def world_size() -> int:
    """How many processes torchrun, deepspeed or Slurm started; 1 where none did."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def started_by_torchrun() -> bool:
    """True for a process that torchrun, deepspeed or Slurm started as one of a run's ranks, be it the only one."""
    return "RANK" in os.environ


def rank() -> int:
    """The number of this process among those of the run, from 0."""
    return int(os.environ.get("RANK", "0"))


def is_first_rank() -> bool:
    """True for the process that writes files and prints."""
    return rank() == 0


def join_ranks(timeout_minutes: float, *, deepspeed: bool = False) -> None:
    """Connect to the other processes of the run, once; with one process, nothing happens. `deepspeed`: for that engine.

    A rank that hears nothing of the others for `timeout_minutes` ends with an error of torch.distributed.
    """
    if world_size() > 1 and not torch.distributed.is_initialized():
        PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(minutes=timeout_minutes))
    if deepspeed and started_by_torchrun():
        from deepspeed.comm import init_distributed

        # It keeps a record of its own, and takes the number of ranks for 1 while a sharded base is loaded if that is missing.
        init_distributed(auto_mpi_discovery=False, verbose=False, timeout=timedelta(minutes=timeout_minutes))


def leave_ranks() -> None:
    """Disconnect from the other processes, all at the same time: one that ends earlier breaks what another is still reading."""
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def on_first_rank(work: Callable[[], T]) -> T:
    """Run `work` on rank 0 while the others wait; all get its result, or raise the mistake of the user that it raised."""
    if world_size() == 1:
        return work()
    told: list[Any] = [None, None]
    if is_first_rank():
        try:
            told[0] = work()
        except MftError as error:
            told[1] = error
    torch.distributed.broadcast_object_list(told, src=0)
    if told[1] is not None:
        raise told[1]
    result: T = told[0]
    return result


def least_of_ranks(number: int) -> int:
    """The smallest of what the ranks give; every rank calls it."""
    if world_size() == 1:
        return number
    given: list[Any] = [None] * world_size()
    torch.distributed.all_gather_object(given, number)
    return int(min(given))


@contextmanager
def contact_loss_named() -> Iterator[None]:
    """Turn the errors of torch.distributed that mean that another rank is gone into one message.

    Raises:
        ContactLost: the others cannot be reached any more. Other errors pass.
    """
    try:
        yield
    except RuntimeError as error:   # DistError and its kin are RuntimeErrors too
        text = str(error)
        by_type = isinstance(error, (torch.distributed.DistNetworkError, torch.distributed.DistStoreError))
        if not by_type and not any(word in text.lower() for word in CONTACT_WORDS):
            raise
        raise ContactLost(f"rank {rank()} of {world_size()} can no longer reach another rank, which has failed or was killed "
                          f"({(text.splitlines() or [type(error).__name__])[0][:200]}); the same command goes on from the last "
                          "checkpoint") from error
