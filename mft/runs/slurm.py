"""Ranks that `srun` has started: their numbers under the names that torch.distributed reads."""

import re
from collections.abc import MutableMapping

from mft.errors import ConfigError

FIRST_PORT, PORTS = 20_000, 20_000
"""Where the first rank listens: one of these, by the number of the job, so that jobs on one node do not meet."""


def join_slurm(environment: MutableMapping[str, str]) -> None:
    """Set RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT for a process of a job step of several tasks.

    Nothing happens where torchrun has set them, or outside of such a step. MASTER_ADDR and MASTER_PORT stand if they are set.

    Raises:
        ConfigError: the step's list of nodes cannot be read.
    """
    tasks = int(environment.get("SLURM_STEP_NUM_TASKS", "1"))
    if "RANK" in environment or tasks == 1 or "SLURM_PROCID" not in environment:
        return
    environment["RANK"], environment["WORLD_SIZE"] = environment["SLURM_PROCID"], str(tasks)
    environment["LOCAL_RANK"] = environment.get("SLURM_LOCALID", "0")
    if "MASTER_ADDR" not in environment:
        environment["MASTER_ADDR"] = first_node(environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST", ""))
    environment.setdefault("MASTER_PORT", str(FIRST_PORT + int(environment.get("SLURM_JOB_ID", "0")) % PORTS))


def first_node(nodes: str) -> str:
    """The first node of a list as Slurm writes it.

    >>> first_node("gpu[007-012,020],login1"), first_node("a1,a2"), first_node("rack[1-2]-node[03-04]")
    ('gpu007', 'a1', 'rack1-node03')

    Raises:
        ConfigError: the list is empty.
    """
    name = re.match(r"(?:[^,\[\]]+|\[[^\]]*\])*", nodes)
    if name is None or not name[0]:
        raise ConfigError(["SLURM_STEP_NODELIST is empty, so the first rank cannot be found; set MASTER_ADDR to the host of rank 0"])
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", name[0])
