"""What this machine can and cannot do, drawn from the checks."""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any

from mft.doctor.examine import Checked

Checks = Mapping[str, Checked]


@dataclass(frozen=True, slots=True)
class Capability:
    """One thing that a user may want. `why`: what it rests on, or why it cannot be had."""

    name: str
    does: str
    can: bool
    why: str
    remedy: str = ""

    def to_json(self) -> dict[str, Any]:
        """As `mft doctor --json` has it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Kind:
    """A capability before it is looked at. `rests_on`: the checks that `answer` reads; it gives (can, why, remedy)."""

    does: str
    rests_on: tuple[str, ...]
    answer: Callable[[Checks], tuple[bool, str, str]]


def capabilities(checked: Sequence[Checked]) -> list[Capability]:
    """Every capability whose checks have been made, in the order in which they are shown."""
    by_name = {check.name: check for check in checked}
    return [Capability(name, kind.does, *kind.answer(by_name)) for name, kind in CAPABILITIES.items()
            if by_name.keys() >= set(kind.rests_on)]


def _facts(checks: Checks, name: str) -> Mapping[str, Any]:
    return checks[name].finding.facts


def _gpu(checks: Checks) -> tuple[bool, str, str]:
    devices = _facts(checks, "torch").get("devices", [])
    return _answer(bool(devices), f"{len(devices)} of them", checks["torch"].finding.found,
                   checks["torch"].finding.remedy or "a machine with an NVIDIA GPU; everything here runs on the CPU, slowly")


def _four_bit(checks: Checks) -> tuple[bool, str, str]:
    return _as_checked(checks["4-bit"])


def _flash(checks: Checks) -> tuple[bool, str, str]:
    reasons = {name: why for name, why in _facts(checks, "attention").get("by_name", {}).items() if name.startswith("flash_attention")}
    passed = [name for name, why in reasons.items() if why is None]
    absent = "; ".join(f"{name}: {why}" for name, why in reasons.items()) or checks["attention"].finding.found
    return _answer(bool(passed), ", ".join(passed), absent, "on a GPU: pip install flash-attn --no-build-isolation; sdpa serves without it")


def _several_ranks(checks: Checks) -> tuple[bool, str, str]:
    check = checks["all-reduce"]
    rate = _facts(checks, "all-reduce").get("megabytes_per_s", {}).get("gloo")
    return _answer(rate is not None, "two processes added up numbers over gloo", check.finding.found, check.finding.remedy)


def _several_gpus(checks: Checks) -> tuple[bool, str, str]:
    check = checks["all-reduce"]
    pairs = {name: rate for name, rate in _facts(checks, "all-reduce").get("megabytes_per_s", {}).items() if name.startswith("nccl")}
    count = len(_facts(checks, "torch").get("devices", []))
    absent = check.finding.found if count > 1 else f"{count} GPU{'s' * (count != 1)}"
    return _answer(bool(pairs) and None not in pairs.values(), f"NCCL between {count} GPUs", absent,
                   check.finding.remedy or "a machine with several GPUs")


def _zero_offload(checks: Checks) -> tuple[bool, str, str]:
    """DeepSpeed compiles operators when it is first used; without a GPU those of its communication too."""
    broken = _facts(checks, "imports").get("broken", {})
    imported = _facts(checks, "imports").get("seconds", {})
    if "deepspeed" in broken or "deepspeed" not in imported:
        return False, broken.get("deepspeed", "deepspeed cannot be imported"), "see the check imports"
    tools = {"a C++ compiler": shutil.which(os.environ.get("CXX", "c++")) or shutil.which("g++"), "ninja": shutil.which("ninja")}
    absent = [name for name, path in tools.items() if path is None]
    return _answer(not absent, "deepspeed is there, with a compiler for its operators",
                   f"deepspeed compiles operators at its first use, and {' and '.join(absent)} is not on PATH",
                   "install g++ and ninja, and have them on PATH")


def _sandbox(checks: Checks) -> tuple[bool, str, str]:
    check = checks["sandbox"]
    chosen = _facts(checks, "sandbox").get("chosen")
    return _answer(chosen is not None, str(chosen), check.finding.found, check.finding.remedy)


def _vllm(checks: Checks) -> tuple[bool, str, str]:
    return _package("vllm", "on a GPU: pip install 'mft[serve]'; or serve a merged folder from an environment of its own: pip install "
                            "vllm there, then mft serve --vllm PYTHON --model FOLDER")


def _gptq(checks: Checks) -> tuple[bool, str, str]:
    """gptqmodel has an environment of its own, as its pins fight ours."""
    from mft.errors import DependencyError
    from mft.quantization.environment import SETUP, find_interpreter

    try:
        python = find_interpreter("gptq")
    except DependencyError:
        return False, "gptqmodel's own environment has not been made", SETUP
    return True, f"gptqmodel in an environment of its own: {python}", ""


def _ray(checks: Checks) -> tuple[bool, str, str]:
    return _package("ray", "pip install 'mft[scale]'")


def _tensorboard(checks: Checks) -> tuple[bool, str, str]:
    return _package("tensorboard", "pip install 'mft[tensorboard]'")


def _package(module: str, remedy: str) -> tuple[bool, str, str]:
    return _answer(find_spec(module) is not None, f"{module} is installed", f"the package {module} is not installed", remedy)


def _as_checked(check: Checked) -> tuple[bool, str, str]:
    return _answer(check.state == "ok", check.finding.found, check.finding.found, check.finding.remedy)


def _answer(can: bool, because: str, absent: str, remedy: str) -> tuple[bool, str, str]:
    """(can, why, remedy): a remedy only for what cannot be had."""
    return (True, because, "") if can else (False, absent, remedy)


CAPABILITIES = {
    "gpu": Kind("compute on a GPU", ("torch",), _gpu),
    "4-bit": Kind("train on a 4-bit base", ("4-bit",), _four_bit),
    "flash-attention": Kind("flash attention", ("attention",), _flash),
    "several-ranks": Kind("train on several processes of this machine", ("all-reduce",), _several_ranks),
    "several-gpus": Kind("train on several GPUs", ("all-reduce", "torch"), _several_gpus),
    "zero-offload": Kind("DeepSpeed ZeRO, with offload to the host", ("imports",), _zero_offload),
    "sandbox": Kind("run generated programs in a sandbox", ("sandbox",), _sandbox),
    "vllm": Kind("serve with vLLM from this environment", (), _vllm),
    "gptq": Kind("quantise by GPTQ", (), _gptq),
    "ray": Kind("build data on a Ray cluster", (), _ray),
    "tensorboard": Kind("follow a run in TensorBoard", (), _tensorboard),
}
"""What `--need` takes."""
