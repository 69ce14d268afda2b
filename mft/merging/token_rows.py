"""Trained rows of embedding and head in a LoRA adapter: PEFT's `trainable_token_indices`.

PEFT stores the rows themselves, not differences: row i of `...token_adapter.trainable_tokens_delta` [n, hidden] takes the place of row
`ids[i]` of the module's weight. Of a head that is tied to the embedding nothing is stored.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mft.errors import ModelError
from mft.merging.blocks import Block
from mft.modeling.safetensors_header import StoredTensor

KEY = "trainable_token_indices"
ENDING = ".token_adapter.trainable_tokens_delta"


@dataclass(frozen=True, slots=True)
class TokenRows:
    """Rows that take the place of rows `ids` of the base tensor `target` [rows, hidden]; `values` [len(ids), hidden]."""

    target: str
    ids: tuple[int, ...]
    values: StoredTensor


def rows_in(block: Block, rows: TokenRows) -> tuple[list[int], list[int]]:
    """The places in `rows`, and in the block, of the rows that lie in it.

    >>> from types import SimpleNamespace
    >>> rows_in(SimpleNamespace(start=64, stop=128), TokenRows("lm_head.weight", (3, 64, 100, 128), None))
    ([1, 2], [0, 36])
    """
    inside = [(number, index - block.start) for number, index in enumerate(rows.ids) if block.start <= index < block.stop]
    return [number for number, _ in inside], [place for _, place in inside]


def put_rows(block: Block, rows: TokenRows, values: torch.Tensor, weight: torch.Tensor) -> None:
    """Put the rows that lie in the block into `weight` [rows of the block, hidden], rounded to its dtype. `values`: all of them, fp32."""
    numbers, places = rows_in(block, rows)
    if numbers:
        weight[places] = values[numbers].to(weight.dtype)


def find_rows(path: Path, tensors: Mapping[str, StoredTensor], config: Mapping[str, Any], prefix: str) -> dict[str, TokenRows]:
    """The token rows of an adapter file, by the base tensor they belong to.

    Raises:
        ModelError: the file and `trainable_token_indices` do not say the same, or the ids are none.
    """
    setting = config.get(KEY)
    stored = {name.removeprefix(prefix).removesuffix(ENDING): tensor for name, tensor in tensors.items() if name.endswith(ENDING)}
    if not setting and not stored:
        return {}
    if isinstance(setting, list):
        setting = dict.fromkeys(stored, setting)
    if not isinstance(setting, dict) or not stored:
        raise ModelError(f"{path.parent / 'adapter_config.json'}: {KEY}={setting!r}, but {path.name} has token rows for "
                         f"{', '.join(stored) or 'no module'}; the two files do not belong together")
    found = {}
    for module, values in stored.items():
        ids: Any = next((ids for name, ids in setting.items() if module == name or module.endswith(f".{name}")), None)
        if not _are_ids(ids):
            raise ModelError(f"{path}: '{module}' has token rows, but adapter_config.json says {KEY}={setting!r}; expected different "
                             "whole numbers for this module")
        if len(values.shape) != 2 or values.shape[0] != len(ids) or not values.is_floating:
            raise ModelError(f"{path}: '{module}{ENDING}' is {list(values.shape)} of {values.dtype}; {len(ids)} rows of floating point "
                             "numbers are needed")
        found[f"{module}.weight"] = TokenRows(f"{module}.weight", tuple(ids), values)
    return found


def _are_ids(ids: Any) -> bool:
    """Whether these are different row numbers."""
    return isinstance(ids, list) and bool(ids) and all(type(index) is int and index >= 0 for index in ids) and len(set(ids)) == len(ids)


def misfit(rows: TokenRows, base: Mapping[str, StoredTensor], config: Mapping[str, Any]) -> str | None:
    """Why token rows cannot be put into the base, or None."""
    if rows.target not in base:
        return f"'{rows.target}' is not a tensor of the base"
    tensor = base[rows.target]
    if len(tensor.shape) != 2 or tensor.shape[1] != rows.values.shape[1]:
        return f"'{rows.target}' is {list(tensor.shape)} in the base; the adapter has rows of {rows.values.shape[1]}"
    if not tensor.is_floating:
        return f"'{rows.target}' is {tensor.dtype} in the base: quantised weights have no rows to replace"
    if max(rows.ids) >= tensor.shape[0]:
        return (f"'{rows.target}' has {tensor.shape[0]} rows in the base, and the adapter's go up to {max(rows.ids)}; it was trained on a "
                "base with added tokens")
    if config.get("tie_word_embeddings") and "lm_head.weight" in base:
        return f"'{rows.target}' is tied to 'lm_head.weight' (tie_word_embeddings), which the base stores too"
    return None


def lost_modules(rows: Mapping[str, TokenRows], setting: Any, *, tied: bool) -> list[str]:
    """Modules that adapter_config.json names for token rows and that have none in the file. A tied head has none of its own."""
    names = list(setting) if isinstance(setting, dict) else []
    lost = [name for name in names if not any(target == f"{name}.weight" or target.endswith(f".{name}.weight") for target in rows)]
    return [] if tied and len(lost) == len(names) - len(rows) == 1 else lost
