"""Weights of few bits in AutoGPTQ's layout: packed, unpacked, multiplied out.

Legend: in, out: inputs and outputs of a linear module; G: groups of inputs that share a scale; b: bits.

    qweight  int32 [in * b / 32, out]    32 numbers of a column are a stream of 32 * b bits, lowest first, in b words
    qzeros   int32 [G, out * b / 32]     the zero points minus one, packed in the same way along a row
    scales   fp16  [G, out]
    g_idx    int32 [in]                  the group of each input; not in order where the columns were quantised by activation order

Weight [o, i] = scales[g_idx[i], o] * (q[i, o] - zero[g_idx[i], o]). Source: AutoGPTQ's `qlinear_cuda_old.py` and `qlinear_exllama.py`
(`pack`), format "gptq"; for 3 bits its three-word pattern is the same stream of 96 bits.
"""

import math

import torch
from torch import Tensor

BITS = (2, 3, 4, 8)
BLOCK = 32
"""Numbers that are packed together, into as many 32-bit words as a number has bits."""


def pack(numbers: Tensor, bits: int, axis: int = 0) -> Tensor:
    """Pack whole numbers [n, columns] of `bits` bits each along an axis: along the first into int32 [n * bits / 32, columns].

    >>> pack(torch.tensor([[1], [2], [3], [0], [0], [0], [0], [15]]).repeat(4, 1), 4).tolist() == [[0x321 - (1 << 28)]] * 4
    True
    """
    if axis:
        return pack(numbers.t(), bits).t().contiguous()
    rows, columns = numbers.shape
    if rows % BLOCK:
        raise ValueError(f"{rows} numbers are no multiple of {BLOCK}")
    blocks = numbers.to(torch.int64).reshape(rows // BLOCK, BLOCK, columns)
    words = torch.zeros(rows // BLOCK, bits, columns, dtype=torch.int64)
    for place in range(BLOCK):
        word, shift = divmod(place * bits, 32)
        words[:, word] |= (blocks[:, place] << shift) & 0xFFFFFFFF
        if shift + bits > 32:
            words[:, word + 1] |= blocks[:, place] >> (32 - shift)
    return torch.where(words >= 1 << 31, words - (1 << 32), words).to(torch.int32).reshape(rows // BLOCK * bits, columns)


def unpack(words: Tensor, bits: int, axis: int = 0) -> Tensor:
    """The numbers that `pack` packed: int32 [words * 32 / bits, columns], each from 0 to 2^bits - 1."""
    if axis:
        return unpack(words.t(), bits).t()
    blocks, columns = words.shape[0] // bits, words.shape[1]
    wide = words.to(torch.int64).reshape(blocks, bits, columns) & 0xFFFFFFFF
    numbers = torch.empty(blocks, BLOCK, columns, dtype=torch.int32)
    for place in range(BLOCK):
        word, shift = divmod(place * bits, 32)
        number = wide[:, word] >> shift
        if shift + bits > 32:
            number = number | (wide[:, word + 1] << (32 - shift))
        numbers[:, place] = (number & ((1 << bits) - 1)).to(torch.int32)
    return numbers.reshape(blocks * BLOCK, columns)


def groups_of(inputs: int, group_size: int) -> int:
    """How many groups there are; -1: all inputs are one.

    >>> groups_of(704, 64), groups_of(704, 128), groups_of(704, -1)
    (11, 6, 1)
    """
    return 1 if group_size == -1 else math.ceil(inputs / group_size)


def multiplied_out(qweight: Tensor, qzeros: Tensor, scales: Tensor, g_idx: Tensor, bits: int) -> Tensor:
    """The weight [out, in] in float32 that these four say."""
    inputs, outputs = g_idx.shape[0], scales.shape[1]
    numbers = unpack(qweight, bits)[:inputs, :outputs]
    zeros = unpack(qzeros, bits, axis=1)[:, :outputs] + 1
    group = g_idx.long()
    return (scales.float()[group] * (numbers - zeros[group])).t().contiguous()


def to_nearest(weight: Tensor, bits: int, group_size: int) -> dict[str, Tensor]:
    """Round a weight [out, in] to the nearest step of a symmetric grid for each group, without any data.

    The grid reaches to the group's largest magnitude: step = 2 max|w| / (2^b - 1), zero point 2^(b-1), as in GPTQ's symmetric quantiser
    (IST-DASLab/gptq, quant.py), so that what differs from GPTQ is the rounding alone.
    """
    outputs, inputs = weight.shape
    groups, size = groups_of(inputs, group_size), inputs if group_size == -1 else group_size
    padded = torch.nn.functional.pad(weight.float(), (0, groups * size - inputs)).reshape(outputs, groups, size)
    largest = padded.abs().amax(-1)
    step = torch.where(largest > 0, 2 * largest / (2**bits - 1), torch.ones_like(largest))
    scales = step.half()
    zero = 1 << (bits - 1)
    numbers = (padded / scales.float()[..., None]).round().add(zero).clamp(0, 2**bits - 1).to(torch.int32)
    numbers = numbers.reshape(outputs, groups * size)[:, :inputs]
    zeros = torch.full((outputs, groups), zero - 1, dtype=torch.int32)
    return {"qweight": pack(numbers.t().contiguous(), bits), "qzeros": pack(zeros.t().contiguous(), bits, axis=1),
            "scales": scales.t().contiguous(), "g_idx": torch.arange(inputs, dtype=torch.int32) // size}
