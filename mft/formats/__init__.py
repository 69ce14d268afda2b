"""Prompt formats by name: `mft.formats.get("codefuse")`, `mft.formats.names()`."""

from typing import Any

__all__ = ["get", "get_reference", "names"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from mft.formats import registry

        return getattr(registry, name)
    raise AttributeError(f"module 'mft.formats' has no attribute {name!r}")
