"""One node of several under torchrun: the same command runs on every node, and they meet at one address."""

import ipaddress
import logging
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psutil

from mft.errors import ConfigError, Interrupted, RanksFailed
from mft.runs.launch import GroupEnd, judge, run_group

logger = logging.getLogger(__name__)

DEFAULT_PORT = 29400
RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class Address:
    """Where the nodes meet. The node that has this address holds the store through which they find each other."""

    host: str
    port: int = DEFAULT_PORT

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class NodeGroup:
    """So many nodes with so many ranks each, `rendezvous`: None where there is one node."""

    nodes: int
    ranks: int
    rendezvous: Address | None = None
    identity: str = "mft"
    """The nodes of one run have the same."""

    max_restarts: int = 3
    """How often a node starts its ranks again after a failure, and how often after the store was lost."""

    wait_minutes: float = 10.0
    """How long a node waits for the others."""


def parse_address(text: str) -> Address:
    """`HOST`, `HOST:PORT` or `[IPv6]:PORT`.

    >>> parse_address("node1:29500"), parse_address("[fe80::1]:5").host, parse_address("10.0.0.1").port
    (Address(host='node1', port=29500), 'fe80::1', 29400)

    Raises:
        ConfigError: there is no host, or the port is none.
    """
    host, colon, port = text.rpartition(":") if text.count(":") == 1 or "]:" in text else (text, "", "")
    host = host.removeprefix("[").removesuffix("]")
    if not host or (colon and not (port.isdecimal() and 0 < int(port) < 65536)):
        raise ConfigError([f"--rendezvous: '{text}': expected HOST:PORT with a port from 1 to 65535"])
    return Address(host, int(port)) if colon else Address(host)


def torchrun_options(group: NodeGroup) -> list[str]:
    """torchrun's options on this machine.

    Raises:
        ConfigError: the host of the rendezvous has no address that this machine knows.
    """
    per_node = [f"--nproc-per-node={group.ranks}", f"--max-restarts={group.max_restarts}"]
    address = group.rendezvous
    if address is None:
        return ["--standalone", *per_node]
    here = _is_here(address.host)
    # torch makes a node the store's host only if it knows its name; a name of another network of the machine it may not know.
    endpoint = Address("localhost", address.port) if here else address
    return [f"--nnodes={group.nodes}", *per_node, "--rdzv-backend=c10d", f"--rdzv-endpoint={endpoint}", f"--rdzv-id={group.identity}",
            f"--rdzv-conf=join_timeout={round(group.wait_minutes * 60)}",
            # The default is the full host name, which the other nodes may not be able to resolve.
            f"--local-addr={address.host if here else _own_address_towards(address)}"]


def run_node(group: NodeGroup, command: Sequence[str], timeout_minutes: float, settings: Mapping[str, str] | None = None) -> None:
    """Run `mft COMMAND` on this node's ranks, and again whenever the nodes have to meet anew. `settings` go into the environment.

    Raises:
        Interrupted, RanksFailed: as `start_ranks`; the latter too where the other nodes cannot be met.
    """
    options = torchrun_options(group)
    restarts_left, waits_until = group.max_restarts, time.monotonic() + group.wait_minutes * 60
    while True:
        end = run_group(options, command, timeout_minutes, settings)
        if end.fault != "unreachable" or end.asked_to_stop:
            return _judge_node(group, end)
        # The node with the store is gone, or has not come yet. Ranks that had been started failed because of that.
        if end.ranks and restarts_left:
            restarts_left, waits_until = restarts_left - 1, time.monotonic() + group.wait_minutes * 60
            logger.warning("%s, which holds the store of the nodes, is gone; waiting for it for up to %g minutes", group.rendezvous,
                           group.wait_minutes)
        elif end.ranks or time.monotonic() > waits_until:
            return _judge_node(group, end)
        time.sleep(RETRY_S)


def _judge_node(group: NodeGroup, end: GroupEnd) -> None:
    """Turn the end of this node's ranks into one, and that of the node where they are not to blame."""
    to_blame = any(outcome["code"] and not outcome["lost_contact"] for outcome in end.outcomes.values())
    if to_blame or (end.ranks and not end.fault):
        judge(end.outcomes, set(end.ranks - end.killed), group.nodes * group.ranks, asked_to_stop=end.asked_to_stop)
        return
    again = "the same command on every node goes on from the last checkpoint"
    if end.asked_to_stop:
        raise Interrupted(f"stopped by a signal; {again}")
    reason = {"closed": f"another node has ended the run, for a reason that it tells; {again}",
              "alone": f"not all of the {group.nodes} nodes came to {group.rendezvous} within {group.wait_minutes:g} minutes; {again}",
              "unreachable": f"{group.rendezvous}, where the nodes meet, cannot be reached; {again}",
              "": f"torchrun ended with {end.code} before it had started a rank; what it said stands above"}[end.fault]
    raise RanksFailed(reason, 3)


def _is_here(host: str) -> bool:
    """Whether an address of `host` is one of this machine's."""
    own = {item.address.partition("%")[0] for items in psutil.net_if_addrs().values() for item in items}
    return any(address in own or ipaddress.ip_address(address).is_loopback for address in _addresses(host))


def _addresses(host: str) -> list[str]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise ConfigError([f"--rendezvous: '{host}': this machine knows no such host ({error})"]) from error
    return [str(item[4][0]).partition("%")[0] for item in found]


def _own_address_towards(address: Address) -> str:
    """The address of this machine on the network on which it reaches the others. Nothing is sent."""
    family, _, _, _, target = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(target)
        except OSError as error:
            raise ConfigError([f"--rendezvous: no way to {address.host} from here: {error.strerror}"]) from error
        return str(probe.getsockname()[0])
