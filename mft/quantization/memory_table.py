"""The 3x2 table of a 4-bit release's card: memory idle, and while answers of forced length are written, beside the arithmetic.

Source of the rows: the card of CodeFuse-CodeLlama-34B-4bits. Its GB are GiB, and include the CUDA context.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mft.errors import CheckFailed, ConfigError
from mft.modeling.base import read_model_config
from mft.modeling.shape import Shape, shape_of
from mft.quantization.environment import find_interpreter
from mft.quantization.folder import weights_bytes
from mft.quantization.size import cache_bytes, prefill_bytes

CELL = Path(__file__).with_name("memory_cell.py")
OWN_ENVIRONMENT = ("gptq", "awq")
"""Quantisations whose kernels are gptqmodel's: their cells run where that is."""


@dataclass(frozen=True, slots=True)
class Row:
    """`prompt` tokens are encoded, `new` ones generated."""

    name: str
    prompt: int
    new: int


ROWS = ((0, 0), (2048, 1024), (1024, 2048))


def rows_at(scale: float) -> list[Row]:
    """The rows of the card, their lengths times `scale`.

    >>> [row.name for row in rows_at(0.25)]
    ['idle', 'encode 512 + generate 256', 'encode 256 + generate 512']
    """
    lengths = [(max(1, int(prompt * scale)), max(1, int(new * scale))) if prompt else (0, 0) for prompt, new in ROWS]
    return [Row(f"encode {prompt} + generate {new}" if prompt else "idle", prompt, new) for prompt, new in lengths]


@dataclass(frozen=True, slots=True)
class Cell:
    """One model in one row. `peak_bytes`: of the allocator on a GPU, resident memory on a CPU. `predicted_bytes`: weights, keys and values,
    the activations of the prompt, and `runtime_bytes`: the libraries' own, which only resident memory counts."""

    model: str
    row: str
    prompt: int
    new: int
    device: str
    peak_bytes: int
    predicted_bytes: int
    runtime_bytes: int
    reserved_bytes: int | None = None
    device_used_bytes: int | None = None


def measure_memory(models: Sequence[tuple[str, Path]], scale: float, tell: Callable[[int, int], None]) -> dict[str, Any]:
    """`models`: (name, folder); `tell(done, cells)` after each cell. Each cell is a process of its own.

    Raises:
        ConfigError: a row is longer than a model was made for. DependencyError: a folder needs the quantiser's environment.
        CheckFailed: a cell's process failed.
    """
    rows = rows_at(scale)
    configs = {name: read_model_config(folder) for name, folder in models}
    longest = min(config.get("max_position_embeddings", 1 << 30) for config in configs.values())
    need = max(row.prompt + row.new for row in rows)
    if need > longest:
        raise ConfigError([f"the rows take {need} tokens, a model was made for {longest}; give --scale {longest / 3072:.3g} or less"])
    pythons = {name: _interpreter(configs[name], name) for name, _ in models}
    cells: list[Cell] = []
    for row in rows:
        for name, folder in models:
            cells.append(_measure(name, folder, configs[name], row, pythons[name]))
            tell(len(cells), len(rows) * len(models))
    return {"scale": scale, "device": cells[0].device, "unit": "GiB", "rows": [asdict(row) for row in rows],
            "models": {name: {"path": str(folder), "weights_bytes": weights_bytes(folder)} for name, folder in models},
            "cells": [asdict(cell) for cell in cells]}


def predicted_bytes(weights: int, shape: Shape, row: Row) -> int:
    """Weights, keys and values of every token, activations of the prompt."""
    return weights + cache_bytes(shape, row.prompt + row.new) + prefill_bytes(shape, row.prompt)


def header_and_rows(result: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The table as text: a row for each use, measured and predicted GiB of each model."""
    names = list(result["models"])
    cells = {(cell["row"], cell["model"]): cell for cell in result["cells"]}
    rows = [[row["name"], *(f"{cells[row['name'], name][key] / 2**30:.3f}" for name in names for key in ("peak_bytes", "predicted_bytes"))]
            for row in result["rows"]]
    return ["", *(column for name in names for column in (name, "predicted"))], rows


def _interpreter(config: dict[str, Any], name: str) -> Path:
    method = (config.get("quantization_config") or {}).get("quant_method")
    return find_interpreter(f"{name} ({method})") if method in OWN_ENVIRONMENT else Path(sys.executable)


def _measure(name: str, folder: Path, config: dict[str, Any], row: Row, python: Path) -> Cell:
    variables = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    done = subprocess.run([str(python), str(CELL), str(folder), str(row.prompt), str(row.new)], capture_output=True, text=True, check=False,
                          env=variables | {"HF_HUB_OFFLINE": "1"})
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        said = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit {done.returncode}"]
        raise CheckFailed(f"{name}, {row.name}: the measuring process failed: {said[-1]}")
    facts = json.loads(lines[-1])
    predicted = predicted_bytes(weights_bytes(folder), shape_of(config), row) + facts["runtime_bytes"]
    return Cell(name, row.name, row.prompt, row.new, facts["device"], facts["peak_bytes"], predicted, facts["runtime_bytes"],
                facts.get("reserved_bytes"), facts.get("device_used_bytes"))
