"""Where a merge comes from: the hashes of base and adapter, and what the adapter says it was trained on."""

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mft.errors import ModelError
from mft.files import read_json
from mft.modeling.config import QuantizationConfig

FACTS = "mft.json"
HASHING_THREADS = 2


@dataclass(frozen=True, slots=True)
class AdapterOrigin:
    """What `mft.json` in an adapter folder says; empty for an adapter of another tool."""

    base: str | None = None
    base_files: tuple[tuple[str, str], ...] = ()
    """Names of the base's files with their sha256."""
    format: str | dict[str, Any] | None = None
    quantization: QuantizationConfig | None = None
    """How the base was held in training; None where the adapter does not say."""


def read_origin(adapter: Path) -> AdapterOrigin:
    """Read `mft.json` beside an adapter, if it is there.

    Raises:
        ModelError: it is damaged.
    """
    path = adapter / FACTS
    if not path.is_file():
        return AdapterOrigin()
    try:
        facts: dict[str, Any] = read_json(path)
        quantization = QuantizationConfig.model_validate(facts["quantization"]) if facts.get("quantization") else None
        return AdapterOrigin(facts["base"], tuple(sorted(facts["base_files"].items())), facts["format"] or None, quantization)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path}: damaged ({error!r}); without it, nothing says which base the adapter belongs to") from error


def hash_files(paths: Iterable[Path]) -> dict[str, str]:
    """File name -> hex sha256, of files in one folder."""
    paths = list(paths)
    with ThreadPoolExecutor(HASHING_THREADS) as pool:
        return dict(zip((path.name for path in paths), pool.map(_sha256, paths), strict=True))


def check_base(base: Path, origin: AdapterOrigin, hashes: dict[str, str]) -> None:
    """Refuse a base that is not the one the adapter was trained on.

    Raises:
        ModelError: names each file that is missing or differs.
    """
    faults = []
    for name, wanted in origin.base_files:
        if name not in hashes and (base / name).is_file():
            hashes = hashes | hash_files([base / name])
        if hashes.get(name) != wanted:
            faults.append(f"{base / name}: " + ("differs from" if name in hashes else "is missing; it is part of")
                          + f" the base that the adapter was trained on ({origin.base})")
    if faults:
        raise ModelError("\n".join(faults))


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
