"""Validation loss by task, each sample once whatever the number of ranks."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from mft.scoring.loss import score_rows
from mft.tokenization.encode import TokenizedSample
from mft.tokenization.packing import pack
from mft.tokenization.token_store import lengths_of, tasks_of


class Ranks(Protocol):
    """What `accelerate.Accelerator` has of this."""

    process_index: int
    num_processes: int
    device: torch.device

    def reduce(self, tensor: Tensor, reduction: str) -> Tensor:
        """The sum over all ranks."""


def task_sums_of(model: PreTrainedModel | PeftModel, samples: Sequence[TokenizedSample], indices: Sequence[int], *, num_tasks: int,
                 context: int, ranks: Ranks, progress: Callable[[int, int], None] | None = None) -> Tensor:
    """Sum of the negative log-likelihoods (nats) and number of trained tokens of each task over these samples: float64 [2, K], on the CPU.

    Each rank scores every `num_processes`-th packed row. A rank with fewer rows scores one twice and does not count it: where weights
    are sharded (ZeRO-3) all ranks must run as many forward passes.
    """
    lengths = lengths_of(samples)
    rows = [[indices[place] for place in row] for row in pack([lengths[index] for index in indices], context)]
    own = rows[ranks.process_index::ranks.num_processes]
    filler = -(-len(rows) // ranks.num_processes) - len(own)
    nll, tokens = score_rows(model, samples, [*own, *(rows[:1] * filler)], progress)
    scored = [index for row in own for index in row]
    tasks = torch.tensor(tasks_of(samples)[scored], dtype=torch.int64)
    totals = torch.zeros(2, num_tasks, dtype=torch.float64)
    totals[0].index_add_(0, tasks, nll[:len(scored)])
    totals[1].index_add_(0, tasks, tokens[:len(scored)].double())
    return ranks.reduce(totals.to(ranks.device), "sum").cpu()


def validation_losses(totals: Tensor, task_names: Sequence[str]) -> dict[str, float]:
    """From the sums of `task_sums_of`: `eval/loss` (mean over all tokens), and of each task with a sample `eval/loss/task/<t>` in nats,
    `eval/perplexity/task/<t>` and `eval/tokens/task/<t>`.

    >>> validation_losses(torch.tensor([[6.0, 0.0], [3.0, 0.0]]), ["a", "b"])["eval/loss/task/a"]
    2.0
    """
    nll, tokens = totals[0].tolist(), totals[1].tolist()
    line = {"eval/loss": sum(nll) / sum(tokens)}
    for name, total, count in zip(task_names, nll, tokens, strict=True):
        if count:
            line |= {f"eval/loss/task/{name}": total / count, f"eval/perplexity/task/{name}": float(np.exp(total / count)),
                     f"eval/tokens/task/{name}": int(count)}
    return line
