"""How far models are from one of them, measured while each is loaded in turn."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Final, Self

from peft import PeftModel
from transformers import PreTrainedModel

from mft.errors import ModelError
from mft.scoring.divergence import RecordedModel, compare, record
from mft.tokenization.encode import IGNORE_INDEX, TokenizedSample

MOST_TOKENS: Final = 20_000
"""Trained tokens that are compared: 4 bytes each and vocabulary entry are kept on disk, 2.6 GB for 32,000 entries."""


class Divergences:
    """The reference must be taken first; its log-probabilities lie in a temporary folder until the block ends. None: does nothing."""

    def __init__(self, reference: str | None, samples: Sequence[TokenizedSample], context: int) -> None:
        self._reference = reference
        self._samples = spread(samples, MOST_TOKENS) if reference is not None else []
        self._context = context
        self._recorded: RecordedModel | None = None
        self._found: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self._folder = TemporaryDirectory(prefix="mft-divergence-")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._folder.cleanup()

    def take(self, name: str, model: PreTrainedModel | PeftModel) -> None:
        """Record the reference, or compare another model with it.

        Raises:
            ModelError: another model comes before the reference, or has a vocabulary of another size.
        """
        if self._reference is None:
            return
        if name == self._reference:
            self._recorded = record(model, self._samples, Path(self._folder.name) / "reference.bin", context=self._context)
        elif self._recorded is None:
            raise ModelError(f"'{name}' comes before '{self._reference}', with which it is to be compared")
        else:
            self._found[name] = compare(self._recorded, model, self._samples, context=self._context).to_json()

    def facts(self) -> dict[str, Any] | None:
        """What was found; None without a reference."""
        if self._recorded is None:
            return None
        return {"reference": self._reference, "rows": len(self._samples), "tokens": self._recorded.tokens, "models": self._found}


def spread(samples: Sequence[TokenizedSample], tokens: int) -> list[TokenizedSample]:
    """Samples of each task in turn until they have about so many trained tokens."""
    queues: dict[int, list[TokenizedSample]] = {}
    for sample in reversed(list(samples)):
        queues.setdefault(sample.task_id, []).append(sample)
    out: list[TokenizedSample] = []
    while tokens > 0 and any(queues.values()):
        for queue in queues.values():
            if queue and tokens > 0:
                out.append(queue.pop())
                tokens -= sum(label != IGNORE_INDEX for label in out[-1].labels)
    return out
