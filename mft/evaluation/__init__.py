"""Scores that carry their protocol.

    mft.evaluation.score(samples, problems, protocol)       judge completions of a benchmark
"""

from importlib import import_module
from typing import Any

_PUBLIC = {"score": "mft.evaluation.judging"}
__all__ = ["score"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'mft.evaluation' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
