"""Importing packages one by one, so that the one that breaks is known by name."""

import importlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

from mft.doctor.child import first_line


def run(modules: Sequence[str]) -> Iterator[dict[str, Any]]:
    """`{"importing"}` before each module, so that a crash has a name, and `{"imported", "error", "seconds"}` after it."""
    for name in modules:
        yield {"importing": name}
        began = time.monotonic()
        error = None
        try:
            importlib.import_module(name)
        except (Exception, SystemExit) as caught:  # noqa: BLE001  a package may raise anything
            error = first_line(caught)
        yield {"imported": name, "error": error, "seconds": round(time.monotonic() - began, 2)}
