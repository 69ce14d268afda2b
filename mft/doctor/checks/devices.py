"""torch's build against the driver, and the devices that it finds."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mft.doctor.child import ProbeFailed
from mft.doctor.context import Context
from mft.doctor.finding import Finding, fault, together, warning
from mft.doctor.subject import Subject
from mft.doctor.units import size

DRIVER = Path("/proc/driver/nvidia/version")
TIMEOUT_S = 10.0
BF16_SINCE = 8
"""Compute capability from which a GPU multiplies in bf16 (Ampere); older ones emulate it."""

CONSTRAINED = "pip install torch -c the constraints file of mft, from the index of your CUDA version"


def check_torch(context: Context) -> Finding:
    """That torch works, and with which devices. No GPU is no fault unless the config needs one."""
    try:
        facts = context.torch()
    except ProbeFailed as error:
        return fault(f"torch cannot be used: {error}", CONSTRAINED)
    return judge_torch(facts, driver_version(), context.subject)


def judge_torch(facts: Mapping[str, Any], driver: str | None, subject: Subject | None) -> Finding:
    """What torch says of itself, beside the version of the NVIDIA driver (None: there is none) and what the config needs."""
    devices: Sequence[Mapping[str, Any]] = facts["devices"]
    findings = [*_without_devices(facts, driver), *(finding for index, device in enumerate(devices)
                                                    for finding in _device_findings(index, device, facts["arch_list"]))]
    if not devices and subject is not None and (reasons := subject.gpu_reasons()):
        findings.append(fault(f"no CUDA device, and {'; '.join(reasons)}", "run on a machine with a GPU, or change these settings"))
    findings += _subject_findings(devices, subject)
    build = f"CUDA {facts['cuda']}" if facts["cuda"] else f"ROCm {facts['hip']}" if facts["hip"] else "CPU build"
    kinds = [f"{device['name']} ({size(device['total_bytes'])}, compute {'.'.join(map(str, device['capability']))})"
             for device in devices]
    driven = f", driver {driver}" if driver else ""
    nccl = f", NCCL {facts['nccl']}" if facts["nccl"] else ""
    said = f"torch {facts['version']}, {build}{driven}{nccl}; {', '.join(kinds) or 'no GPU: everything runs on the CPU'}"
    return together(findings, said, **facts, driver=driver)


def driver_version() -> str | None:
    """The NVIDIA driver's version, from the kernel or from nvidia-smi; None without one."""
    if DRIVER.is_file() and (match := re.search(r"Kernel Module\D*([\d.]+)", DRIVER.read_text(encoding="utf-8", errors="replace"))):
        return match[1]
    if (command := shutil.which("nvidia-smi")) is None:
        return None
    try:
        ended = subprocess.run([command, "--query-gpu=driver_version", "--format=csv,noheader"], stdin=subprocess.DEVNULL,
                               capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = ended.stdout.split()
    return lines[0] if ended.returncode == 0 and lines else None


def _without_devices(facts: Mapping[str, Any], driver: str | None) -> list[Finding]:
    """Why there is no device where one could be expected."""
    if facts["devices"] or facts["hip"]:
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if driver and visible is not None and visible.strip() in ("", "-1"):
        return [warning(f"the driver {driver} is there, but CUDA_VISIBLE_DEVICES is '{visible}', which hides every GPU",
                        "unset CUDA_VISIBLE_DEVICES")]
    if driver and not facts["cuda"]:
        return [warning(f"an NVIDIA driver ({driver}) is there, but this torch ({facts['version']}) is built for the CPU", CONSTRAINED)]
    if driver:
        said = f": {facts['warnings'][0]}" if facts["warnings"] else ""
        return [fault(f"torch {facts['version']} is built for CUDA {facts['cuda']}, and the driver {driver} does not serve it{said}",
                      f"update the driver, or install the torch of an older CUDA: {CONSTRAINED}")]
    if facts["cuda"]:
        return [warning(f"torch {facts['version']} is built for CUDA {facts['cuda']}, and there is no NVIDIA driver: the CPU is used",
                        "on a machine with a GPU, install its driver, or start the container with --gpus all; else nothing need be done")]
    return []


def _device_findings(index: int, device: Mapping[str, Any], built_for: Sequence[str]) -> list[Finding]:
    major, minor = device["capability"]
    if device.get("fault"):
        hint = "" if _serves(built_for, major, minor) else f" (this torch is built for {', '.join(built_for)})"
        return [fault(f"GPU {index} ({device['name']}, compute {major}.{minor}) does not compute: {device['fault']}{hint}",
                      f"look at nvidia-smi; {CONSTRAINED}")]
    if device.get("bf16_fault"):
        return [fault(f"GPU {index} ({device['name']}): {device['bf16_fault']}", "set quantization.compute_dtype: fp16, or fp32")]
    if major < BF16_SINCE:
        return [warning(f"GPU {index} ({device['name']}, compute {major}.{minor}) has no bf16 units: bf16 is slow there",
                        "set quantization.compute_dtype: fp16")]
    return []


def _subject_findings(devices: Sequence[Mapping[str, Any]], subject: Subject | None) -> list[Finding]:
    """More ranks than GPUs would put two ranks on one."""
    if subject is None or not devices:
        return []
    return [fault(f"stage '{train.name}': distributed.processes is {train.distributed.processes}, and there are {len(devices)} GPUs",
                  f"set distributed.processes to at most {len(devices)}")
            for train in subject.trains if (train.distributed.processes or 1) > len(devices)]


def _serves(built_for: Sequence[str], major: int, minor: int) -> bool:
    """Whether torch has code for this capability: compiled for it, or in a form that the driver compiles."""
    numbers = [(kind, int(number)) for name in built_for for kind, _, number in [name.partition("_")] if number.isdecimal()]
    own = 10 * major + minor
    return any(number == own or (number // 10 == major and number <= own) or (kind == "compute" and number <= own)
               for kind, number in numbers)
