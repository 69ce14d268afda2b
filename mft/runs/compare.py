"""Held-out loss of models that are given by name or folder: what `mft evaluate loss` does."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mft.data.pipeline import read_built
from mft.errors import ConfigError, FormatError
from mft.evaluation.loss import evaluate_loss
from mft.evaluation.models import ModelUnderTest
from mft.files import MANIFEST, read_json
from mft.formats import names as format_names
from mft.modeling.adapters import FACTS, is_adapter, read_adapter_facts
from mft.modeling.added_tokens import base_of_adapter
from mft.modeling.base import read_model_config, resolve_base
from mft.modeling.config import QuantizationConfig
from mft.runs.inputs import resolve_tokenizer
from mft.runs.progress import progress_bar
from mft.tokenization.compatibility import format_for
from mft.tokenization.load import load_tokenizer
from mft.tokenization.store import encode_conversations


def loss_of_models(data: Path, models: Sequence[str], format_name: str | None, context: int | None, tokenizer: str | None, *,
                   nf4: bool, divergence_from: str | None = None) -> dict[str, Any]:
    """`mft evaluate loss`: result.json of the validation rows of a built folder.

    Raises:
        FormatError: no format is given, and no model says which it was trained with.
    """
    under_test = [model_under_test(text, nf4=nf4) for text in models]
    names = [model.name for model in under_test]
    if divergence_from is not None and divergence_from not in names:
        raise ConfigError([f"--divergence-from {divergence_from}: expected one of the models, {', '.join(names)}"])
    loaded = load_tokenizer(resolve_tokenizer(tokenizer) if tokenizer else under_test[0].path)
    prompt_format = format_for(format_name or _format_of(under_test), loaded)
    context = context or _longest(under_test[0].path)
    rows = read_built(data)["validation"]
    tasks = list(read_json(data / MANIFEST)["per_task"])
    encoded = encode_conversations(rows, prompt_format, loaded, context, tasks)
    with progress_bar("score") as report:
        result = evaluate_loss(encoded.samples, tasks, under_test, context=context, prompt_format=prompt_format, tokenizer=loaded,
                               divergence_from=divergence_from, progress=lambda _, done, total: report(done, total)).to_json()
    return {**result, "dropped": dict(encoded.dropped)}


def _format_of(models: Sequence[ModelUnderTest]) -> str | dict[str, Any]:
    known = [read_json(model.path / FACTS)["format"] for model in models if (model.path / FACTS).is_file()]
    if not known:
        raise FormatError(f"no model says which prompt format it was trained with; give --format: {', '.join(format_names())}")
    first: str | dict[str, Any] = known[0]
    return first


def _longest(path: Path) -> int:
    """The longest row that a model was made for, in tokens."""
    folder = base_of_adapter(resolve_base(read_adapter_facts(path).base, beside=path), path) if is_adapter(path) else path
    return int(read_model_config(folder)["max_position_embeddings"])


def model_under_test(text: str, *, nf4: bool) -> ModelUnderTest:
    """A model given as NAME=FOLDER or FOLDER (hub ids and built-in bases too); a folder with `@nf4` behind it is held in NF4."""
    name, sign, place = text.partition("=")
    if not sign:
        name, place = Path(text).name, text
    if place.endswith("@nf4"):
        place, nf4 = place.removesuffix("@nf4"), True
    path = Path(place)
    if not is_adapter(path):
        path = resolve_base(place)
    quantization = None if is_adapter(path) else QuantizationConfig(type="nf4" if nf4 else "none")
    return ModelUnderTest(name, path, quantization)
