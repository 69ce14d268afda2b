"""Limits that this process runs under: shared memory, open files."""

import os
import resource
import shutil
import sys
import tempfile
from pathlib import Path

from mft.doctor.context import Context
from mft.doctor.finding import Finding, fault, ok, skipped, warning
from mft.doctor.units import size

SHARED = Path("/dev/shm")
LEAST_SHARED, USUAL_SHARED = 8 << 20, 1 << 30
"""Without the first, NCCL's rings and the semaphores of worker processes fail; with less than the second, several GPUs do (Docker's
default is 64 MB)."""

LEAST_FILES, USUAL_FILES = 256, 1024
"""A build with many shards, or a run of several ranks, opens hundreds of files and sockets."""


def check_shared_memory(context: Context) -> Finding:
    """Size of /dev/shm, and that a few megabytes can really be had there."""
    if sys.platform != "linux":
        return skipped(f"/dev/shm is Linux's; this is {sys.platform}")
    remedy = "docker run --shm-size=16g or --ipc=host; elsewhere: mount -o remount,size=16g /dev/shm"
    if not SHARED.is_dir():
        return fault(f"{SHARED} is not there: ranks and worker processes share memory through it", remedy)
    usage = shutil.disk_usage(SHARED)
    facts = {"total_bytes": usage.total, "free_bytes": usage.free}
    if why := _cannot_take(SHARED, LEAST_SHARED):
        return fault(f"{SHARED} ({size(usage.total)}, {size(usage.free)} free) cannot hold {size(LEAST_SHARED)}: {why}", remedy, **facts)
    if usage.total < USUAL_SHARED:
        return warning(f"{SHARED} has {size(usage.total)}: NCCL over several GPUs may fail with a bus error", remedy, **facts)
    return ok(f"{SHARED} has {size(usage.total)}, {size(usage.free)} free", **facts)


def check_open_files(context: Context) -> Finding:
    """The soft limit of open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = "without limit" if soft == resource.RLIM_INFINITY else str(soft)
    most = "unlimited" if hard == resource.RLIM_INFINITY else str(hard)
    facts = {"soft": soft, "hard": hard}
    if soft == resource.RLIM_INFINITY or soft >= USUAL_FILES:
        return ok(f"open files: {allowed}", **facts)
    wanted = USUAL_FILES * 4 if hard == resource.RLIM_INFINITY else min(hard, USUAL_FILES * 4)
    remedy = (f"ulimit -n {wanted} before the command (the hard limit is {most}); "
              "for good: LimitNOFILE of the service, or /etc/security/limits.conf")
    said = f"a process may open {allowed} files: a build with many shards, or several ranks, needs more"
    return fault(said, remedy, **facts) if soft < LEAST_FILES else warning(said, remedy, **facts)


def _cannot_take(folder: Path, wanted: int) -> str | None:
    """Why a file of this size cannot be made; None where it can. The file is gone when this returns."""
    try:
        with tempfile.TemporaryFile(dir=folder) as stream:
            os.posix_fallocate(stream.fileno(), 0, wanted)
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return None
