"""One rank of two that add up their numbers."""

import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch

NUMBERS = 1 << 20
ROUNDS = 3


def run(backend: str, rank: int, port: int, device: int | None, limit_s: float) -> Iterator[dict[str, Any]]:
    """Join the other rank over the loopback, and all-reduce 4 MB a few times. `device`: of CUDA; None: the CPU.

    Raises:
        RuntimeError: torch's, or the sum is wrong.
    """
    place = torch.device("cpu") if device is None else torch.device("cuda", device)
    if device is not None:
        torch.cuda.set_device(device)
    torch.distributed.init_process_group(backend, init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2,
                                         timeout=timedelta(seconds=limit_s))
    yield {"stage": "joined"}
    for _ in range(ROUNDS):
        numbers = torch.full((NUMBERS,), float(rank + 1), device=place)
        began = time.monotonic()
        torch.distributed.all_reduce(numbers)
        first = numbers[0].item()   # on CUDA this waits for the sum
        seconds = time.monotonic() - began
        sums = [first] if bool((numbers == first).all()) else numbers.unique().tolist()
        if sums != [3.0]:
            raise RuntimeError(f"1 + 2 came out as {sums[:3]} on rank {rank}")
    torch.distributed.destroy_process_group()
    yield {"stage": "done", "megabytes_per_s": round(4 * NUMBERS / 1e6 / max(seconds, 1e-9))}
