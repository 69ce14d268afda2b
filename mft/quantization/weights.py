"""The weights of the model that is quantised: which files they are, whole or refused before anything is begun."""

import json
from pathlib import Path
from typing import Any

from mft.errors import ModelError
from mft.files import MANIFEST, read_json
from mft.hashes import hash_file
from mft.modeling.safetensors_header import read_header

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


def weight_files(model: Path) -> list[Path]:
    """`model.safetensors`, or the shards that the index names.

    Raises:
        ModelError: there are none, or one that the index names is missing.
    """
    if (model / SINGLE).is_file():
        return [model / SINGLE]
    if not (model / INDEX).is_file():
        pickled = sorted(path.name for path in model.glob("*.bin"))
        raise ModelError(f"{model}: has no .safetensors weights{f', only {pickled[0]}; convert them first' if pickled else ''}")
    try:
        names = sorted(set(json.loads((model / INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError) as error:
        raise ModelError(f"{model / INDEX}: damaged index ({error!r})") from error
    if missing := [name for name in names if not (model / name).is_file()]:
        raise ModelError(f"{model}: {INDEX} names {len(names)} files, but {', '.join(missing)} is missing")
    return [model / name for name in names]


def check_weights(model: Path) -> None:
    """Refuse a file that is cut short or damaged, and weights that are quantised already.

    Raises:
        ModelError: the message names the file, or the tensor.
    """
    for path in weight_files(model):
        for tensor in read_header(path):
            if not tensor.is_floating:
                raise ModelError(f"{path}: '{tensor.name}' is {tensor.dtype}: the weights are quantised already, or no model's")


def source_hashes(model: Path) -> dict[str, str]:
    """sha256 of config and weights: as the model's manifest says where the file still has that size, else read."""
    known: dict[str, Any] = read_json(model / MANIFEST).get("files", {}) if (model / MANIFEST).is_file() else {}

    def sha256(path: Path) -> str:
        stored = known.get(path.name, {})
        return str(stored["sha256"] if stored.get("bytes") == path.stat().st_size else hash_file(path)["sha256"])
    return {path.name: sha256(path) for path in (model / "config.json", *weight_files(model))}
