"""The sizes of a base of Llama's kind, from its config.json: what arithmetic of memory and of time needs. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

from mft.errors import ModelError

KINDS = ("llama", "mistral", "qwen2", "qwen3")
"""model_type whose blocks are Llama's: two RMS norms, attention with rotary positions, a gated MLP of three matrices. CodeLlama and
DeepSeek Coder are `llama`, Qwen2.5 Coder is `qwen2`."""

SIZES = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "vocab_size")


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a model. `inner`: width of the MLP; `tied`: the head's weight is the embedding's."""

    layers: int
    hidden: int
    inner: int
    heads: int
    key_heads: int
    head_size: int
    vocabulary: int
    tied: bool = False
    attention_bias: bool = False
    head_norms: bool = False

    @property
    def queries(self) -> int:
        """Width of all query heads together."""
        return self.heads * self.head_size

    @property
    def keys(self) -> int:
        """Width of all key heads together, and of all value heads."""
        return self.key_heads * self.head_size

    @property
    def linear(self) -> Mapping[str, tuple[int, int]]:
        """Name -> (inputs, outputs) of the linear modules of one layer, in the order in which they run."""
        return _linear(self)

    @property
    def linear_parameters(self) -> int:
        """Weights of the linear modules of all layers, without biases; the head is none of them."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self.linear.values())

    @property
    def other_parameters(self) -> int:
        """All other weights: embedding, head unless tied, norms, biases."""
        norms = self.layers * (2 * self.hidden + (2 * self.head_size if self.head_norms else 0)) + self.hidden
        biases = self.layers * (self.queries + 2 * self.keys) if self.attention_bias else 0
        return (1 if self.tied else 2) * self.vocabulary * self.hidden + norms + biases

    @property
    def parameters(self) -> int:
        """Weights of the whole model.

        >>> Shape(48, 8192, 22016, 64, 8, 128, 32000).parameters
        33743970304
        """
        return self.linear_parameters + self.other_parameters


@cache
def _linear(shape: Shape) -> Mapping[str, tuple[int, int]]:
    """Asked for thousands of times while a plan is made."""
    return MappingProxyType({
        "q_proj": (shape.hidden, shape.queries), "k_proj": (shape.hidden, shape.keys), "v_proj": (shape.hidden, shape.keys),
        "o_proj": (shape.queries, shape.hidden), "gate_proj": (shape.hidden, shape.inner), "up_proj": (shape.hidden, shape.inner),
        "down_proj": (shape.inner, shape.hidden)})


def shape_of(config: Mapping[str, Any]) -> Shape:
    """The shape that a config.json describes.

    Raises:
        ModelError: the model is of another kind, or a size is missing.
    """
    kind = config.get("model_type", "llama")
    if kind not in KINDS:
        raise ModelError(f"config.json: model_type is '{kind}', whose memory is not known beforehand; known: {', '.join(KINDS)}")
    if missing := [name for name in SIZES if not isinstance(config.get(name), int)]:
        raise ModelError(f"config.json: {', '.join(missing)}: missing, or not a whole number")
    heads = int(config["num_attention_heads"])
    return Shape(
        layers=config["num_hidden_layers"], hidden=config["hidden_size"], inner=config["intermediate_size"], heads=heads,
        key_heads=int(config.get("num_key_value_heads") or heads), head_size=int(config.get("head_dim") or config["hidden_size"] // heads),
        vocabulary=config["vocab_size"], tied=bool(config.get("tie_word_embeddings", False)),
        attention_bias=kind == "qwen2" or bool(config.get("attention_bias", False)), head_norms=kind == "qwen3")
