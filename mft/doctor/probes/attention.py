"""The leak test of mft/modeling/attention.py for every implementation, on this device."""

from collections.abc import Iterator
from typing import Any

import torch

from mft.errors import ModelError
from mft.modeling.attention import CANDIDATES, choose_attention
from mft.modeling.compute import computes_in, device


def run(base_config: dict[str, Any], compute_dtype: str, asked: str) -> Iterator[dict[str, Any]]:
    """`{"device", "chosen", "refused", "by_name"}`: by_name has null for what can be used, else the reason why not.

    `compute_dtype`: as in a config.
    """
    place, dtype = device(), computes_in(compute_dtype)
    names = dict.fromkeys([*CANDIDATES["cuda"], *([] if asked == "auto" else [asked])])
    by_name: dict[str, str | None] = {name: _reason(base_config, place, dtype, name) for name in names}
    try:
        chosen, refused = choose_attention(base_config, place, dtype, asked), None
    except ModelError as error:
        chosen, refused = None, str(error)
    yield {"device": str(place), "chosen": chosen, "refused": refused, "by_name": by_name}


def _reason(base_config: dict[str, Any], place: torch.device, dtype: torch.dtype, name: str) -> str | None:
    try:
        choose_attention(base_config, place, dtype, name)
    except ModelError as error:
        return str(error).removeprefix(f"model.attention {name}: ").removesuffix("; use attention: auto")
    return None
