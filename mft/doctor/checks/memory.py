"""The memory that this process may use, against what the config's base takes."""

import resource
from dataclasses import dataclass
from pathlib import Path

from mft.doctor.child import ProbeFailed
from mft.doctor.context import Context
from mft.doctor.finding import Finding, fault, together, warning
from mft.doctor.subject import TrainNeeds
from mft.doctor.units import size
from mft.modeling.known_bases import KNOWN
from mft.modeling.shape import shape_of

LITTLE = 4 * 10**9
"""Below this the libraries alone, about 1 GB a process, leave little."""

BYTES = {"bf16": 2, "fp16": 2, "fp32": 4}
FULL_BYTES = 16
"""A weight that trains in float32: itself, its gradient, two Adam moments."""

NF4_BITS = {True: 4.127, False: 4.5}
"""Bits of a packed weight with its share of the block scales, with and without double quantisation (arXiv:2305.14314, section 3)."""


@dataclass(frozen=True, slots=True)
class Held:
    """The weights of a train stage, `copy_bytes` for each of its ranks; where they are `shared`, for all of them together."""

    stage: str
    copy_bytes: int
    shared: bool
    ranks: int


def check_memory(context: Context) -> Finding:
    """Host memory with the limits of cgroup and ulimit, the devices' memory, and the weights that each stage holds."""
    import psutil

    memory = psutil.virtual_memory()
    limits = {"the machine": memory.total, "the cgroup": cgroup_limit(), "ulimit -v": _address_space()}
    name, most = min(((name, limit) for name, limit in limits.items() if limit is not None), key=lambda item: item[1])
    findings = [warning(f"this process may use {size(most)} ({name}), which is little", "give the machine or container more memory")
                ] if most < LITTLE else []
    try:
        devices = context.torch()["devices"]
    except ProbeFailed:
        devices = []
    held = _held(context)
    findings += [finding for one in held for finding in _fits(one, devices, most, name)]
    said = f"{size(most)} ({name}), {size(memory.available)} available"
    weights = "".join(f"; stage '{one.stage}' holds {size(one.copy_bytes)} of weights" for one in held)
    return together(findings, said + weights, limits=limits, available_bytes=memory.available,
                    held_bytes={one.stage: one.copy_bytes for one in held})


def cgroup_limit(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int | None:
    """The smallest memory limit of this process's control groups, version 1 or 2; None without one."""
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        folder = root if controllers == "" else root / "memory"
        name = "memory.max" if controllers == "" else "memory.limit_in_bytes"
        place = folder / path.lstrip("/")
        # In a container the path is often that of the host, and the limit lies at the root that is mounted.
        for group in (place, *(parent for parent in place.parents if parent.is_relative_to(folder))):
            found += _number(group / name)
    return min(found) if found else None


def _number(file: Path) -> list[int]:
    """The limit in a file; none where it says `max`, or a number that stands for no limit."""
    try:
        text = file.read_text(encoding="utf-8").strip()
    except OSError:
        return []
    return [int(text)] if text.isdecimal() and int(text) < 1 << 60 else []


def _address_space() -> int | None:
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if soft == resource.RLIM_INFINITY else soft


def _held(context: Context) -> list[Held]:
    """What each train stage holds; nothing where the base is not known."""
    subject, numbers = context.subject, _numbers(context)
    return [] if subject is None or numbers is None else [stage_weights(train, *numbers) for train in subject.trains]


def _numbers(context: Context) -> tuple[int, int] | None:
    """Numbers in the matrices of the base's blocks, and others: of its weights files, or of its sizes where it is not on this machine."""
    base = context.base()
    if base is None:
        return None
    if base.folder is None:
        shape = shape_of(KNOWN[base.name]) if base.name in KNOWN else None
        return None if shape is None else (shape.linear_parameters, shape.other_parameters)
    try:
        weights = context.weights(base.folder)
    except ProbeFailed:
        return None
    return weights["linear"], weights["other"]


def stage_weights(train: TrainNeeds, linear: int, other: int) -> Held:
    """The weights of a stage whose base has so many numbers in the matrices of its blocks, and so many others."""
    whole = BYTES[train.quantization.compute_dtype]
    if train.adapter.type == "full":
        one = FULL_BYTES * (linear + other)
    elif train.quantization.type == "nf4":
        one = round(linear * NF4_BITS[train.quantization.double_quant] / 8) + whole * other
    else:
        one = whole * (linear + other)
    shared = train.distributed.engine == "fsdp" or train.distributed.stage == 3
    return Held(train.name, one, shared, train.distributed.processes or 1)


def _fits(held: Held, devices: list[dict[str, int]], most: int, name: str) -> list[Finding]:
    """Whether the weights alone fit; what a step needs beside them, `mft plan` says."""
    sizes = [device["total_bytes"] for device in devices]
    if sizes:
        needed, room, where = held.copy_bytes, sum(sizes) if held.shared else min(sizes), "the GPUs have" if held.shared else "a GPU has"
    else:
        needed, room, where = held.copy_bytes * (1 if held.shared else held.ranks), most, f"{name} allows"
    copies = f", {size(held.copy_bytes)} in each of {held.ranks} processes" if needed > held.copy_bytes else ""
    said = f"stage '{held.stage}' holds {size(needed)} of weights{copies}, and {where} {size(room)}"
    remedy = ("mft plan CONFIG shows what fits: quantization: {type: nf4}, ZeRO-3 over more GPUs, a smaller base"
              + ("" if devices else "; or raise the limit of the container or of ulimit -v"))
    if needed > room:
        return [fault(said, remedy)]
    return [warning(f"{said}: little is left for a step", remedy)] if needed > 0.8 * room else []
