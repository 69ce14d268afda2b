"""What a training step holds in memory: the arithmetic of `mft plan` beside what is counted.

    PYTHONPATH=scripts/bench python scripts/bench/memory.py [--shape 34b] [--tokens 256] [--rank 32] [--dropout 0.05] [--type lora]
        [--compute-dtype bf16] [--recompute full] [--attention sdpa] [--layers 48] [--contexts 4096,16384] [--json]

Real layers of the shape, with random NF4 weights, are trained on one micro-batch of packed tokens as a run does it. Counted, without a GPU:
  saved     bytes of the tensors that are alive between the forward and the backward pass, of one and of two layers; their difference is
            one layer. From two token counts comes what grows with the tokens and with their square.
  peak      the most bytes of tensors alive at once in a step, counted operation by operation.
Then the whole model is extrapolated from one and two layers to `--layers` and to each of `--contexts`, and set beside the plan.
With CUDA, `peak` is the allocator's own.
"""

import argparse
import gc
import json
import os
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "3000")

import torch
from peft.tuners.lora import LoraLayer
from random_llama import random_llama
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from trl.trainer.utils import add_fused_lm_head

from mft.modeling.adapters import add_adapter, quantization_of_base
from mft.modeling.compute import cpu_has_bf16
from mft.modeling.config import AdapterConfig, QuantizationConfig
from mft.modeling.memory import StepShape, head_bytes, saved_bytes, workspace_bytes
from mft.modeling.modes import uncast_inputs
from mft.modeling.recompute import LEVELS, Level, Recompute, every
from mft.modeling.recompute_layers import recompute_layers
from mft.modeling.shape import shape_of

SHAPES: dict[str, dict[str, Any]] = {
    "34b": {"model_type": "llama", "num_hidden_layers": 48, "hidden_size": 8192, "intermediate_size": 22016, "num_attention_heads": 64,
            "num_key_value_heads": 8, "vocab_size": 32000, "max_position_embeddings": 16384, "rope_theta": 1e6},
    "small": {"model_type": "llama", "num_hidden_layers": 4, "hidden_size": 512, "intermediate_size": 1376, "num_attention_heads": 8,
              "num_key_value_heads": 2, "vocab_size": 512, "max_position_embeddings": 16384},
}


@dataclass(frozen=True, slots=True)
class Counted:
    """Bytes of one micro-batch: kept between the passes, and the most alive beside the weights."""

    saved: int
    peak: int


class LiveBytes(TorchDispatchMode):
    """Counts the storages that operations make while it is entered; `peak` is the most bytes alive at once."""

    def __init__(self, known: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self.known = {tensor.untyped_storage()._cdata for tensor in known}
        self.live = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if isinstance(tensor, torch.Tensor):
                self._add(tensor.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self.known:
            self.known.add(key)
            self.live += size
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.live -= size


def count_step(config: dict[str, Any], layers: int, step: StepShape, *, recompute: Recompute) -> Counted:
    """Train one micro-batch of two packed samples on so many layers, and count."""
    device = torch.device(step.device)
    attention = {"flash": "flash_attention_2"}.get(step.attention, step.attention)
    model = random_llama({**config, "num_hidden_layers": layers}, quantization_of_base(step.adapter, step.quantization), device, attention)
    add_fused_lm_head(model)
    trained = add_adapter(model, step.adapter, seed=1).train()
    recompute_layers(trained, recompute)
    adapters = [module for module in trained.modules() if isinstance(module, LoraLayer)] if step.width == 2 else []
    with uncast_inputs(adapters):   # also where the backward pass runs the layers again
        return _allocated(trained, step) if device.type == "cuda" else _alive(trained, step)


def _alive(model: Any, step: StepShape) -> Counted:
    with LiveBytes([*model.parameters(), *model.buffers()]) as live:
        loss = _forward(model, step)
        saved = live.live
        loss.backward()
    return Counted(saved, live.peak)


def _allocated(model: Any, step: StepShape) -> Counted:
    """The same by CUDA's allocator, in a second step: the first one's kernels take workspaces that stay."""
    _forward(model, step).backward()
    for parameter in model.parameters():
        parameter.grad = None
    gc.collect()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    loss = _forward(model, step)
    saved = torch.cuda.memory_allocated() - before
    loss.backward()
    return Counted(saved, torch.cuda.max_memory_allocated() - before)


def _forward(model: Any, step: StepShape) -> torch.Tensor:
    """As the trainer does it: autocast unless in float32, the fused head, samples told apart by positions."""
    device, tokens = torch.device(step.device), step.tokens
    half = tokens // 2
    positions = torch.cat([torch.arange(half), torch.arange(tokens - half)])[None].to(device)
    ids = torch.randint(0, step.shape.vocabulary, (1, tokens), device=device, generator=torch.Generator(device).manual_seed(3))
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=step.width == 2):
        loss: torch.Tensor = -model(input_ids=ids, position_ids=positions, labels=ids, use_cache=False, fused_lm_head=True).log_probs.mean()
    return loss


def count_all(config: dict[str, Any], step: StepShape, level: Level) -> dict[tuple[int, int], Counted]:
    """(layers, tokens) -> what is counted: one and two layers, at the step's tokens and at half of them."""
    return {(layers, tokens): count_step(config, layers, replace(step, tokens=tokens), recompute=every(level, layers))
            for layers in (1, 2) for tokens in (step.tokens // 2, step.tokens)}


def extrapolate(counted: dict[tuple[int, int], Counted], step: StepShape, layers: int, context: int, level: Level) -> float:
    """Saved bytes of the whole model at this context: a + b T + c T^2 of one and of two layers, c the mask's; others as the second."""
    few, many = step.tokens // 2, step.tokens
    masks = step.attention == "sdpa"   # each layer keeps one in the activations' type; or all of them one of a byte a number

    def at_context(number: int) -> float:
        squares = 0 if not masks else 1 if level in ("full", "attention") else number * step.width
        low, high = counted[number, few].saved, counted[number, many].saved
        slope = (high - low - squares * (many**2 - few**2)) / (many - few)
        return low - squares * few**2 - slope * few + slope * context + squares * context**2

    one, two = at_context(1), at_context(2)
    return one + (layers - 1) * (two - one)


def main() -> None:
    """Print counted beside planned."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=list(SHAPES), default="34b")
    parser.add_argument("--tokens", type=int, default=256, help="tokens of the micro-batch that is counted; the half of it too")
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--dropout", type=float, default=0.05)
    parser.add_argument("--type", choices=["lora", "rslora", "dora"], default="lora")
    fast = torch.cuda.is_available() or cpu_has_bf16()
    parser.add_argument("--compute-dtype", choices=["bf16", "fp32"], default="bf16" if fast else "fp32",
                        help="default: bf16, or fp32 on a CPU without bf16 arithmetic")
    parser.add_argument("--recompute", choices=[*LEVELS[::-1], "none"], default="none", help="of every layer")
    parser.add_argument("--attention", choices=["flash", "sdpa"], default="flash" if torch.cuda.is_available() else "sdpa")
    parser.add_argument("--layers", type=int, help="default: the shape's own")
    parser.add_argument("--contexts", default="4096,16384")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    config = SHAPES[asked.shape]
    shape, level = shape_of(config), "keep" if asked.recompute == "none" else asked.recompute
    quantization = QuantizationConfig(compute_dtype=asked.compute_dtype)
    step = StepShape(shape, quantization, AdapterConfig(type=asked.type, rank=asked.rank, dropout=asked.dropout), asked.tokens,
                     asked.attention, "cuda" if torch.cuda.is_available() else "cpu")
    layers = asked.layers or shape.layers
    found = count_all(config, step, level)
    rows = []
    for context in map(int, asked.contexts.split(",")):
        whole = replace(step, tokens=context, shape=replace(shape, layers=layers))
        counted, planned = extrapolate(found, step, layers, context, level), saved_bytes(whole, every(level, layers))
        rows.append({"context": context, "counted_bytes": round(counted), "planned_bytes": planned, "ratio": planned / counted})
    two = replace(step, shape=replace(shape, layers=2))
    peak = found[2, step.tokens].peak
    planned = saved_bytes(two, every(level, 2)) + max(head_bytes(two), workspace_bytes(two, every(level, 2)))
    result = {"shape": asked.shape, "layers": layers, "recompute": asked.recompute, "attention": asked.attention, "contexts": rows,
              "two_layers": {"tokens": asked.tokens, "peak_counted_bytes": peak, "peak_planned_bytes": planned, "ratio": planned / peak}}
    if asked.json:
        print(json.dumps(result))
        return
    print(f"{asked.shape}, {layers} layers, {asked.type} rank {asked.rank}, dropout {asked.dropout}, {asked.compute_dtype}, "
          f"recompute {asked.recompute}")
    for row in rows:
        print(f"  saved at {row['context']:>6} tokens: counted {row['counted_bytes'] / 1e9:8.2f} GB, planned "
              f"{row['planned_bytes'] / 1e9:8.2f} GB, ratio {row['ratio']:.4f}")
    print(f"  peak of 2 layers at {asked.tokens} tokens: counted {peak / 1e9:.3f} GB, planned {planned / 1e9:.3f} GB, "
          f"ratio {planned / peak:.4f}")


if __name__ == "__main__":
    main()
