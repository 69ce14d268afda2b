"""From a recipe to clean conversations: sources, steps, split, mixture, and the ledger that says what became of every row.

    result = mft.data.build("data_recipes/python-stdlib.yaml")       # in memory; give `out` to write a folder
    result.rows["train"][0].messages, result.facts["per_task"]
"""

from importlib import import_module
from typing import Any

_PUBLIC = {
    "build": "mft.data.pipeline",
    "read_built": "mft.data.pipeline",
    "load_recipe": "mft.data.config",
    "read_conversations": "mft.data.readers.conversations",
}
__all__ = ["build", "load_recipe", "read_built", "read_conversations"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'mft.data' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
