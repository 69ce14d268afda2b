"""How far one model's next-token distributions are from another's, over the trained tokens of samples.

Legend: n trained tokens of all samples, V tokens of the vocabulary. At each trained token, with p the reference's distribution and q the
other's: KL(p || q) = sum_v p_v (log p_v - log q_v), in nats; and whether both would say the same token first.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from mft.errors import DataError, ModelError
from mft.modeling.modes import without_dropout
from mft.scoring.loss import LOGITS_AT_ONCE, trained_logits
from mft.tokenization.collate import lay_out
from mft.tokenization.encode import TokenizedSample
from mft.tokenization.packing import pack
from mft.tokenization.token_store import lengths_of

Model: TypeAlias = PreTrainedModel | PeftModel
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Divergence:
    """Of `tokens` trained tokens: mean KL(reference || model) in nats, its standard error, the share of equal first choices, and the mean
    loss of both."""

    tokens: int
    kl: float
    kl_standard_error: float
    top1_agreement: float
    loss: float
    reference_loss: float

    @property
    def perplexity(self) -> float:
        """exp(loss)."""
        return math.exp(self.loss)

    def to_json(self) -> dict[str, float]:
        """The fields and both perplexities."""
        return {**asdict(self), "perplexity": self.perplexity, "reference_perplexity": math.exp(self.reference_loss)}


@dataclass(frozen=True, slots=True)
class RecordedModel:
    """What a model says at every trained token: log-probabilities, float32 [n, V], in a file, so that one model is in memory at a time.

    `loss`: its mean loss over these tokens, in nats.
    """

    path: Path
    tokens: int
    vocabulary: int
    loss: float

    def rows(self) -> "np.memmap[tuple[int, int], np.dtype[np.float32]]":
        """The log-probabilities, read as they are asked for."""
        return np.memmap(self.path, dtype=np.float32, mode="r", shape=(self.tokens, self.vocabulary))


def record(model: Model, samples: Sequence[TokenizedSample], path: Path, *, context: int,
           progress: Progress | None = None) -> RecordedModel:
    """Write a model's log-probabilities at the trained tokens of `samples`: 4 n V bytes.

    Raises:
        DataError: a sample is longer than `context`, or no token is trained.
    """
    total, loss = 0, 0.0
    with path.open("wb") as stream:
        for logits, targets in _in_pieces(model, samples, context, progress):
            log_p = logits.log_softmax(-1)
            stream.write(log_p.cpu().numpy().tobytes())
            loss -= float(log_p.gather(1, targets[:, None]).double().sum())
            total, vocabulary = total + len(logits), logits.shape[-1]
    if not total:
        raise DataError("no token of these samples is trained, so there is nothing to compare")
    return RecordedModel(path, total, vocabulary, loss / total)


def compare(reference: RecordedModel, model: Model, samples: Sequence[TokenizedSample], *, context: int,
            progress: Progress | None = None) -> Divergence:
    """A model against what another said of the same samples at the same context.

    Raises:
        ModelError: the models have vocabularies of different sizes.
    """
    recorded, start, sums = reference.rows(), 0, torch.zeros(5, dtype=torch.float64)
    for logits, targets in _in_pieces(model, samples, context, progress):
        if logits.shape[-1] != reference.vocabulary:
            raise ModelError(f"the model has {logits.shape[-1]} logits a token, the one it is compared with {reference.vocabulary}")
        theirs = torch.from_numpy(np.array(recorded[start:start + len(logits)])).to(logits.device)
        sums += _sums(theirs, logits, targets)
        start += len(logits)
    if start != reference.tokens:
        raise ModelError(f"{start} trained tokens, but {reference.tokens} were recorded: these are other samples")
    return _divergence(sums, start)


def divergence(reference: Model, model: Model, samples: Sequence[TokenizedSample], *, context: int,
               progress: Progress | None = None) -> Divergence:
    """Two models that are in memory together.

    Raises:
        DataError, ModelError: as `record` and `compare`.
    """
    sums, tokens = torch.zeros(5, dtype=torch.float64), 0
    ours, theirs = _in_pieces(model, samples, context, progress), _in_pieces(reference, samples, context, None)
    for (logits, targets), (other, _) in zip(ours, theirs, strict=True):
        if logits.shape != other.shape:
            raise ModelError(f"the models have {logits.shape[-1]} and {other.shape[-1]} logits a token")
        sums += _sums(other.log_softmax(-1).to(logits.device), logits, targets)
        tokens += len(logits)
    if not tokens:
        raise DataError("no token of these samples is trained, so there is nothing to compare")
    return _divergence(sums, tokens)


def _sums(log_p: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
    """Sums over the tokens of a piece: KL, its square, equal first choices, loss of the model, loss of the reference; float64 [5]."""
    log_q = logits.log_softmax(-1)
    kl = (log_p.double().exp() * (log_p - log_q).double()).sum(-1)
    same = log_p.argmax(-1) == log_q.argmax(-1)
    losses = [-values.gather(1, targets[:, None]).double().sum() for values in (log_q, log_p)]
    return torch.stack([kl.sum(), (kl * kl).sum(), same.double().sum(), *losses]).cpu()


def _divergence(sums: Tensor, tokens: int) -> Divergence:
    kl, squares, same, loss, reference = (float(value) / tokens for value in sums)
    error = math.sqrt(max(0.0, squares - kl * kl) / tokens)
    return Divergence(tokens, max(0.0, kl), error, same, loss, reference)


def _in_pieces(model: Model, samples: Sequence[TokenizedSample], context: int,
               progress: Progress | None) -> Iterator[tuple[Tensor, Tensor]]:
    """(logits float32 [m, V], targets [m]) of the trained tokens, a bounded piece at a time; the same pieces for every model."""
    rows = pack(lengths_of(samples), context)
    for done, row in enumerate(rows, start=1):
        # Not around the loop: a generator that waits would leave its caller, too, without gradients, and two of them for good.
        with without_dropout(model), torch.no_grad():
            logits, targets, _ = trained_logits(model, lay_out(samples, row))
        step = max(1, LOGITS_AT_ONCE // logits.shape[-1])
        for start in range(0, len(targets), step):
            yield logits[start:start + step].float(), targets[start:start + step]
        if progress:
            progress(done, len(rows))
