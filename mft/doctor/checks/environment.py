"""Variables of the environment that change a run without a word."""

import os

from mft.doctor.context import Context, available_cpus
from mft.doctor.finding import Finding, together, warning

SPINNING = 1_000_000
"""GOMP_SPINCOUNT from which waiting threads keep a core busy for milliseconds."""

SHOWN = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "CUDA_VISIBLE_DEVICES", "NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME",
         "MASTER_ADDR", "WANDB_MODE", "PYTHONPATH")


def check_environment(context: Context) -> Finding:
    """Leftovers of launchers, and threads that fight for cores."""
    findings = [*_launchers(), *_threads(), *_interfaces()]
    facts = {name: os.environ[name] for name in SHOWN if name in os.environ}
    return together(findings, "no variable that would change a run unseen", **facts)


def _launchers() -> list[Finding]:
    findings = []
    if "RANK" in os.environ and "TORCHELASTIC_RUN_ID" not in os.environ and "SLURM_PROCID" not in os.environ:
        findings.append(warning(f"RANK={os.environ['RANK']} is set outside of a launcher: mft train takes itself for one of several ranks",
                                "unset RANK WORLD_SIZE LOCAL_RANK"))
    if any(name.startswith("ACCELERATE_") for name in os.environ) and "WORLD_SIZE" not in os.environ:
        findings.append(warning("started by accelerate, but as one process: `accelerate launch --cpu --num_processes N` starts one",
                                "start several ranks with mft train --nproc N, or with torchrun"))
    return findings


def _threads() -> list[Finding]:
    findings = []
    threads, cpus = os.environ.get("OMP_NUM_THREADS"), available_cpus()
    if threads is not None and not threads.replace(",", "").isdecimal():
        findings.append(warning(f"OMP_NUM_THREADS is '{threads}', not a number", f"unset it, or set it to at most {cpus}"))
    elif threads is not None and int(threads.split(",")[0]) > cpus:
        findings.append(warning(f"OMP_NUM_THREADS is {threads}, and this process may use {cpus} CPUs: the threads wait for each other",
                                f"unset it, or set it to at most {cpus}"))
    spin = os.environ.get("GOMP_SPINCOUNT", "0").lower()
    spins = spin in ("infinite", "infinity") or (spin.isdecimal() and int(spin) >= SPINNING)
    if spins or os.environ.get("OMP_WAIT_POLICY", "").lower() == "active":
        findings.append(warning("OpenMP's threads spin while they wait, which makes CPU steps many times slower beside other work",
                                "unset OMP_WAIT_POLICY and GOMP_SPINCOUNT; mft then sets GOMP_SPINCOUNT=3000"))
    return findings


def _interfaces() -> list[Finding]:
    """Names of network interfaces that this machine does not have. `^` and `=` are NCCL's: all but this one, exactly this one."""
    import psutil

    known = list(psutil.net_if_addrs())
    findings = []
    for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        given = os.environ.get(variable, "")
        if not given or given.startswith("^"):
            continue
        absent = [name for name in given.lstrip("=").split(",") if name and not any(known_name.startswith(name) for known_name in known)]
        if absent:
            findings.append(warning(f"{variable} names {', '.join(absent)}, and this machine has {', '.join(known)}",
                                    f"unset {variable}, or name the interface that the nodes reach each other by"))
    return findings
