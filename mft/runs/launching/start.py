"""`mft launch`: from its options to the processes, the hostfile or the script of one launcher."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from torch.cuda import device_count

from mft.errors import ConfigError
from mft.runs.config import TrainStage, load_project
from mft.runs.launch import torchrun_command
from mft.runs.launching.hosts import deepspeed_launch, parse_hosts
from mft.runs.launching.job import LaunchJob, check_ranks
from mft.runs.launching.nodes import NodeGroup, parse_address, run_node, torchrun_options
from mft.runs.launching.slurm_job import slurm_job, submit

LAUNCHERS = ("torchrun", "deepspeed", "slurm")
ACTS_ON = {"rendezvous": ("torchrun",), "rendezvous_id": ("torchrun",), "max_restarts": ("torchrun", "slurm"),
           "wait_minutes": ("torchrun", "slurm"), "hosts": ("deepspeed",), "node_rank": ("deepspeed",), "slurm": ("slurm",),
           "script": ("slurm",)}
"""Options that act with some launchers only."""


@dataclass(frozen=True, slots=True)
class LaunchOptions:
    """What was given on the command line; None and empty: not given."""

    on: str
    nodes: int
    gpus: int
    rendezvous: str | None = None
    rendezvous_id: str | None = None
    max_restarts: int | None = None
    wait_minutes: float | None = None
    hosts: str | None = None
    node_rank: int | None = None
    interface: str | None = None
    slurm: tuple[str, ...] = ()
    script: Path | None = None
    dry_run: bool = False

    @property
    def environment(self) -> dict[str, str]:
        """What the ranks' environment gets, besides what it has."""
        named = {name: self.interface for name in ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME") if self.interface}
        # NCCL says nothing of a connection that fails, unless it is asked for warnings.
        return {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"), "NCCL_DEBUG": os.environ.get("NCCL_DEBUG", "WARN"), **named}


def find_job(config: Path, overrides: list[str], stage: str | None, out: Path | None) -> LaunchJob:
    """The train stage that is meant.

    Raises:
        ConfigError: the config's mistakes, or it has no such train stage, or several and none was named.
    """
    project = load_project(config, overrides)
    trains = {candidate.name: candidate for candidate in project.stages if isinstance(candidate, TrainStage)}
    if stage not in trains and (stage is not None or len(trains) != 1):
        raise ConfigError([f"{config}: --stage: train stages of this config: {', '.join(trains) or 'none'}"])
    return LaunchJob(config, project, trains[stage or next(iter(trains))], out or Path("runs") / project.name, tuple(overrides))


def start(job: LaunchJob, options: LaunchOptions) -> dict[str, Any]:
    """Start what is asked for and wait for it, or submit it.

    Returns:
        `command` or `script`, and what came of it: the train stage's `adapter`, `steps`, `loss` and `tasks`, or the number of a job.

    Raises:
        ConfigError: the options do not go together, or the config cannot run on so many ranks. DependencyError: a launcher's program
        is not installed. Interrupted, RanksFailed: as `start_ranks`.
    """
    _check(options)
    check_ranks(job, options.nodes * options.gpus)
    facts = {"torchrun": _on_torchrun, "deepspeed": _on_deepspeed, "slurm": _on_slurm}[options.on](job, options)
    return {"on": options.on, "nodes": options.nodes, "ranks": options.nodes * options.gpus, "started": not options.dry_run, **facts}


def _check(options: LaunchOptions) -> None:
    if options.on not in LAUNCHERS:
        close = get_close_matches(options.on, LAUNCHERS, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        raise ConfigError([f"--on: '{options.on}' is no launcher; allowed: {', '.join(LAUNCHERS)}{hint}"])
    faults = []
    if "RANK" in os.environ:
        faults.append("this command has been started as one of several processes already (RANK is set); in those, run mft train")
    given = {item.name for item in fields(options) if getattr(options, item.name) not in (None, ())}
    faults += [f"--{name.replace('_', '-')}: acts with --on {' and --on '.join(launchers)} only; --on is {options.on}"
               for name, launchers in ACTS_ON.items() if name in given and options.on not in launchers]
    meets = {"rendezvous", "rendezvous_id"} & given
    if options.on == "torchrun" and options.nodes == 1 and meets:
        faults.append(f"--{' and --'.join(sorted(meets)).replace('_', '-')}: acts with several nodes only; --nodes is 1")
    if options.on == "torchrun" and options.nodes > 1 and options.rendezvous is None:
        faults.append(f"--rendezvous: is required with --nodes {options.nodes}: HOST:PORT of one of the nodes, the same on all of them")
    if faults:
        raise ConfigError(faults)


def _group(options: LaunchOptions) -> NodeGroup:
    given: Mapping[str, Any] = {"identity": options.rendezvous_id, "max_restarts": options.max_restarts,
                                "wait_minutes": options.wait_minutes,
                                "rendezvous": parse_address(options.rendezvous) if options.rendezvous else None}
    return NodeGroup(options.nodes, options.gpus, **{name: value for name, value in given.items() if value is not None})


def _on_torchrun(job: LaunchJob, options: LaunchOptions) -> dict[str, Any]:
    group, devices = _group(options), device_count()
    if 0 < devices < options.gpus:
        raise ConfigError([f"--gpus: is {options.gpus}, but this machine shows {devices}"])
    facts = {"command": torchrun_command(torchrun_options(group), job.train_command), "environment": options.environment}
    if options.dry_run:
        return facts
    run_node(group, job.train_command, job.stage.distributed.timeout_minutes, options.environment)
    return {**facts, **_trained(job)}


def _on_deepspeed(job: LaunchJob, options: LaunchOptions) -> dict[str, Any]:
    launch = deepspeed_launch(job, parse_hosts(options.hosts, options.nodes, options.gpus), options.node_rank, options.environment)
    facts = {"command": launch.command, "hostfile": {"path": str(launch.hostfile), "text": launch.hostfile_text},
             "environment": launch.environment}
    if options.dry_run:
        return facts
    launch.run()
    return {**facts, **_trained(job)}


def _on_slurm(job: LaunchJob, options: LaunchOptions) -> dict[str, Any]:
    script = slurm_job(job, _group(options), options.slurm, options.environment, options.script)
    facts: dict[str, Any] = {"script": {"path": str(script.path), "text": script.text}, "command": script.command}
    return facts if options.dry_run else {**facts, "job": submit(script)}


def _trained(job: LaunchJob) -> dict[str, Any]:
    record = job.result()
    return {key: record[key] for key in ("adapter", "steps", "loss", "tasks")}
