"""How good a quantised folder is: perplexity, KL and first choices against the unquantised model, on rows that calibration never saw."""

import gc
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mft.modeling.config import QuantizationConfig
from mft.modeling.load import load_base
from mft.quantization.calibration import CalibrationSet
from mft.scoring.divergence import RecordedModel, compare, record
from mft.tokenization.encode import TokenizedSample

HELD_OUT = "held_out"
"""The name of the held-out rows among the texts: answers of the model's own format, code where the data is code."""

WHOLE = QuantizationConfig(type="none")


@dataclass(frozen=True, slots=True)
class Reference:
    """What the unquantised model says of each set of samples. `context`: of the packed rows, the same for every model."""

    recorded: Mapping[str, RecordedModel]
    samples: Mapping[str, Sequence[TokenizedSample]]
    context: int
    perplexity: Mapping[str, float]


def samples_of(chosen: CalibrationSet) -> dict[str, Sequence[TokenizedSample]]:
    """Held-out rows, then the texts."""
    return {HELD_OUT: chosen.held_out, **chosen.texts}


@contextmanager
def reference_of(model: Path, chosen: CalibrationSet, beside: Path) -> Iterator[Reference]:
    """Record the unquantised model, in 2 bytes a weight (float32 on a CPU without bf16), into a folder that is gone afterwards.

    It takes 4 bytes for each trained token and entry of the vocabulary.
    """
    sets = samples_of(chosen)
    context = max(len(sample.input_ids) for samples in sets.values() for sample in samples)
    with tempfile.TemporaryDirectory(dir=beside, prefix=".reference-") as place:
        loaded = load_base(model, WHOLE)
        recorded: dict[str, RecordedModel] = {}
        perplexity: dict[str, float] = {}
        for name, samples in sets.items():
            recorded[name] = record(loaded, samples, Path(place) / f"{len(recorded)}.bin", context=context)
            perplexity[name] = math.exp(recorded[name].loss)
        del loaded
        _free()
        yield Reference(recorded, sets, context, perplexity)


def measure(folder: Path, reference: Reference) -> dict[str, Any]:
    """Of each set: perplexity, mean KL in nats a token with its standard error, share of equal first choices, tokens.

    Weights in GPTQ's layout are multiplied out; others are held as their own library holds them.
    """
    loaded = load_base(folder, WHOLE)
    found = {name: compare(reference.recorded[name], loaded, samples, context=reference.context).to_json()
             for name, samples in reference.samples.items()}
    del loaded
    _free()
    return found


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
