"""What the weights files of a base say they hold, against their sizes and against the index; no weight is read."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mft.errors import ModelError
from mft.modeling.safetensors_header import StoredTensor, read_header

INDEX = "model.safetensors.index.json"


def run(folder: str) -> Iterator[dict[str, Any]]:
    """`{"faults", "files", "bytes", "linear", "other", "edges"}`.

    `linear`: numbers in the matrices of the blocks, which NF4 packs; `other`: all other numbers. `edges`: rows + columns of those
    matrices together, of which each LoRA rank has one number.
    """
    base = Path(folder)
    files = {path.name: path for path in sorted(base.glob("*.safetensors"))}
    faults, tensors = [], list[StoredTensor]()
    for path in files.values():
        try:
            tensors += read_header(path)
        except ModelError as error:
            faults.append(str(error))
    faults += _index_faults(base, set(files), {tensor.name for tensor in tensors}, all_read=not faults)
    matrices = [tensor for tensor in tensors if _is_linear(tensor)]
    linear = sum(tensor.num_elements for tensor in matrices)
    yield {"faults": faults, "files": sorted(files), "bytes": sum(path.stat().st_size for path in files.values()), "linear": linear,
           "other": sum(tensor.num_elements for tensor in tensors) - linear, "edges": sum(sum(tensor.shape) for tensor in matrices)}


def _index_faults(base: Path, files: set[str], names: set[str], *, all_read: bool) -> list[str]:
    """What the index names and the folder lacks. `all_read`: no file is damaged, so that the tensors are known."""
    if not (base / INDEX).is_file():
        return []
    try:
        placed = dict(json.loads((base / INDEX).read_text(encoding="utf-8"))["weight_map"])
    except (ValueError, KeyError, TypeError) as error:
        return [f"{base / INDEX}: is no index of weights: {error!r}"]
    if lost := sorted(set(placed.values()) - files):
        return [f"{base}: {len(lost)} of {len(set(placed.values()))} weights files are missing: {', '.join(lost[:3])}"
                + (", ..." if len(lost) > 3 else "")]
    absent = sorted(placed.keys() - names) if all_read else []
    return [f"{base}: {len(absent)} tensors of the index are in no file: {', '.join(absent[:3])}"] if absent else []


def _is_linear(tensor: StoredTensor) -> bool:
    return len(tensor.shape) == 2 and "embed" not in tensor.name and not tensor.name.startswith("lm_head.")
