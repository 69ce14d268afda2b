"""DeepSpeed's launcher: a hostfile, and its command on this machine."""

import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mft.errors import ConfigError, DependencyError, Interrupted, RanksFailed
from mft.files import write_text
from mft.runs.launch import GroupEnd, judge, run_launcher
from mft.runs.launching.job import LaunchJob

HOST = re.compile(r"([A-Za-z0-9_.-]+)(?::([1-9][0-9]*))?")
PORT = 29500


@dataclass(frozen=True, slots=True)
class Host:
    """A machine and the ranks that it runs."""

    name: str
    slots: int


@dataclass(frozen=True, slots=True)
class DeepSpeedLaunch:
    """DeepSpeed's launcher on this machine. `own_ranks`: those of this machine; None: all are started over ssh."""

    command: list[str]
    hostfile: Path
    hostfile_text: str
    environment: dict[str, str]
    own_ranks: range | None
    ranks: int

    @property
    def exports(self) -> str:
        """The file of variables that the launcher exports on the other machines, of which it takes only some by itself."""
        return "".join(f"{name}={value}\n" for name, value in self.environment.items() if name != "DS_ENV_FILE")

    def run(self) -> None:
        """Write the hostfile, start the ranks and wait for their end.

        Raises:
            DependencyError: pdsh is needed and not installed. Interrupted, RanksFailed: as `start_ranks`.
        """
        if self.own_ranks is None and shutil.which("pdsh") is None:
            raise DependencyError("pdsh is not installed on this machine, and DeepSpeed starts other machines' ranks with it; install it, "
                                  "or run this command on every host with --node-rank 0, 1, ... in the order of --hosts")
        write_text(self.hostfile, self.hostfile_text)
        write_text(Path(self.environment["DS_ENV_FILE"]), self.exports)
        end = run_launcher(self.command, self.environment, stop_ranks_themselves=self.own_ranks is not None)
        self._judge(end)

    def _judge(self, end: GroupEnd) -> None:
        if self.own_ranks is not None:
            judge(end.outcomes, set(self.own_ranks) - end.killed, self.ranks, asked_to_stop=end.asked_to_stop)
        elif end.code == Interrupted.exit_code or (end.code and end.asked_to_stop):
            raise Interrupted("stopped by a signal; the same command goes on from the last checkpoint")
        elif end.code:
            raise RanksFailed(f"DeepSpeed's launcher ended with {end.code}; what the first rank said stands above; the same command goes "
                              "on from the last checkpoint", end.code if end.code in (1, 2, 3) else 3)


def parse_hosts(text: str | None, nodes: int, ranks: int) -> list[Host]:
    """`a,b` (so many `ranks` on each) or `a:8,b:8`; None: this machine.

    >>> parse_hosts("a,b:4", 2, 4), parse_hosts(None, 1, 2)
    ([Host(name='a', slots=4), Host(name='b', slots=4)], [Host(name='localhost', slots=2)])

    Raises:
        ConfigError: the list is not of `nodes` different hosts with `ranks` each.
    """
    if text is None:
        if nodes > 1:
            raise ConfigError([f"--hosts: is required with --on deepspeed and --nodes {nodes}: their names, separated by commas"])
        return [Host("localhost", ranks)]
    hosts, faults = [], []
    for part in text.split(","):
        if (match := HOST.fullmatch(part.strip())) is None:
            faults.append(f"--hosts: '{part}': expected NAME or NAME:RANKS")
        else:
            hosts.append(Host(match[1], int(match[2] or ranks)))
    faults += [f"--hosts: '{host.name}' has {host.slots} ranks, --gpus is {ranks}" for host in hosts if host.slots != ranks]
    if not faults and len({host.name for host in hosts}) != nodes:
        faults.append(f"--hosts: names {len({host.name for host in hosts})} different hosts, --nodes is {nodes}")
    if faults:
        raise ConfigError(faults)
    return hosts


def deepspeed_launch(job: LaunchJob, hosts: list[Host], node_rank: int | None, environment: Mapping[str, str]) -> DeepSpeedLaunch:
    """The launcher's command. `node_rank`: this machine is that one of `hosts`, and starts its own ranks only.

    Raises:
        ConfigError: there is no host of this number.
    """
    if node_rank is not None and node_rank >= len(hosts):
        raise ConfigError([f"--node-rank: is {node_rank}, but there are {len(hosts)} hosts, numbered from 0"])
    here = node_rank if len(hosts) > 1 else 0
    hostfile, exports = job.folder / "hostfile", job.folder / "deepspeed-environment"
    alone = [] if here is None else ["--no_ssh", f"--node_rank={here}"]
    command = [sys.executable, "-m", "deepspeed.launcher.runner", "--quiet", "--hostfile", str(hostfile), *alone,
               f"--master_addr={'127.0.0.1' if len(hosts) == 1 else hosts[0].name}", f"--master_port={PORT}",
               # mft has no option --local_rank; the ranks read LOCAL_RANK.
               "--no_local_rank", "--module", "mft", *job.train_command]
    slots = hosts[0].slots
    return DeepSpeedLaunch(command, hostfile, "".join(f"{host.name} slots={host.slots}\n" for host in hosts),
                           {**environment, "DS_ENV_FILE": str(exports)},
                           None if here is None else range(here * slots, (here + 1) * slots), len(hosts) * slots)
