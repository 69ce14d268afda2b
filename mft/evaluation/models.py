"""The models of an evaluation: loaded one after the other, each described as it was held."""

import gc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from mft.errors import ModelError
from mft.modeling.adapters import is_adapter, read_adapter_facts
from mft.modeling.config import QuantizationConfig
from mft.modeling.load import load_base, load_model
from mft.modeling.quantized_cache import QuantizedCache

WHOLE = QuantizationConfig(type="none")
"""How a model folder is held when nothing else is asked: bf16, not quantised."""


@dataclass(frozen=True, slots=True)
class ModelUnderTest:
    """A model folder or an adapter folder, under the name that results give it.

    `quantization` is for a model folder: a base is compared as it was held while the adapter was trained, so that the
    difference shows the training alone. An adapter folder says itself how its base is held.
    """

    name: str
    path: Path
    quantization: QuantizationConfig | None = None
    attention: str = "auto"
    """As `model.attention` of a config."""

    cache: QuantizedCache | None = None
    """Where a base in NF4 is kept on disk."""

    stamps: Path | None = None
    """Where hashes of large files are kept between commands."""

    def __post_init__(self) -> None:
        if self.quantization is not None and is_adapter(self.path):
            raise ModelError(f"{self.path}: an adapter folder says itself how its base is held; "
                             f"give no quantization for '{self.name}'")

    def load(self) -> PreTrainedModel | PeftModel:
        """The model, in evaluation mode."""
        if is_adapter(self.path):
            return load_model(self.path, attention=self.attention, cache=self.cache)
        return load_base(self.path, self.quantization or WHOLE, attention=self.attention, cache=self.cache)

    def facts(self) -> dict[str, Any]:
        """`path`, `kind` (`model` or `adapter`), `quantization` and, for an adapter, `base`."""
        if is_adapter(self.path):
            adapter = read_adapter_facts(self.path)
            return {"path": str(self.path), "kind": "adapter", "base": adapter.base,
                    "quantization": adapter.quantization.model_dump()}
        return {"path": str(self.path), "kind": "model", "quantization": (self.quantization or WHOLE).model_dump()}


def loaded_in_turn(models: Sequence[ModelUnderTest]) -> Iterator[tuple[str, PreTrainedModel | PeftModel]]:
    """(name, model) of each; a model is freed before the next is loaded, if the caller keeps no reference to it."""
    for under_test in models:
        model = under_test.load()
        yield under_test.name, model
        del model
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
