"""The environment of its own in which gptqmodel lives: its pins fight ours, and it is built after torch.

    CACHE/quantizer-7.6.0-py3.11/bin/python      CACHE: $XDG_CACHE_HOME/mft, else ~/.cache/mft
    CACHE/quantizer-7.6.0-py3.11/.complete       written last: what was installed

`MFT_QUANTIZER` names an interpreter that has gptqmodel in place of it.
"""

import fcntl
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from mft.errors import DependencyError
from mft.files import write_json

logger = logging.getLogger(__name__)

VARIABLE = "MFT_QUANTIZER"
GPTQMODEL = "7.6.0"
"""The version that this project runs with. 7.7.0 asks for torch 2.14.1 or newer, of which pip then takes the CUDA build, 6 GB."""

TORCH = "torch>=2.9,<2.14"
OPTIMUM = "optimum>=2.3,<3"
"""transformers 5.24 asks for it to load GPTQ's layout, beside gptqmodel; nothing of it is used here."""

BUILD_TOOLS = ("setuptools", "wheel", "ninja", "packaging")
SETUP = "mft quantize --setup"
NAMES = ("gptqmodel", "torch", "transformers", "optimum", "numpy", "safetensors")


def environment_folder() -> Path:
    """Where the environment is made."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "mft" / f"quantizer-{GPTQMODEL}-py{sys.version_info.major}.{sys.version_info.minor}"


def find_interpreter(why: str) -> Path:
    """The interpreter that has gptqmodel.

    Raises:
        DependencyError: there is none; the message has the command that makes it.
    """
    if given := os.environ.get(VARIABLE):
        if not Path(given).is_file():
            raise DependencyError(f"{VARIABLE}={given}: no such interpreter; unset it, and run: {SETUP}")
        return Path(given)
    folder = environment_folder()
    if not (folder / ".complete").is_file():
        raise DependencyError(f"{why} needs gptqmodel in an environment of its own, and there is none at {folder}; run: {SETUP} (torch and "
                              f"gptqmodel {GPTQMODEL} from your package index, once), or set {VARIABLE} to an interpreter that has it")
    return folder / "bin" / "python"


def make_environment() -> dict[str, str]:
    """Make the environment unless it is there; returns the versions of what it holds.

    torch goes first, since gptqmodel's build asks the installed torch what to build for, and stays as it is afterwards. Where nvcc is
    found without a GPU, no CUDA extension is compiled.

    Raises:
        DependencyError: an installation failed; the message has its last lines.
    """
    folder = environment_folder()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / ".complete").is_file():
            shutil.rmtree(folder, ignore_errors=True)
            _install(folder)
    versions: dict[str, str] = json.loads((folder / ".complete").read_text(encoding="utf-8"))
    return versions


def _install(folder: Path) -> None:
    python, log = str(folder / "bin" / "python"), folder.parent / f"{folder.name}.log"
    log.unlink(missing_ok=True)
    _run([sys.executable, "-m", "venv", str(folder)], log)
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install"]
    _run([*pip, TORCH, *BUILD_TOOLS], log)
    torch = _versions(python, ["torch"])["torch"]
    constraints = folder / "constraints.txt"
    constraints.write_text(f"torch=={torch}\n", encoding="utf-8")
    _run([*pip, "--no-build-isolation", "--constraint", str(constraints), f"gptqmodel=={GPTQMODEL}", OPTIMUM], log,
         {} if _has_gpu() else {"BUILD_CUDA_EXT": "0"})
    write_json(folder / ".complete", _versions(python, NAMES))


def _run(command: Sequence[str], log: Path, variables: dict[str, str] | None = None) -> None:
    logger.info("%s", " ".join(command))
    with log.open("a", encoding="utf-8") as stream:
        done = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, env=os.environ | (variables or {}), check=False)
    if done.returncode:
        tail = "\n  ".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-8:])
        raise DependencyError(f"the quantiser's environment could not be made: `{' '.join(command)}` failed:\n  {tail}\n(all of it: {log})")


def _versions(python: str, names: Sequence[str]) -> dict[str, str]:
    program = "import importlib.metadata as m, json, sys; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    done = subprocess.run([python, "-c", program, *names], capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def _has_gpu() -> bool:
    tool = shutil.which("nvidia-smi")
    return tool is not None and b"GPU" in subprocess.run([tool, "-L"], capture_output=True, check=False).stdout
