"""Two ranks that add up numbers: over gloo, and over NCCL between the GPUs."""

import os
import re
import socket
from collections.abc import Sequence

from mft.doctor.child import Answer, ProbeFailed, start, wait_for
from mft.doctor.context import Context
from mft.doctor.finding import Finding, fault, skipped, together, warning

LIMIT_S = 30.0
"""How long two ranks may take to meet and to add; importing torch is on top of it."""

IMPORT_S = 30.0

REMEDY = ("set GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME to an interface that is there (`ip addr`; on one machine: lo), unset "
          "MASTER_ADDR or set it to a name that resolves, and let the firewall pass local connections")


def check_all_reduce(context: Context) -> Finding:
    """A real all-reduce of two processes on the CPU; with several GPUs also of each pair of neighbours."""
    try:
        torch = context.torch()
    except ProbeFailed:
        return skipped("torch cannot be used; see the check torch")
    # A config that trains on one process does not need this; anyone else may.
    complain = fault if context.subject is None or context.subject.trains_on_several_ranks else warning
    findings = []
    rates: dict[str, int | None] = {}
    for backend, pairs in _rounds(torch["gloo"], len(torch["devices"]) if torch["nccl"] else 0):
        for pair, answers in zip(pairs, _meet(backend, pairs), strict=True):
            name = f"{backend} {pair[0]}-{pair[1]}" if backend == "nccl" else backend
            rates[name] = answers[0].values[-1].get("megabytes_per_s") if answers[0].values else None
            if why := _failure(answers):
                findings.append(complain(f"two ranks could not add up numbers over {name}: {why}", _remedy(backend)))
    if not torch["gloo"]:
        findings.append(complain("this torch has no gloo, by which ranks on CPUs meet", "install another build of torch"))
    findings += _master_address()
    return together(findings, f"two ranks added up numbers over {' and '.join(rates)}", megabytes_per_s=rates)


def _rounds(gloo: bool, gpus: int) -> list[tuple[str, list[tuple[int, int]]]]:
    """(backend, pairs that can meet at the same time): gloo once, then NCCL between GPUs 0-1, 2-3, ..., then 1-2, 3-4, ..."""
    rounds = [("gloo", [(0, 1)])] if gloo else []
    neighbours = [[(index, index + 1) for index in range(first, gpus - 1, 2)] for first in (0, 1)]
    return rounds + [("nccl", pairs) for pairs in neighbours if pairs]


def _meet(backend: str, pairs: Sequence[tuple[int, int]]) -> list[list[Answer]]:
    """The answers of both ranks of each pair."""
    ports = [_free_port() for _ in pairs]
    children = [start("all_reduce", {"backend": backend, "rank": rank, "port": port, "limit_s": LIMIT_S,
                                     "device": pair[rank] if backend == "nccl" else None}, timeout_s=LIMIT_S + IMPORT_S)
                for pair, port in zip(pairs, ports, strict=True) for rank in (0, 1)]
    answers = wait_for(children, timeout_s=LIMIT_S + IMPORT_S)
    return [answers[number:number + 2] for number in range(0, len(answers), 2)]


def _failure(answers: Sequence[Answer]) -> str | None:
    """Why the ranks of a pair failed: the reason of the first that has one of its own, in few words."""
    errors = [answer.error for answer in answers if answer.error]
    if not errors:
        return None
    error = min(errors, key=lambda text: ("Connection" in text, "did not end" in text))
    return re.sub(r"\[enforce fail at [^\]]*\]\s*", "", error)


def _remedy(backend: str) -> str:
    return REMEDY if backend == "gloo" else f"{REMEDY}; NCCL_DEBUG=INFO says more, NCCL_P2P_DISABLE=1 avoids a broken link between GPUs"


def _master_address() -> list[Finding]:
    """MASTER_ADDR, where it is set, must resolve: every rank of a run looks it up."""
    name = os.environ.get("MASTER_ADDR")
    if not name:
        return []
    try:
        socket.getaddrinfo(name, None)
    except OSError as error:
        return [warning(f"MASTER_ADDR is {name}, which does not resolve: {error.strerror or error}", "unset it, or name the first node")]
    return []


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
