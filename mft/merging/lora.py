"""One LoRA adapter in PEFT's layout: pairs of matrices, token rows and whole tensors, by the base tensor that each one changes.

    <module>.lora_A.weight [rank, in], .lora_B.weight [out, rank]          a pair on a linear layer
    <module>.lora_embedding_A [rank, rows], .lora_embedding_B [hidden, rank]   a pair on an embedding
    <module>.lora_magnitude_vector [out]                                   with DoRA
    <module>.token_adapter.trainable_tokens_delta                          trained token rows (token_rows.py)
    <module>.weight                                                        `modules_to_save`, or an embedding with another number of rows
    <module>.base_layer.weight                                             the weight under a pair on an embedding or a head

Everything else that PEFT can put into an adapter is refused by name.
"""

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from mft.errors import ModelError
from mft.merging import token_rows
from mft.merging.peft_config import SAVED, is_saved_whole, rank_of, read_adapter_config, scale_of
from mft.merging.reader import SafetensorsReader
from mft.modeling.safetensors_header import StoredTensor

WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
A, B = ".lora_A.weight", ".lora_B.weight"
EMBEDDING_A, EMBEDDING_B = ".lora_embedding_A", ".lora_embedding_B"
MAGNITUDE = ".lora_magnitude_vector"
UNDER, SAVED_COPY, ORIGINAL_COPY = ".base_layer.", ".modules_to_save.", ".original_module."
EMBEDDING_LAYERS = ("embed_tokens", "lm_head", "wte", "embed_in", "embed_out")


@dataclass(frozen=True, slots=True)
class LoraPair:
    """What is added to the base tensor `target` [out, in]: `scale * B @ A`, A [rank, in], B [out, rank].

    `magnitude` [out], of DoRA only: the length that every row of the sum is given. `embedding`: the target is [in, out] (rows of
    tokens), so that the transposed product is added; for other targets the base's shape tells.
    """

    target: str
    a: StoredTensor
    b: StoredTensor
    scale: float
    magnitude: StoredTensor | None = None
    embedding: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """[out, in]."""
        return self.b.shape[0], self.a.shape[1]


class LoraAdapter:
    """An open adapter folder: `pairs`, `rows`, `wholes` and `under` by name of the base tensor; `read` for the numbers.

    `wholes`: tensors that take the place of the base's. `under`: copies of the base's weight that a pair lies on, which PEFT keeps
    beside pairs on embeddings.

    Raises:
        ModelError: not a LoRA adapter, of a kind that is not merged, or its files are damaged or do not fit together.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = read_adapter_config(folder)
        path = folder / WEIGHTS
        if not path.is_file():
            pickled = (folder / "adapter_model.bin").is_file()
            what = "only adapter_model.bin; save the adapter as safetensors" if pickled else f"no {WEIGHTS}"
            raise ModelError(f"{folder}: has {what}")
        self._reader = SafetensorsReader([path])
        self.rows = token_rows.find_rows(path, self._reader.tensors, self.config, PREFIX)
        matrices: dict[str, StoredTensor] = {}
        self.wholes: dict[str, StoredTensor] = {}
        self.under: dict[str, StoredTensor] = {}
        for name, tensor in self._reader.tensors.items():
            if not name.endswith(token_rows.ENDING):
                self._sort_in(path, name, tensor, matrices)
        if lost := [name for name in self.config.get(SAVED) or [] if not any(
                is_saved_whole({SAVED: [name]}, target.rpartition(".")[0]) for target in self.wholes)]:
            raise ModelError(f"{path}: adapter_config.json says {SAVED}={self.config[SAVED]!r}, but there is no tensor of '{lost[0]}'")
        self.pairs = _pair(path, matrices, self.config)
        if not (self.pairs or self.rows or self.wholes):
            raise ModelError(f"{path}: holds no tensor")
        if lone := sorted(self.under.keys() - self.pairs.keys()):
            raise ModelError(f"{path}: has a base_layer for '{lone[0]}', but no pair of matrices on it")

    def __enter__(self) -> "LoraAdapter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._reader.__exit__(kind, error, trace)

    def _sort_in(self, path: Path, name: str, tensor: StoredTensor, matrices: dict[str, StoredTensor]) -> None:
        """Put one tensor of the file where it belongs."""
        own = name.removeprefix(PREFIX)
        module = own.rpartition(".")[0]
        if ".lora_" in name or not name.startswith(PREFIX):
            matrices[name] = tensor
        elif ORIGINAL_COPY in own:
            return          # the base's own tensor beside a copy in `modules_to_save` (PEFT, after a resize)
        elif UNDER in own:
            self.under[own.replace(UNDER, ".")] = tensor
        elif is_saved_whole(self.config, module) or module.split(".")[-1] in EMBEDDING_LAYERS:
            if not tensor.is_floating:
                raise ModelError(f"{path}: tensor '{name}' is {tensor.dtype}; floating point numbers are needed")
            if SAVED_COPY in own or own not in self.wholes:
                self.wholes[own.replace(SAVED_COPY, ".")] = tensor
        else:
            raise ModelError(f"{path}: tensor '{name}' is no LoRA matrix of a linear layer ({PREFIX}<module>{A} or {B}) and not of "
                             f"{SAVED}={self.config.get(SAVED)!r}; adapters that hold anything else are not merged")

    def read(self, tensor: StoredTensor) -> torch.Tensor:
        """A whole tensor of the adapter, float32."""
        return self._reader.read(tensor).float()


def _pair(path: Path, tensors: dict[str, StoredTensor], config: dict[str, Any]) -> dict[str, LoraPair]:
    """Every tensor in exactly one pair."""
    modules: dict[str, tuple[str, str]] = {}
    for name in tensors:
        kind, ending = next((((first, second), end) for first, second in ((A, B), (EMBEDDING_A, EMBEDDING_B))
                             for end in (first, second) if name.endswith(end)), (None, MAGNITUDE))
        is_length = bool(config.get("use_dora")) and name.endswith(MAGNITUDE)
        if not (kind or is_length) or not name.startswith(PREFIX):
            raise ModelError(f"{path}: tensor '{name}' is no LoRA matrix of a linear layer ({PREFIX}<module>{A} or {B}); "
                             "adapters that hold anything else are not merged")
        module = name.removesuffix(ending)
        if kind or module not in modules:
            modules[module] = kind or (A, B)
    return {pair.target: pair for module, kind in modules.items() for pair in [_pair_of(path, module, kind, tensors, config)]}


def _pair_of(path: Path, module: str, kind: tuple[str, str], tensors: dict[str, StoredTensor], config: dict[str, Any]) -> LoraPair:
    endings = (*kind, MAGNITUDE) if config.get("use_dora") else kind
    if lone := [end for end in endings if module + end not in tensors]:
        raise ModelError(f"{path}: tensor '{module + lone[0]}' is missing")
    a, b = (tensors[module + end] for end in kind)
    own = module.removeprefix(PREFIX)
    rank = rank_of(config, own)
    if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != rank or b.shape[1] != rank:
        raise ModelError(f"{path}: '{module}' has A {list(a.shape)} and B {list(b.shape)}; rank {rank} asks for "
                         f"[{rank}, in] and [out, {rank}]")
    if not (a.is_floating and b.is_floating):
        raise ModelError(f"{path}: '{module}' has A of {a.dtype} and B of {b.dtype}; floating point numbers are needed")
    magnitude = tensors[module + MAGNITUDE] if config.get("use_dora") else None
    if magnitude and (magnitude.shape != (b.shape[0],) or not magnitude.is_floating):
        raise ModelError(f"{path}: '{module}{MAGNITUDE}' is {list(magnitude.shape)} of {magnitude.dtype}; B {list(b.shape)} asks for "
                         f"[{b.shape[0]}] floating point numbers")
    if magnitude and kind == (EMBEDDING_A, EMBEDDING_B):
        raise ModelError(f"{path}: '{module}' is an embedding with DoRA (use_dora), whose lengths go over all tokens; it is not merged")
    return LoraPair(f"{own}.weight", a, b, scale_of(config, own), magnitude, kind == (EMBEDDING_A, EMBEDDING_B))
