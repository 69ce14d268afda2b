"""Negative log-likelihood of each sample's trained tokens, computed in packed rows."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from peft import PeftModel
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from mft.modeling.modes import without_dropout
from mft.tokenization.collate import Batch, lay_out
from mft.tokenization.encode import IGNORE_INDEX, TokenizedSample
from mft.tokenization.packing import pack
from mft.tokenization.token_store import lengths_of

LOGITS_AT_ONCE = 1 << 25
"""Logits that are held in float32 at a time (128 MiB)."""


@dataclass(frozen=True, slots=True)
class SampleScore:
    """One sample under one model: `nll_sum` in nats, summed over its `tokens` trained tokens."""

    nll_sum: float
    tokens: int
    task_id: int


def score_samples(model: PreTrainedModel | PeftModel, samples: Sequence[TokenizedSample], *, context: int,
                  progress: Callable[[int, int], None] | None = None) -> list[SampleScore]:
    """Score every sample, in the order given, whatever row it is packed into.

    Dropout is off while scoring; afterwards each module is in the mode it was in. No random number is drawn. Logits are
    those of the model's own forward, computed at trained positions alone; the log-softmax is float32.

    Args:
        model: a causal language model or a PEFT model on one; also while it is being trained.
        samples: each at most `context` tokens long.
        context: length of a packed row, in tokens.
        progress: called as `progress(done, rows)` after each packed row.

    Raises:
        DataError: a sample is longer than `context`.
    """
    rows = pack(lengths_of(samples), context)
    nll, tokens = score_rows(model, samples, rows, progress)
    placed = torch.tensor([index for row in rows for index in row], dtype=torch.int64).argsort()
    return [SampleScore(one, count, sample.task_id)
            for one, count, sample in zip(nll[placed].tolist(), tokens[placed].tolist(), samples, strict=True)]


def score_rows(model: PreTrainedModel | PeftModel, samples: Sequence[TokenizedSample], rows: Sequence[Sequence[int]],
               progress: Callable[[int, int], None] | None = None) -> tuple[Tensor, Tensor]:
    """Score packed rows (lists of indices of samples), each in one forward pass.

    Returns:
        Of the samples of all rows, laid end to end: the sum of the negative log-likelihoods of the trained tokens, in nats, float64
        [n]; how many tokens these are, int64 [n].
    """
    sums, counts = [torch.zeros(0, dtype=torch.float64)], [torch.zeros(0, dtype=torch.int64)]
    # no_grad, not inference_mode: a buffer made here may be used by the next training step.
    with without_dropout(model), torch.no_grad():
        for done, row in enumerate(rows, start=1):
            losses, owners = _row_losses(model, lay_out(samples, row))
            sums.append(torch.zeros(len(row), dtype=torch.float64).index_add_(0, owners, losses))
            counts.append(torch.bincount(owners, minlength=len(row)))
            if progress:
                progress(done, len(rows))
    return torch.cat(sums), torch.cat(counts)


def task_losses(scores: Sequence[SampleScore], num_tasks: int) -> list[float]:
    """Mean loss per trained token of each task, in nats; NaN for a task without a row.

    >>> task_losses([SampleScore(6.0, 3, 0), SampleScore(0.5, 1, 0)], num_tasks=2)
    [1.625, nan]
    """
    nll, tokens = [0.0] * num_tasks, [0] * num_tasks
    for score in scores:
        nll[score.task_id] += score.nll_sum
        tokens[score.task_id] += score.tokens
    return [total / count if count else math.nan for total, count in zip(nll, tokens, strict=True)]


def trained_logits(model: PreTrainedModel | PeftModel, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """The model's logits at each trained token of a row [n, V], the token itself and the index of its sample within the row; both [n]."""
    targets = batch["labels"][0, 1:]
    before = (targets != IGNORE_INDEX).nonzero().squeeze(1)
    device = model.get_input_embeddings().weight.device
    # No attention mask and no cache: only then are restarting positions taken as packed samples (transformers 5.23).
    logits = model(input_ids=batch["input_ids"].to(device), position_ids=batch["position_ids"].to(device),
                   use_cache=False, logits_to_keep=before.to(device)).logits[0]
    return logits, targets[before].to(logits.device), batch["sample_ids"][0, 1:][before]


def _row_losses(model: PreTrainedModel | PeftModel, batch: Batch) -> tuple[Tensor, Tensor]:
    """Loss of each trained token of a row (float64, CPU) and the index of its sample within the row; both [n]."""
    logits, wanted, owners = trained_logits(model, batch)
    step = max(1, LOGITS_AT_ONCE // logits.shape[-1])
    losses = [functional.cross_entropy(logits[start:start + step].float(), wanted[start:start + step], reduction="none")
              for start in range(0, len(wanted), step)]
    return torch.cat(losses).double().cpu(), owners
