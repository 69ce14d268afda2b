"""GGUF through llama.cpp's own converter: a thin door, since the format and its tokenizer tables are llama.cpp's to define."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from mft.errors import DependencyError, ModelError
from mft.quantization.config import GgufJob

VARIABLE = "MFT_LLAMA_CPP"
CONVERTER = "convert_hf_to_gguf.py"


def find_converter() -> Path:
    """The converter's script.

    Raises:
        DependencyError: no checkout of llama.cpp is named; the message has the commands.
    """
    folder = os.environ.get(VARIABLE)
    if not folder or not (Path(folder) / CONVERTER).is_file():
        found = f"{VARIABLE}={folder} has no {CONVERTER}" if folder else f"{VARIABLE} is not set"
        raise DependencyError(f"gguf needs llama.cpp's converter, and {found}; run: git clone https://github.com/ggml-org/llama.cpp && "
                              f"pip install ./llama.cpp/gguf-py sentencepiece && export {VARIABLE}=$PWD/llama.cpp")
    return Path(folder) / CONVERTER


def convert(model: Path, out: Path, job: GgufJob) -> dict[str, Any]:
    """Write `out`/model-TYPE.gguf.

    Raises:
        DependencyError: as `find_converter`. ModelError: the converter refused the model; the message has its last line.
    """
    file = out / f"model-{job.type}.gguf"
    command = [sys.executable, str(find_converter()), str(model), "--outfile", str(file), "--outtype", job.type]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not file.is_file():
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
        raise ModelError(f"{model}: llama.cpp's converter failed: {lines[-1]}")
    return {"converter": CONVERTER, "type": job.type}
