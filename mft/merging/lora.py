"""A LoRA adapter in PEFT's layout, as pairs of matrices by the base tensor that each one changes.

What `W + scale * B @ A` describes is merged, DoRA, which gives every row of that sum a trained length, and trained rows of single
tokens. Everything else that PEFT can put into an adapter is refused by name.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from mft.errors import ModelError
from mft.files import read_json
from mft.merging import token_rows
from mft.merging.reader import SafetensorsReader
from mft.merging.token_rows import TokenRows
from mft.modeling.safetensors_header import StoredTensor

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
A, B = ".lora_A.weight", ".lora_B.weight"
MAGNITUDE = ".lora_magnitude_vector"

PLAIN_KEYS = frozenset({
    "peft_type", "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",
    "r", "lora_alpha", "use_rslora", "use_dora", "lora_dropout", "init_lora_weights", "target_modules", "exclude_modules",
    "layers_to_transform", "layers_pattern", "megatron_core", "qalora_group_size", "eva_config", "runtime_config",
    token_rows.KEY})
"""Keys of adapter_config.json whose value does not change what `W + scale * B @ A` is, or that are read here."""

SAME_BASE_INITS = (True, False, "gaussian", "eva", "orthogonal")
"""`init_lora_weights` that leave the base as it is; PiSSA, OLoRA, CorDA, LoftQ and LoRA-GA subtract from it."""


@dataclass(frozen=True, slots=True)
class LoraPair:
    """What is added to the base tensor `target` [out, in]: `scale * B @ A`, A [rank, in], B [out, rank].

    `magnitude` [out], of DoRA only: the length that every row of the sum is given.
    """

    target: str
    a: StoredTensor
    b: StoredTensor
    scale: float
    magnitude: StoredTensor | None = None


class LoraAdapter:
    """An open adapter folder: `pairs` and `rows` by name of the base tensor, `load(pair)` and `load_rows(rows)` for the numbers.

    Raises:
        ModelError: not a LoRA adapter, of a kind that is not merged, or its files are damaged or do not fit together.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = _read_config(folder)
        _refuse_other_kinds(folder / CONFIG, self.config)
        if not (folder / WEIGHTS).is_file():
            pickled = (folder / "adapter_model.bin").is_file()
            what = "only adapter_model.bin; save the adapter as safetensors" if pickled else f"no {WEIGHTS}"
            raise ModelError(f"{folder}: has {what}")
        self._reader = SafetensorsReader([folder / WEIGHTS])
        self.rows = token_rows.find_rows(folder / WEIGHTS, self._reader.tensors, self.config, PREFIX)
        matrices = {name: tensor for name, tensor in self._reader.tensors.items() if not name.endswith(token_rows.ENDING)}
        self.pairs = _pair(folder / WEIGHTS, matrices, int(self.config["r"]), scale_of(self.config),
                           dora=bool(self.config.get("use_dora")))

    def __enter__(self) -> "LoraAdapter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._reader.__exit__(kind, error, trace)

    def load(self, pair: LoraPair) -> tuple[torch.Tensor, torch.Tensor]:
        """A and B of one pair, float32."""
        return self._reader.read(pair.a).float(), self._reader.read(pair.b).float()

    def load_magnitude(self, pair: LoraPair) -> torch.Tensor | None:
        """The row lengths of a DoRA pair, [out], float32; None for LoRA."""
        return self._reader.read(pair.magnitude).float() if pair.magnitude else None

    def load_rows(self, rows: TokenRows) -> torch.Tensor:
        """Trained token rows [tokens, hidden], float32."""
        return self._reader.read(rows.values).float()

    @property
    def targets(self) -> frozenset[str]:
        """Names of the base tensors that the adapter changes."""
        return frozenset((*self.pairs, *self.rows))

    def check_against(self, base: dict[str, StoredTensor], config: dict[str, Any]) -> None:
        """Check that every pair and every token row fits one tensor of the base and that the adapter says something.

        Raises:
            ModelError: names every pair without a base tensor or of another shape, a tied embedding, a tensor with
                values that are not finite, or an adapter that would change nothing.
        """
        faults = [fault for pair in self.pairs.values() if (fault := _misfit(pair, base, config))]
        faults += [fault for rows in self.rows.values() if (fault := token_rows.misfit(rows, base, config))]
        faults += [f"'{name}' is changed by a LoRA pair and by token rows, which is not merged"
                   for name in sorted(self.pairs.keys() & self.rows.keys())]
        lost = token_rows.lost_modules(self.rows, self.config.get(token_rows.KEY), tied=bool(config.get("tie_word_embeddings")))
        faults += [f"'{name}': adapter_config.json says {token_rows.KEY}, but {WEIGHTS} has no token rows for it" for name in lost]
        if faults:
            shown = faults[:10] + ([f"... and {len(faults) - 10} more"] if len(faults) > 10 else [])
            raise ModelError(f"{self.folder}: does not fit this base:\n  " + "\n  ".join(shown))
        for rows in self.rows.values():
            if not bool(torch.isfinite(self.load_rows(rows)).all()):
                raise ModelError(f"{rows.values.path}: tensor '{rows.values.name}' has values that are not finite; the training diverged")
        changes = False
        for pair in self.pairs.values():
            a, b = self.load(pair)
            for stored, values in ((pair.a, a), (pair.b, b), (pair.magnitude, self.load_magnitude(pair))):
                if stored and values is not None and not bool(torch.isfinite(values).all()):
                    raise ModelError(f"{stored.path}: tensor '{stored.name}' has values that are not finite; the training diverged")
            changes = changes or (pair.scale != 0 and bool(a.any()) and bool(b.any()))
        if not changes:
            raise ModelError(f"{self.folder}: every delta is zero, so the merged model would be the base; was the adapter trained?")


def scale_of(config: dict[str, Any]) -> float:
    """`alpha / rank`, or with rsLoRA `alpha / sqrt(rank)` (arXiv:2312.03732)."""
    rank, alpha = config["r"], config["lora_alpha"]
    return float(alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank)


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file():
        raise ModelError(f"{folder}: has no {CONFIG}, so it is not a PEFT adapter folder")
    try:
        config: dict[str, Any] = read_json(path)
        rank, alpha = config["r"], config["lora_alpha"]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: not the config of a LoRA adapter ({error!r})") from error
    if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, int | float):
        raise ModelError(f"{path}: r is {rank!r} and lora_alpha {alpha!r}; a positive whole number and a number are needed")
    return config


def _refuse_other_kinds(path: Path, config: dict[str, Any]) -> None:
    """Refuse whatever is more than LoRA and DoRA, also what a newer PEFT may add: an unknown key that is set."""
    if config.get("peft_type") != "LORA":
        raise ModelError(f"{path}: peft_type is {config.get('peft_type')!r}; only LORA adapters are merged")
    if config.get("init_lora_weights", True) not in SAME_BASE_INITS:
        raise ModelError(f"{path}: init_lora_weights is {config['init_lora_weights']!r}, which changes the base weights, so the adapter "
                         "does not belong on the original ones; convert it to plain LoRA when saving "
                         "(PEFT: path_initial_model_for_weight_conversion)")
    extra = {key: value for key, value in config.items() if key not in PLAIN_KEYS and value and not (key == "bias" and value == "none")}
    if extra:
        listed = ", ".join(f"{key}={value!r}" for key, value in extra.items())
        raise ModelError(f"{path}: {listed}: an adapter with this is more than scale * B @ A on linear layers and is not merged")


def _pair(path: Path, tensors: dict[str, StoredTensor], rank: int, scale: float, *, dora: bool) -> dict[str, LoraPair]:
    """Every tensor of the file in exactly one pair."""
    modules: dict[str, None] = {}
    endings = (A, B, MAGNITUDE) if dora else (A, B)
    for name in tensors:
        ending = next((end for end in endings if name.endswith(end)), None)
        if ending is None or not name.startswith(PREFIX):
            raise ModelError(f"{path}: tensor '{name}' is no LoRA matrix of a linear layer ({PREFIX}<module>{A} or {B}); "
                             "adapters that hold anything else are not merged")
        modules[name.removesuffix(ending)] = None
    pairs = {}
    for module in modules:
        if lone := [end for end in endings if module + end not in tensors]:
            raise ModelError(f"{path}: tensor '{module + lone[0]}' is missing")
        a, b = tensors[module + A], tensors[module + B]
        if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != rank or b.shape[1] != rank:
            raise ModelError(f"{path}: '{module}' has A {list(a.shape)} and B {list(b.shape)}; rank {rank} asks for "
                             f"[{rank}, in] and [out, {rank}]")
        if not (a.is_floating and b.is_floating):
            raise ModelError(f"{path}: '{module}' has A of {a.dtype} and B of {b.dtype}; floating point numbers are needed")
        magnitude = tensors[module + MAGNITUDE] if dora else None
        if magnitude and (magnitude.shape != (b.shape[0],) or not magnitude.is_floating):
            raise ModelError(f"{path}: '{module}{MAGNITUDE}' is {list(magnitude.shape)} of {magnitude.dtype}; B {list(b.shape)} asks for "
                             f"[{b.shape[0]}] floating point numbers")
        target = module.removeprefix(PREFIX) + ".weight"
        pairs[target] = LoraPair(target, a, b, scale, magnitude)
    if not pairs:
        raise ModelError(f"{path}: holds no tensor")
    return pairs


def _misfit(pair: LoraPair, base: dict[str, StoredTensor], config: dict[str, Any]) -> str | None:
    """Why a pair cannot be added to the base, or None."""
    if pair.target not in base:
        return f"'{pair.target}' is not a tensor of the base"
    tensor, shape = base[pair.target], (pair.b.shape[0], pair.a.shape[1])
    if tensor.shape != shape:
        return f"'{pair.target}' is {list(tensor.shape)} in the base, {list(shape)} in the adapter"
    if not tensor.is_floating:
        return f"'{pair.target}' is {tensor.dtype} in the base: quantised weights cannot be added to"
    if config.get("tie_word_embeddings") and pair.target.split(".")[-2] in ("lm_head", "embed_tokens"):
        return f"'{pair.target}' is tied to another tensor (tie_word_embeddings), which would change too"
    return None
