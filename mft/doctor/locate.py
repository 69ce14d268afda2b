"""Where a base lies on this machine, found without the network."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mft.errors import ModelError
from mft.modeling.base import BUILT_IN, resolve_base

ON = ("1", "ON", "YES", "TRUE")


@dataclass(frozen=True, slots=True)
class LocatedBase:
    """A base by its name. `folder`: None where it is not on this machine; `why` says so in words."""

    name: str
    kind: Literal["built-in", "folder", "hub"]
    folder: Path | None
    why: str = ""


def locate_base(name: str, beside: Path) -> LocatedBase:
    """A built-in base, a folder (also relative to `beside`), or what the hub's cache holds of a hub id."""
    if name in BUILT_IN or any(path.is_dir() for path in (Path(name), beside / name)) or not _is_hub_id(name):
        kind: Literal["built-in", "folder"] = "built-in" if name in BUILT_IN else "folder"
        try:
            return LocatedBase(name, kind, resolve_base(name, beside))
        except ModelError as error:
            return LocatedBase(name, kind, None, str(error))
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return LocatedBase(name, "hub", Path(snapshot_download(name, local_files_only=True)))
    except (LocalEntryNotFoundError, OSError):
        return LocatedBase(name, "hub", None, f"{name}: no folder here, and not in the hub's cache {hub_cache()}")


def hub_cache() -> Path:
    """The folder that models of the hub are downloaded to."""
    home = Path(os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface")
    return Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser()


def is_offline() -> bool:
    """Whether the environment forbids the hub."""
    return any(os.environ.get(name, "").upper() in ON for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))


def _is_hub_id(name: str) -> bool:
    return name.count("/") == 1 and not name.startswith((".", "/"))
