"""Fused operations for the layers of a model: `torch.compile` of each layer, and Liger's kernels in place of a few operations.

Both change a loaded model in place, before it is wrapped for several ranks and before its layers are told to recompute. Names of weights
stay as they are, so that adapters and checkpoints do.
"""

import importlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from typing import Any, Self

import torch
from torch import nn
from transformers import PreTrainedModel

from mft.errors import ModelError
from mft.modeling.recompute_layers import decoder_layers

logger = logging.getLogger(__name__)

GRAPHS = 32
"""Most graphs of a layer, beyond which torch runs it uncompiled: with and without a mask, the first layer and others, training and
evaluation, and room for more. torch's own limit is 8."""

LIGER_KINDS = ("llama", "mistral", "qwen2", "qwen3")
"""model_type of the bases that Liger has all three parts for, under these names."""

LIGER_PARTS = {"norms": "rms_norm", "rope": "rope", "mlp": "swiglu"}
"""Name in `training.kernels` -> in Liger."""


class FusedKernels:
    """Applies what `training.kernels` asks for to a model, for as long as the block lasts.

    `compiled`: see `compile_layers`; `liger`: names of the parts that Liger computes.
    """

    def __init__(self, *, compiled: bool, liger: Sequence[str] = ()) -> None:
        self.compiled, self.liger = compiled, tuple(liger)
        self._before, self._stack = _compile_counts() if compiled else (0, 0), ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def apply(self, model: PreTrainedModel) -> None:
        """Change a loaded base, before an adapter is put on it."""
        self._stack.enter_context(liger_kernels(model, self.liger))
        if self.compiled:
            import torch._dynamo

            self._stack.enter_context(torch._dynamo.config.patch(recompile_limit=GRAPHS))
            compile_layers(model)

    def to_json(self) -> dict[str, Any]:
        """What acted. `graphs`: compiled so far; `graph_breaks`: places where a layer was cut into several, which costs speed alone."""
        facts: dict[str, Any] = {"compile": self.compiled, "liger": list(self.liger)}
        if self.compiled:
            graphs, breaks = (now - before for now, before in zip(_compile_counts(), self._before, strict=True))
            if breaks:
                logger.warning("training.kernels.compile: %d graph breaks: the layers of this model are compiled in pieces", breaks)
            facts |= {"graphs": graphs, "graph_breaks": breaks}
        return facts


def compile_layers(model: nn.Module) -> None:
    """Let each layer of a model be compiled when it is first run without a cache of keys; with one it runs as it is.

    Equal layers share their graphs, whatever the number of tokens. Dropout draws from torch's own generator.

    Raises:
        ModelError: the model has no layers that are known.
    """
    if not (layers := decoder_layers(model)):
        raise ModelError(f"{type(model).__name__} has no layers that can be compiled; set training.kernels.compile: false")
    for layer in layers:
        layer.forward = _compiled(layer.forward)


def _compiled(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Not while generating: the number of a layer in the cache would give each layer graphs of its own."""
    fused = torch.compile(forward, dynamic=True, options={"fallback_random": True})

    def run(*inputs: Any, **options: Any) -> Any:
        return (fused if options.get("past_key_values") is None else forward)(*inputs, **options)

    return run


def _compile_counts() -> tuple[int, int]:
    """(graphs, graph breaks) of this process so far."""
    from torch._dynamo.utils import counters

    return counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())


def kernel_faults(parts: Sequence[str], base_config: dict[str, Any], device: str) -> list[str]:
    """Why Liger cannot compute these parts of `training.kernels` for a base with this config.json on a device of this type."""
    if not parts:
        return []
    asked = f"training.kernels: {', '.join(parts)}: liger"
    faults = []
    if (kind := base_config.get("model_type")) not in LIGER_KINDS:
        faults.append(f"{asked}: not for a base of model_type '{kind}'; for {', '.join(LIGER_KINDS)}; use torch")
    if "mlp" in parts and base_config.get("hidden_act", "silu") not in ("silu", "swish"):
        faults.append(f"{asked}: the base's hidden_act is '{base_config['hidden_act']}', and Liger's SwiGLU is of silu; use mlp: torch")
    if device != "cuda":
        faults.append(f"{asked}: its kernels run on CUDA, and this machine has no CUDA device; use torch, or kernels: {{compile: true}}")
    elif missing := [package for module, package in (("triton", "triton"), ("liger_kernel", "liger-kernel")) if find_spec(module) is None]:
        faults.append(f"{asked}: needs the package '{missing[0]}', which is not installed; run: pip install liger-kernel; or use torch")
    return faults


@contextmanager
def liger_kernels(model: PreTrainedModel, parts: Sequence[str]) -> Iterator[None]:
    """Inside the block, Liger computes these parts of a loaded model (`kernel_faults` says what it cannot).

    Norms and MLPs are changed in this model alone and stay so. Liger changes the names of transformers' module too: they are as before
    after the block, so that a model that is loaded later is what its class says.
    """
    if not parts:
        yield
        return
    kind = model.config.model_type
    module = importlib.import_module(f"transformers.models.{kind}.modeling_{kind}")
    before = dict(vars(module))
    apply = getattr(importlib.import_module("liger_kernel.transformers"), f"apply_liger_kernel_to_{kind}")
    wanted = {option: name in parts for name, option in LIGER_PARTS.items()}
    try:
        apply(model=model, cross_entropy=False, fused_linear_cross_entropy=False, **wanted)
        yield
    finally:
        vars(module).update(before)
