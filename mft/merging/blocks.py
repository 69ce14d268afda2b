"""Tensors cut into blocks of rows, and a few threads that work on them with memory of their own.

Reading, adding and writing release Python's lock, so that threads overlap them. Each thread computes alone
(`torch.set_num_threads(1)`): two teams of threads that wait for each other are slower than none on a busy machine.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import torch

from mft.modeling.safetensors_header import StoredTensor

Result = TypeVar("Result")

BLOCK_ELEMENTS = 1 << 19
"""Numbers in a block: 1 MB of bf16 to read and write, 2 MB of fp32 to compute in, which caches hold."""
LEAST_ROWS = 64
"""BLAS libraries multiply shorter matrices by other kernels, which add in another order: rows of a short product are not
bit for bit those of the whole one (seen below 16 rows)."""
MAX_WORKERS = 4
QUEUED_BLOCKS = 64


@dataclass(frozen=True, slots=True)
class Block:
    """Rows `start` to `stop` of a base tensor seen as [rows, columns]. A tensor that nothing is added to is one column."""

    tensor: StoredTensor
    start: int
    stop: int
    columns: int

    @property
    def num_elements(self) -> int:
        """Numbers in the block."""
        return (self.stop - self.start) * self.columns

    @property
    def first_element(self) -> int:
        """Place of the block's first number in its tensor."""
        return self.start * self.columns


def plan_blocks(tensors: Iterable[StoredTensor], targets: Collection[str]) -> list[Block]:
    """Every number of every tensor in exactly one block, in the order of the tensors."""
    blocks = []
    for tensor in tensors:
        rows, columns = tensor.shape if tensor.name in targets and len(tensor.shape) == 2 else (tensor.num_elements, 1)
        blocks += [Block(tensor, start, stop, columns) for start, stop in cut_rows(rows, columns, BLOCK_ELEMENTS)]
    return blocks


def cut_rows(rows: int, columns: int, elements: int) -> list[tuple[int, int]]:
    """Cut rows into spans of about `elements` numbers, multiples of LEAST_ROWS; a short rest joins the last one.

    >>> cut_rows(1000, columns=1, elements=256)
    [(0, 256), (256, 512), (512, 768), (768, 1000)]
    >>> cut_rows(1000, columns=1, elements=320)
    [(0, 320), (320, 640), (640, 1000)]
    """
    step = max(elements // max(columns, 1) // LEAST_ROWS, 1) * LEAST_ROWS
    starts = list(range(0, rows, step))
    if len(starts) > 1 and rows - starts[-1] < LEAST_ROWS:
        starts.pop()
    return list(zip(starts, [*starts[1:], rows], strict=True)) if starts else []


class Scratch(threading.local):
    """Memory that each thread allocates once and uses again for every block."""

    def __init__(self) -> None:
        self._buffers: dict[str, torch.Tensor] = {}

    def take(self, name: str, num_elements: int, dtype: torch.dtype) -> torch.Tensor:
        """`num_elements` numbers of this thread's memory `name`; what it held before is lost."""
        num_bytes = num_elements * dtype.itemsize
        if name not in self._buffers or len(self._buffers[name]) < num_bytes:
            self._buffers.pop(name, None)
            self._buffers[name] = torch.empty(num_bytes, dtype=torch.uint8)
        return self._buffers[name][:num_bytes].view(dtype)


def for_each_block(work: Callable[[Block], Result], blocks: Sequence[Block], report: Callable[[Block], None]) -> list[Result]:
    """`work(block)` of every block, by a few threads; results in the order of `blocks`.

    `report` is called in the calling thread after each block. The first exception stops the rest and is raised. Only a
    few blocks wait at a time: one waiting call for each block of a large model would itself take 100 MB.
    """
    threads_before = torch.get_num_threads()
    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(min(MAX_WORKERS, os.cpu_count() or 1), thread_name_prefix="merge")
    waiting: deque[tuple[Block, Future[Result]]] = deque()
    results = []
    try:
        for number, block in enumerate(blocks, 1):
            waiting.append((block, pool.submit(work, block)))
            while waiting and (len(waiting) == QUEUED_BLOCKS or number == len(blocks)):
                oldest, future = waiting.popleft()
                results.append(future.result())
                report(oldest)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(threads_before)
    return results
