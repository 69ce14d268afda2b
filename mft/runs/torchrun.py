"""torchrun without its own account of a failed rank: `python -m mft.runs.torchrun ...`, as `run_group` runs it.

Each rank leaves word of how it ended, and the process that started them says it in one message. torchrun would add a traceback of itself.
"""

import logging
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch.distributed.launcher.api
from torch.distributed import DistNetworkError, DistStoreError
from torch.distributed.elastic.agent.server import WorkerGroup, WorkerState
from torch.distributed.elastic.agent.server.api import RunResult
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous.api import RendezvousClosedError, RendezvousError, RendezvousTimeoutError
from torch.distributed.elastic.rendezvous.dynamic_rendezvous import DynamicRendezvousHandler
from torch.distributed.run import get_args_parser, run

from mft.files import write_text
from mft.runs.launch import FAULT, OUTCOMES, begin_attempt, worth_another_attempt

CLOSING_S = 5.0
"""How long a node that has ended the run stays for the others to see it: its process may hold the store that tells them."""


class Agent(LocalElasticAgent):
    """torchrun's agent of one node, which starts its ranks again only where that may help, and ends the run for all nodes with its own."""

    def _start_workers(self, worker_group: WorkerGroup) -> dict[int, Any]:
        begin_attempt(_folder(), [worker.global_rank for worker in worker_group.workers])
        started: dict[int, Any] = super()._start_workers(worker_group)
        return started

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        result: RunResult = super()._monitor_workers(worker_group)
        if result.state in (WorkerState.FAILED, WorkerState.UNHEALTHY) and not worth_another_attempt(_folder()):
            self._remaining_restarts = 0
        return result

    def run(self, role: str = "default") -> RunResult:
        """Run the ranks to their end."""
        try:
            result: RunResult = super().run(role)
        except SignalException:
            self._end_for_all()
            raise
        if result.is_failed():
            self._end_for_all()
        return result

    def _shutdown(self, death_sig: signal.Signals = signal.SIGTERM, timeout: int = 30) -> None:
        if isinstance(sys.exception(), SignalException):
            # Slurm tells every process of a step, and so the parent's word comes too: it would end the waiting for ranks that save.
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
        super()._shutdown(death_sig, timeout)

    def _end_for_all(self) -> None:
        """Tell the other nodes not to wait for this one."""
        rendezvous = self._worker_group.spec.rdzv_handler
        if isinstance(rendezvous, DynamicRendezvousHandler) and rendezvous.settings.max_nodes > 1:
            with suppress(RendezvousError):
                rendezvous.set_closed()
                time.sleep(CLOSING_S)


def main(arguments: list[str]) -> int:
    """Run torchrun with these arguments; 0 where every rank ended with 0, else 1."""
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    if "--standalone" not in arguments:
        # Else the ranks share a store of the first node's agent, and where that node is replaced, the others' ranks look for the old one.
        os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    torch.distributed.launcher.api.LocalElasticAgent = Agent   # type: ignore[misc]  # torchrun has no option for it
    try:
        run(get_args_parser().parse_args(arguments))
    except (ChildFailedError, SignalException):
        return 1
    except RendezvousClosedError:
        return _leave_fault("closed")
    except RendezvousTimeoutError:
        return _leave_fault("alone")
    except (RendezvousError, DistNetworkError, DistStoreError):
        return _leave_fault("unreachable")
    return 0


def _leave_fault(name: str) -> int:
    write_text(_folder() / FAULT, name)
    return 1


def _folder() -> Path:
    return Path(os.environ[OUTCOMES])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
