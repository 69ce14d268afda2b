"""Round a whole model to the nearest step, layer by layer, into GPTQ's layout: needs no data and one tensor at a time in memory."""

import re
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from mft.files import write_json
from mft.modeling.gptq_layout import to_nearest
from mft.quantization.weights import weight_files

LINEAR = re.compile(r".*\.layers\.\d+\..*_proj\.weight")
"""The linear modules of the blocks; embedding, head and norms stay as they are, as in public GPTQ releases."""

SHARD_BYTES = 5 * 10**9


def round_model(model: Path, out: Path, bits: int, group_size: int) -> int:
    """Write the weights of `model`, rounded, into the folder `out`; returns how many modules were rounded."""
    names: dict[str, str] = {}
    shard: dict[str, torch.Tensor] = {}
    files, size, total, rounded = 0, 0, 0, 0

    def flush() -> None:
        nonlocal files, size
        files += 1
        save_file(shard, path := out / f"model-{files:05d}.safetensors", metadata={"format": "pt"})
        path.chmod(0o644)    # the library writes for its user alone
        names.update(dict.fromkeys(shard, f"model-{files:05d}.safetensors"))
        shard.clear()
        size = 0

    for name, tensor in _tensors(model):
        parts = {name: tensor}
        if LINEAR.fullmatch(name):
            module = name.removesuffix(".weight")
            parts = {f"{module}.{part}": packed for part, packed in to_nearest(tensor, bits, group_size).items()}
            rounded += 1
        length = sum(part.numel() * part.element_size() for part in parts.values())
        if shard and size + length > SHARD_BYTES:
            flush()
        shard.update(parts)
        size, total = size + length, total + length
    flush()
    _name_shards(out, names, files, total)
    return rounded


def _name_shards(out: Path, names: dict[str, str], files: int, total: int) -> None:
    """One file is `model.safetensors`; several are numbered, with the index that transformers reads."""
    final = {f"model-{number:05d}.safetensors": "model.safetensors" if files == 1 else f"model-{number:05d}-of-{files:05d}.safetensors"
             for number in range(1, files + 1)}
    for old, new in final.items():
        (out / old).rename(out / new)
    if files > 1:
        write_json(out / "model.safetensors.index.json", {"metadata": {"total_size": total},
                                                          "weight_map": {name: final[file] for name, file in names.items()}})


def _tensors(model: Path) -> Iterator[tuple[str, torch.Tensor]]:
    for path in weight_files(model):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():    # noqa: SIM118 (no mapping)
                yield name, file.get_tensor(name)
