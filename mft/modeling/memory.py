"""What a training step holds in memory: weights, and what autograd keeps of the layers, by arithmetic. Needs no torch.

Legend: T tokens of a micro-batch, b bytes of an activation (2 in bf16 and fp16, 4 in float32). Every count is that of the modules as they
run here (transformers' blocks, PEFT's layers, bitsandbytes' 4-bit product, TRL's fused head); tests compare it with the tensors that
autograd saves.
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from mft.modeling.config import RELEASE_2023, AdapterConfig, QuantizationConfig
from mft.modeling.recompute import Level, Recompute
from mft.modeling.shape import Shape

BLOCK, NESTED_BLOCK = 64, 256
"""bitsandbytes: weights that share a quantisation constant; constants that share one of their own."""

HEAD_ROWS, HEAD_COLUMNS = 4096, 32_768
"""TRL's fused head computes logits in tiles of so many tokens and entries of the vocabulary (trl/kernels/chunked_logprob.py)."""

FLOPS_PER_BYTE = 165
"""FLOPs that a GPU does while it moves a byte: an H200's 790 TFLOP/s measured over 4.8 TB/s of its data sheet. An A100 has 156."""

Attention = Literal["flash", "sdpa", "eager"]


@dataclass(frozen=True, slots=True)
class StepShape:
    """What decides how much memory a micro-batch takes. `tokens`: T, of `rows` packed rows; `device`: cuda or cpu."""

    shape: Shape
    quantization: QuantizationConfig
    adapter: AdapterConfig
    tokens: int
    attention: Attention = "flash"
    device: Literal["cuda", "cpu"] = "cuda"
    rows: int = 1

    @property
    def width(self) -> int:
        """Bytes of an activation: b."""
        return 4 if self.quantization.compute_dtype == "fp32" else 2

    @property
    def full(self) -> bool:
        """Every weight trains."""
        return self.adapter.type == "full"

    @property
    def targets(self) -> frozenset[str]:
        """The linear modules of a layer that have an adapter; a name of a module elsewhere (the head) is left out."""
        linear = self.shape.linear
        if self.full:
            return frozenset()
        if self.adapter.targets == "all-linear":
            return frozenset(linear)
        names = RELEASE_2023 if self.adapter.targets == "release_2023" else self.adapter.targets
        return frozenset(name.rpartition(".")[2] for name in names) & linear.keys()


# ---- weights

def weight_bytes(step: StepShape) -> int:
    """The frozen base, in its quantised type; all weights in float32 where they train."""
    shape, quantization = step.shape, step.quantization
    if step.full:
        return 4 * shape.parameters
    if quantization.type == "none":
        return step.width * shape.parameters
    linear = shape.layers * sum(nf4_bytes(inputs * outputs, double=quantization.double_quant) for inputs, outputs in shape.linear.values())
    return linear + step.width * shape.other_parameters


def nf4_bytes(weights: int, *, double: bool) -> int:
    """Bytes of a tensor in NF4: half a byte a weight and the constants of its blocks (arXiv:2305.14314).

    >>> nf4_bytes(64 * 256, double=False), nf4_bytes(64 * 256, double=True)
    (9280, 9544)
    """
    blocks = math.ceil(weights / BLOCK)
    tables = 16 * 4
    constants = blocks + 4 * math.ceil(blocks / NESTED_BLOCK) + 4 + 256 * 4 if double else 4 * blocks
    return math.ceil(weights / 2) + constants + tables


def adapter_parameters(step: StepShape) -> int:
    """Trained weights: of A and B (DoRA: and the lengths) of every target, or all there are."""
    if step.full:
        return step.shape.parameters
    sizes = [step.shape.linear[name] for name in step.targets]
    lengths = sum(outputs for _, outputs in sizes) if step.adapter.type == "dora" else 0
    return step.shape.layers * (step.adapter.rank * sum(inputs + outputs for inputs, outputs in sizes) + lengths)


# ---- what autograd keeps

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
"""Linear modules of a layer's attention; the others are the MLP's."""


def saved_bytes(step: StepShape, recompute: Recompute) -> int:
    """All that is kept from the forward pass to the backward pass: a sum over the layers, and a little once."""
    first, *others = recompute.levels
    layers = kept_bytes(step, first) - _first_layer_saves_less(step, first)
    layers += sum(number * kept_bytes(step, level) for level, number in Counter(others).items())
    once = sum(number * _once_bytes(step, level) for level, number in recompute.counts().items()) // len(recompute.levels)
    again = any(level in ("full", "attention") for level in recompute.levels)
    return layers + _end_bytes(step) + once + (_mask_bytes(step) if again else 0)


def kept_bytes(step: StepShape, level: Level) -> int:
    """What one layer keeps until its backward pass runs."""
    hidden = _stream(step) * step.shape.hidden * step.tokens
    if level == "full":
        return hidden
    norms = step.tokens * _norm_bytes(step) if level == "keep" else 2 * hidden
    attention = hidden if level == "attention" else _attention_part(step)
    return norms + attention + (hidden if level == "mlp" else _mlp_part(step))


def layer_bytes(step: StepShape) -> int:
    """What one layer's forward pass keeps; with recomputation, for as long as its backward pass runs."""
    return kept_bytes(step, "keep")


def _again_bytes(step: StepShape, level: Level) -> int:
    """What comes to it while the layer's backward pass runs: what was not kept, a part at a time."""
    parts = {"keep": 0, "norms": step.tokens * _norm_bytes(step) // 2, "attention": _attention_part(step), "mlp": _mlp_part(step),
             "full": layer_bytes(step)}
    casts = (_once_bytes(step, "keep") - _once_bytes(step, level)) // step.shape.layers
    return parts[level] + casts


def _attention_part(step: StepShape) -> int:
    shape, tokens = step.shape, step.tokens
    head_norms = tokens * (4 * (shape.queries + shape.keys) + 4 * (shape.heads + shape.key_heads)) if shape.head_norms else 0
    return _attention_bytes(step) + head_norms + _adapters_of(step, mlp=False)


def _mlp_part(step: StepShape) -> int:
    return step.tokens * _mlp_bytes(step) + _adapters_of(step, mlp=True)


def _adapters_of(step: StepShape, *, mlp: bool) -> int:
    names = frozenset(name for name in step.targets if (name not in ATTENTION) == mlp)
    return step.tokens * _adapter_bytes(step, names, mlp=mlp) + sum(_dora_weight_bytes(step, name) for name in names)


def _stream(step: StepShape) -> int:
    """Bytes of a number between the layers: float32 where the embedding trains."""
    return 4 if step.full else step.width


def _norm_bytes(step: StepShape) -> int:
    """Two norms: their input in float32, the root of its mean square; the normed input where the norm's own weight trains."""
    return 2 * (4 * step.shape.hidden * (2 if step.full else 1) + 4)


def _attention_bytes(step: StepShape) -> int:
    """Queries, keys, values, the result and its normaliser.

    With a mask, which packed rows need outside of flash attention, keys and values are repeated for every query head, and the mask is
    kept in the activations' type: T^2 numbers a layer.
    """
    shape, tokens, width = step.shape, step.tokens, step.width
    repeated = shape.keys if step.attention == "flash" else shape.queries
    own = tokens * width * (2 * shape.queries + 2 * repeated)
    if step.attention == "eager":
        return own + tokens * tokens * shape.heads * (4 + width)
    return own + 4 * shape.heads * tokens + (width * tokens * tokens if step.attention == "sdpa" else 0)


def _mlp_bytes(step: StepShape) -> int:
    """Gate, its activation, up; their product where something that trains takes it (`_adapter_bytes`, or the full weight)."""
    return step.width * step.shape.inner * 3


def _adapter_bytes(step: StepShape, names: frozenset[str], *, mlp: bool) -> int:
    """Inputs of what trains, a token: of A (dropped out: each its own, and the mask of what was dropped) and of B."""
    if step.full:
        return step.width * sum(inputs for name, (inputs, _) in step.shape.linear.items()
                                if name != "o_proj" and (name not in ATTENTION) == mlp)
    width, total = step.width, 0
    mask = 0 if step.adapter.dropout == 0 else (1 if step.device == "cuda" else width)
    for name in names:
        inputs, outputs = step.shape.linear[name]
        total += width * step.adapter.rank + mask * inputs
        if step.adapter.dropout:
            total += width * inputs
        if step.adapter.type == "dora":
            total += 2 * width * outputs
    if not step.adapter.dropout:   # modules that read the same share it; that of o_proj is attention's result
        readers = ({"q_proj", "k_proj", "v_proj"}, {"gate_proj", "up_proj"}, {"down_proj"})
        total += sum(width * step.shape.linear[min(group)][0] for group in readers if group & names)
    return total


def _first_layer_saves_less(step: StepShape, level: Level) -> int:
    """No gradient flows into a frozen embedding: the first layer keeps neither its first norm's input nor masks of what reads it."""
    if step.full or level == "full":
        return 0
    norm = 4 * step.shape.hidden + 4 if level == "keep" else _stream(step) * step.shape.hidden
    if level == "attention":
        return step.tokens * norm
    mask = 0 if step.adapter.dropout == 0 else (1 if step.device == "cuda" else step.width)
    first = step.targets & {"q_proj", "k_proj", "v_proj"}
    weights = sum(_dora_weight_bytes(step, name) for name in first)
    return step.tokens * (norm + mask * step.shape.hidden * len(first)) + weights


def _dora_weight_bytes(step: StepShape, name: str) -> int:
    """With DoRA and dropout PEFT multiplies the whole weight with the dropped input, so that autograd keeps it, not in 4 bits."""
    inputs, outputs = step.shape.linear[name]
    return step.width * inputs * outputs if step.adapter.type == "dora" and step.adapter.dropout else 0


def _end_bytes(step: StepShape) -> int:
    """The last norm, the head's input, the sines and cosines of the positions."""
    stream, tokens = _stream(step), step.tokens
    norm = 4 * step.shape.hidden * (2 if step.full else 1) + 4
    return tokens * (norm + stream * step.shape.hidden + 2 * stream * step.shape.head_size)


def _mask_bytes(step: StepShape) -> int:
    """The mask of the packed samples, which all layers are given: kept for those that are computed again."""
    return {"flash": 0, "sdpa": 1, "eager": step.width}[step.attention] * step.tokens * step.tokens


def _once_bytes(step: StepShape, level: Level) -> int:
    """Trained weights, which autocast keeps in the activations' type where what reads them is not computed again; of all layers."""
    if step.width == 4 or level == "full":
        return 0
    if level in ("keep", "norms"):
        return step.width * adapter_parameters(step)
    kept = [name for name in (step.shape.linear if step.full else step.targets) if (name in ATTENTION) == (level == "mlp")]
    sizes = [step.shape.linear[name] for name in kept]
    return step.width * step.shape.layers * sum(
        inputs * outputs if step.full else step.adapter.rank * (inputs + outputs) for inputs, outputs in sizes)


# ---- what is held for a moment

def head_bytes(step: StepShape) -> int:
    """The most that the fused head holds at once: a tile of logits and the gradient of its input, in float32 and once more.

    Without Triton (a CPU) the tile is worked on by torch's operations, each with a result of its own.
    """
    rows = min(HEAD_ROWS, step.tokens)
    tile = step.width * rows * HEAD_COLUMNS
    if step.device == "cpu":
        tile += rows * min(HEAD_COLUMNS, step.shape.vocabulary) * 29
    return tile + (4 + step.width) * step.tokens * step.shape.hidden + (4 * step.shape.vocabulary * step.shape.hidden if step.full else 0)


def workspace_bytes(step: StepShape, recompute: Recompute) -> int:
    """The most that one layer's backward pass holds at once beside what was kept.

    That is the MLP's: the gradients of its three wide results and of its input, and a weight that is made whole from 4 bits. What is
    computed again comes to it, when the layers above have given back what they kept.
    """
    shape, width = step.shape, step.width
    gradients = step.tokens * (3 * width * shape.inner + 2 * width * shape.hidden)
    largest = max(inputs * outputs for inputs, outputs in shape.linear.values())
    whole = width * largest + 4 * math.ceil(largest / BLOCK) if step.quantization.type == "nf4" and not step.full else 0
    if step.adapter.type == "dora":
        whole = max(whole, *(_dora_norm_bytes(step, *shape.linear[name]) for name in step.targets))
    kept = {level: kept_bytes(step, level) for level in recompute.counts()}
    again = {level: _again_bytes(step, level) for level in kept}
    given_back, most = 0, 0
    for level in reversed(recompute.levels):
        most = max(most, again[level] - given_back)
        given_back += kept[level]
    return gradients + whole + most


def again_flops(step: StepShape) -> dict[Level, float]:
    """FLOPs of a micro-batch that a layer of each level computes twice, what moves bytes alone counted as the FLOPs of its time.

    Attention as if each row were one sample; with a mask, as if all tokens met.
    """
    shape, tokens = step.shape, step.tokens
    rank = 0 if step.full else step.adapter.rank

    def products(names: Iterable[str]) -> float:
        sizes = {name: shape.linear[name] for name in names}
        return 2 * tokens * sum(inputs * outputs + (rank * (inputs + outputs) if name in step.targets else 0)
                                for name, (inputs, outputs) in sizes.items())

    keys = tokens / step.rows / 2 if step.attention == "flash" else tokens
    norms = FLOPS_PER_BYTE * 2 * tokens * shape.hidden * (2 * _stream(step) + 8)
    attention = products(ATTENTION) + 4 * shape.queries * tokens * keys
    mlp = products(shape.linear.keys() - set(ATTENTION)) + FLOPS_PER_BYTE * 3 * step.width * tokens * shape.inner
    return {"keep": 0.0, "norms": norms, "attention": norms + attention, "mlp": norms + mlp, "full": norms + attention + mlp}


def _dora_norm_bytes(step: StepShape, inputs: int, outputs: int) -> int:
    """PEFT finds the lengths of the rows of W + B A anew in every forward pass (peft/tuners/lora/dora.py).

    It sends a unit matrix through A and B, in float32 and in the activations' type; then it holds W, B A, s B A and their sum.
    """
    width, unit = step.width, inputs * inputs
    return max(unit * (4 + width), unit * width + 4 * width * inputs * outputs)


# ---- what there is

MARGIN = 1.05
"""What is predicted, times this, must fit: the allocator's own losses, and the aim for this arithmetic (5%)."""

AUTO_MARGIN = 1.1
"""The same for what `auto` chooses: it fills a device, and an allocator that works near its end loses more to pieces."""


def free_memory_bytes() -> int:
    """Memory free on the device that models are put on: CUDA's, else the machine's available memory."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    import psutil

    return int(psutil.virtual_memory().available)
