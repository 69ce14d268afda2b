"""Rows and requests that the tests of quantising share."""

import json
from pathlib import Path

import pytest

from mft.quantization.config import QuantizeOptions
from mft.quantization.matrix import Request


@pytest.fixture(scope="session")
def rows_file(tmp_path_factory) -> Path:
    """240 short conversations, every eighth of which is one of two answers."""
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    rows = [{"id": f"r{n}", "chat_rounds": [
        {"role": "human", "content": f"write a function that adds {n}"}, {"role": "bot", "content": f"def add(a):\n    return a + {n}"},
        *([{"role": "human", "content": "and its docstring"}, {"role": "bot", "content": f"Add {n}."}] if n % 8 == 0 else [])]}
            for n in range(240)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def request_for(small_llama, rows_file, tmp_path):
    """A function that makes a request over the small model: `request_for(jobs, single=..., quality=...)`."""
    def make(jobs, out="out", *, quality="default", rows=rows_file, model=small_llama, **options):
        given = {"jobs": jobs, "calibration": {"decontaminate": [], "held_out_rows": 8}}
        if quality != "default":
            given["quality"] = quality
        request = {"single": False, **options}
        return Request(model, "small", tmp_path / out, QuantizeOptions.model_validate(given), rows, "codefuse", **request)
    return make
