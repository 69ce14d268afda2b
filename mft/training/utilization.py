"""How much of a device's arithmetic a training run uses: model FLOPs utilisation (MFU)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

PEAK_FLOPS: tuple[tuple[tuple[str, ...], float], ...] = (
    (("A100",), 312e12),
    (("A800",), 312e12),
    (("H100", "PCIe"), 756e12),
    (("H100", "NVL"), 835e12),
    (("H100",), 989e12),
    (("H800",), 989e12),
    (("H200", "NVL"), 835e12),
    (("H200",), 989e12),
    (("GH200",), 989e12),
    (("B200",), 2250e12),
    (("L40S",), 362e12),
    (("A40",), 149.7e12),
    (("A10",), 125e12),
    (("MI300X",), 1307e12),
)
"""Words of the name that torch gives a device, and its peak in dense bf16 multiply-adds counted as two operations, per second.

Source: the makers' data sheets (NVIDIA A100, A10, A40, L40S, H100, H200, HGX B200; AMD Instinct MI300X). NVIDIA prints 2:4 sparse
numbers from Hopper on, of which these are the half. The first line all of whose words stand in the name counts; a word must stand
alone, so that A100 is not read as A10.
"""


def peak_flops(device_name: str) -> float | None:
    """Peak dense bf16 FLOP/s of a device by the name that `torch.cuda.get_device_name` gives; None where it is not known.

    >>> peak_flops("NVIDIA A100-SXM4-80GB") / 1e12, peak_flops("NVIDIA H100 PCIe") / 1e12, peak_flops("NVIDIA H100 80GB HBM3") / 1e12
    (312.0, 756.0, 989.0)
    >>> peak_flops("NVIDIA GeForce RTX 5090") is None
    True
    """
    words = set(device_name.replace("-", " ").replace("_", " ").split())
    return next((peak for needed, peak in PEAK_FLOPS if words.issuperset(needed)), None)


def mean_keys(lengths: Sequence[int]) -> float:
    """Keys that a token attends to, itself included, as a mean over the tokens of samples of these lengths: sum n (n + 1) / 2 / sum n.

    >>> mean_keys([1, 3])
    1.75
    """
    sizes = np.asarray(lengths, dtype=np.float64)
    return float((sizes * (sizes + 1)).sum() / 2 / sizes.sum())


def flops_per_token(config: Mapping[str, Any], *, keys: float, adapter_parameters: int = 0, trained_share: float = 1.0) -> float:
    """FLOPs that training on one token needs, for a Llama shape; recomputation, dequantisation and softmax are not counted.

        full fine-tune:   6 P                   forward, gradient of the input, gradient of the weight: 2 each
        adapter:          4 P + 6 A             a frozen weight needs no gradient; the adapter's A parameters need all three
        both:             + 12 L q keys         Q K^T and its product with V are 2 q keys each in a layer, three times as above

    P: weights of the L layers' linear modules, and `trained_share` of the head's: the share of the tokens whose logits are
    computed. q: heads times their size. Embeddings are looked up, which costs nothing here. Source: the usual count of MFU
    (PaLM, arXiv:2204.02311, appendix B), with the frozen weights' gradients taken away.

    Args:
        config: the base's config.json.
        keys: `mean_keys` of the samples; half the context for rows of one sample.
        adapter_parameters: A; 0 is a full fine-tune.
        trained_share: 1 where all logits are computed.
    """
    layers, hidden, heads = config["num_hidden_layers"], config["hidden_size"], config["num_attention_heads"]
    size = config.get("head_dim") or hidden // heads
    q, kv = heads * size, (config.get("num_key_value_heads") or heads) * size
    linear = layers * (2 * hidden * q + 2 * hidden * kv + 3 * hidden * config["intermediate_size"])
    weights = linear + trained_share * hidden * config["vocab_size"]
    passes = 4 * weights + 6 * adapter_parameters if adapter_parameters else 6 * weights
    return float(passes + 12 * layers * q * keys)


@dataclass(frozen=True, slots=True)
class Utilization:
    """`flops` of one token, and the `peak` FLOP/s of one device, None where it is not known."""

    flops: float
    peak: float | None

    def mfu(self, tokens_per_s: float, ranks: int = 1) -> float | None:
        """The part of the peak of `ranks` devices that this many tokens a second, of all of them, need; None without a peak."""
        return None if self.peak is None else tokens_per_s * self.flops / (self.peak * ranks)
