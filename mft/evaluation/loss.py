"""Held-out loss of several models on the same rows, task by task."""

import logging
import math
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel

import mft
from mft.errors import CheckFailed, DataError
from mft.evaluation.divergences import Divergences
from mft.evaluation.models import ModelUnderTest, loaded_in_turn
from mft.evaluation.verdict import CLEARLY, TOLERATED, LossTable, Verdict, judge, loss_table
from mft.formats.base import PromptFormat
from mft.scoring.loss import SampleScore, score_samples
from mft.tokenization.encode import TokenizedSample
from mft.tokenization.load import TextTokenizer

logger = logging.getLogger(__name__)

LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes", "tokenizers")
MEASURE = "mean negative log-likelihood per trained token, in nats; long rows weigh more"
ERROR = "standard error of the paired difference over rows, rows taken as independent (linearised ratio estimator)"
RULE = (f"overall: the difference to the first model must be below -{CLEARLY:g} standard errors; "
        f"each task: it must not be above +{TOLERATED:g} standard error")


@dataclass(frozen=True, slots=True)
class LossResult:
    """All of an evaluation; differences are to the first of `models`."""

    models: tuple[str, ...]
    tasks: dict[str, LossTable]
    overall: LossTable
    verdict: Verdict
    protocol: dict[str, Any]
    divergence: dict[str, Any] | None = None
    """`reference`, `tokens`, and `models`: name -> mean KL(reference || model) in nats, its error, share of equal first choices."""

    def to_json(self) -> dict[str, Any]:
        """As written to `result.json`."""
        return {"benchmark": "loss", **asdict(self)}


def evaluate_loss(samples: Sequence[TokenizedSample], tasks: Sequence[str], models: Sequence[ModelUnderTest], *, context: int,
                  prompt_format: PromptFormat, tokenizer: TextTokenizer, progress: Callable[[str, int, int], None] | None = None,
                  visit: Callable[[str, PreTrainedModel | PeftModel], None] | None = None,
                  divergence_from: str | None = None) -> LossResult:
    """Score the samples with each model and compare every model with the first.

    Args:
        samples: held-out rows; `task_id` indexes `tasks`.
        models: loaded one after the other, each freed before the next.
        context: length of a packed row, in tokens.
        prompt_format: what the samples were rendered with; recorded, as is `tokenizer`.
        progress: called as `progress(model name, rows done, rows)`.
        visit: called with each model once it is scored, while it is loaded (to write out answers).
        divergence_from: the name of the model whose next-token distributions those of every other one are compared with.

    Raises:
        DataError: no samples, or one longer than `context`.
        CheckFailed: a model gives a loss that is not a number.
    """
    if not samples:
        raise DataError("there is no held-out row to evaluate on; the data's manifest says what was kept for validation")
    found: dict[str, list[SampleScore]] = {}
    with Divergences(divergence_from, samples, context) as divergences:
        for name, model in loaded_in_turn(sorted(models, key=lambda each: each.name != divergence_from)):
            report = None if progress is None else lambda done, rows, name=name: progress(name, done, rows)
            found[name] = score_samples(model, samples, context=context, progress=report)
            _check_finite(name, found[name], samples)
            divergences.take(name, model)
            if visit:
                visit(name, model)
            del model
    scores = {model.name: found[model.name] for model in models}
    by_task = {task: loss_table({name: [score for score in those if score.task_id == index] for name, those in scores.items()})
               for index, task in enumerate(tasks)}
    overall = loss_table(scores)
    for name, loss in overall.loss.items():
        logger.info("%s: loss %.4f over %d rows, %d trained tokens", name, loss, overall.rows, overall.tokens)
    protocol = _protocol(models, context, prompt_format, tokenizer)
    return LossResult(tuple(scores), by_task, overall, judge(by_task, overall), protocol, divergences.facts())


def check(result: LossResult) -> None:
    """Raise when the verdict is not ok.

    Raises:
        CheckFailed: the loss did not fall clearly, or rose on a task; each fault is named.
    """
    if not result.verdict.ok:
        raise CheckFailed("the fine-tune did not do what it should:\n" + "\n".join(f"  {fault}" for fault in result.verdict.faults))


def _check_finite(name: str, scores: Sequence[SampleScore], samples: Sequence[TokenizedSample]) -> None:
    broken = [sample.id for score, sample in zip(scores, samples, strict=True) if not math.isfinite(score.nll_sum)]
    if broken:
        raise CheckFailed(f"model '{name}': the loss of {len(broken)} of {len(samples)} rows is not a number "
                          f"(first: '{broken[0]}')")


def _protocol(models: Sequence[ModelUnderTest], context: int, prompt_format: PromptFormat,
              tokenizer: TextTokenizer) -> dict[str, Any]:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {
        "measure": MEASURE, "standard_error": ERROR, "rule": RULE, "format": prompt_format.name,
        "tokenizer_sha256": tokenizer.sha256, "context": context, "packed": True,
        "models": {model.name: model.facts() for model in models}, "device": device,
        "versions": {"mft": mft.__version__, "python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
    }
