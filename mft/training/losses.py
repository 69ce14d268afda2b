"""The loss of several tasks, exact for any layout of the global batch.

One optimizer step covers all micro-batches (and ranks). Sample s of task k has n_s trained tokens; N, N_k count trained
tokens and M, M_k samples of the whole step, K the tasks present, W the sum of their weights. Every mode is a sum of
coefficient times token loss, and the coefficients need the step's counts alone:

    mode               loss                                                      coefficient of a token of sample s
    token_mean         sum l / N                                                 1 / N
    sample_mean        mean over samples of their token mean                     1 / (M n_s)
    task_token_mean    sum_k w_k/W * (sum of task k's l) / N_k                   w_k / (W N_k)
    task_sample_mean   sum_k w_k/W * mean over k's samples of their token mean   w_k / (W M_k n_s)
    coba, self_paced   task_token_mean with the w_k that the balancer gives

Source: MFTCoder (arXiv:2311.02303), whose code calls them case1 to case4 and normalises each micro-batch by itself;
here the counts are those of the whole step, so that the loss does not depend on the layout.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mft.tokenization.encode import IGNORE_INDEX
from mft.training.config import TASK_MODES, Balance, loss_mode


@dataclass(frozen=True, slots=True)
class StepCounts:
    """Trained tokens and samples of each task: `tokens` and `samples` are float64 [K]. Counts of parts add up."""

    tokens: Tensor
    samples: Tensor

    def __add__(self, other: "StepCounts") -> "StepCounts":
        return StepCounts(self.tokens + other.tokens, self.samples + other.samples)


def count_step(labels: Tensor, task_ids: Tensor, sample_ids: Tensor, num_tasks: int) -> StepCounts:
    """Counts of one micro-batch. Shapes: `labels`, `task_ids`, `sample_ids` [B, T], all aligned with the token losses.

    A sample is known by its row and its `sample_ids`; it belongs to the task of its trained tokens.
    """
    trained = labels != IGNORE_INDEX
    tasks = task_ids[trained]
    tokens = torch.bincount(tasks, minlength=num_tasks).double()
    _, keys = _sample_keys(sample_ids)
    pairs = torch.unique(torch.stack((keys[trained], tasks)), dim=1)
    return StepCounts(tokens, torch.bincount(pairs[1], minlength=num_tasks).double())


def coefficients(labels: Tensor, task_ids: Tensor, sample_ids: Tensor, mode: Balance, counts: StepCounts,
                 weights: Sequence[float] | None = None, *, num_samples: int | None = None) -> Tensor:
    """Coefficient of each token's loss, float32 [B, T], zero where nothing is trained.

    `counts` are those of the whole optimizer step; `weights` [K] act in the task modes (default 1). A task without a
    token in the step takes no part in W. `num_samples`: all `sample_ids` are below it; without it a GPU is asked for the largest.
    """
    mode = loss_mode(mode)
    trained = labels != IGNORE_INDEX
    index = task_ids.clamp(min=0)
    if mode in TASK_MODES:
        by_task = torch.tensor(weights if weights is not None else [1.0] * len(counts.tokens), dtype=torch.float64)
        by_task = by_task.to(counts.tokens.device, non_blocking=True)   # a blocking copy would wait for the GPU in every micro-batch
        total = torch.where(counts.tokens > 0, by_task, 0.0).sum()
        units = counts.tokens if mode == "task_token_mean" else counts.samples
        share = torch.where(units > 0, by_task / total / units.clamp(min=1), 0.0)[index]
    else:
        units = counts.tokens if mode == "token_mean" else counts.samples
        share = (1.0 / units.sum()).expand(index.shape)
    if mode in ("sample_mean", "task_sample_mean"):
        share = share / _trained_of_sample(trained, sample_ids, num_samples).clamp(min=1)
    return torch.where(trained, share, 0.0).float()


def task_loss(token_losses: Tensor, labels: Tensor, task_ids: Tensor, sample_ids: Tensor, mode: Balance,
              weights: Sequence[float] | None = None, *, num_tasks: int | None = None, counts: StepCounts | None = None,
              num_samples: int | None = None) -> Tensor:
    """The loss of a step, or one micro-batch's part of it.

    Shapes: B rows, T tokens; `token_losses` (negative log-likelihoods, nats), `labels`, `task_ids`, `sample_ids` are
    [B, T] and aligned: `token_losses[b, t]` is the loss of `labels[b, t]`. Tokens whose label is -100 do not count.
    Without `counts` the batch is taken for the whole step; with them (the sum over all micro-batches and ranks) the
    result is this micro-batch's part, and the parts add up to the loss of the step. With `counts` and `num_samples` (see
    `coefficients`) on a GPU, nothing here waits for it; that the step trains a token is then for the caller to check.

    Raises:
        ValueError: shapes differ, weights in a mode without tasks, or, without `counts`, no token is trained.
    """
    if not token_losses.shape == labels.shape == task_ids.shape == sample_ids.shape:
        raise ValueError(f"shapes differ: token_losses {tuple(token_losses.shape)}, labels {tuple(labels.shape)}, "
                         f"task_ids {tuple(task_ids.shape)}, sample_ids {tuple(sample_ids.shape)}")
    if weights is not None and loss_mode(mode) not in TASK_MODES:
        raise ValueError(f"weights act in {' and '.join(TASK_MODES)} only; mode is {mode}")
    if counts is None:
        known = len(weights) if weights is not None else int(task_ids.max()) + 1
        counts = count_step(labels, task_ids, sample_ids, num_tasks or known)
        check_trains(counts)
    scale = coefficients(labels, task_ids, sample_ids, mode, counts, weights, num_samples=num_samples)
    return (scale * token_losses.float().masked_fill(labels == IGNORE_INDEX, 0.0)).sum()


def check_trains(counts: StepCounts) -> None:
    """Check that a step trains something; on a GPU this waits for it.

    Raises:
        ValueError: no token is trained.
    """
    if not counts.tokens.sum() > 0:
        raise ValueError("no token of this step is trained")


def task_sums(token_losses: Tensor, labels: Tensor, task_ids: Tensor, num_tasks: int) -> Tensor:
    """Sum of the trained tokens' losses of each task, float64 [K], on the device of the losses; for logging."""
    losses = token_losses.detach().double().masked_fill(labels == IGNORE_INDEX, 0.0)   # picking them out would wait for a GPU
    sums = torch.zeros(num_tasks, dtype=torch.float64, device=token_losses.device)
    return sums.index_add_(0, task_ids.clamp(min=0).reshape(-1), losses.reshape(-1))


def _sample_keys(sample_ids: Tensor, num_samples: int | None = None) -> tuple[int, Tensor]:
    """(number of keys, keys [B, T]): one key per (row, sample), 0 for padding."""
    width = (int(sample_ids.max()) + 1 if num_samples is None else num_samples) + 1
    rows = torch.arange(sample_ids.shape[0], device=sample_ids.device).unsqueeze(1)
    return width * sample_ids.shape[0], rows * width + sample_ids + 1


def _trained_of_sample(trained: Tensor, sample_ids: Tensor, num_samples: int | None) -> Tensor:
    """n_s at every position of sample s, float64 [B, T]."""
    size, keys = _sample_keys(sample_ids, num_samples)
    per_sample = torch.zeros(size, dtype=torch.float64, device=sample_ids.device)
    per_sample.index_add_(0, keys.reshape(-1), trained.reshape(-1).double())
    return per_sample[keys]
