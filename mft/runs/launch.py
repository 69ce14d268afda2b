"""Starting the ranks of a train stage on this machine, and learning how each of them ended."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

from mft.errors import Interrupted, RanksFailed

PR_SET_PDEATHSIG = 1
OUTCOMES = "MFT_RANK_OUTCOMES"
"""Environment: a folder in which each rank leaves how it ended; set by the process that started the ranks, and speaks for them."""


def start_ranks(command: Sequence[str], ranks: int, timeout_minutes: float) -> None:
    """Run `mft COMMAND` on this many processes under torchrun and wait for their end.

    A SIGTERM or SIGINT is passed on to all of them; they save and stop.

    Raises:
        Interrupted: they were stopped by a signal. RanksFailed: with the message and the exit code of the rank that failed, or with the
        ranks that are gone without a word.
    """
    with TemporaryDirectory(prefix="mft-ranks-") as folder:
        environment = {**os.environ, OUTCOMES: folder, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
                       "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(int(timeout_minutes * 60))}
        arguments = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", "-m", "mft", *command]
        process = subprocess.Popen(arguments, env=environment, stdout=sys.stderr, start_new_session=True,
                                   preexec_fn=_stop_with_parent)
        with _signals_passed_to(process):
            process.wait()
        _judge({int(path.stem): json.loads(path.read_text(encoding="utf-8")) for path in Path(folder).glob("*.json")}, ranks)


def _stop_with_parent() -> None:
    """In the started process: should this one be killed, the ranks are told to save and stop instead of running on unseen (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


@contextmanager
def _signals_passed_to(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """While the ranks run, a signal to this process is a request to them to save and stop."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def pass_on(number: int, frame: FrameType | None) -> None:
        process.send_signal(signal.SIGTERM)

    previous = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _judge(outcomes: dict[int, dict[str, Any]], ranks: int) -> None:
    """Turn the ends of the ranks into one."""
    if lost := sorted(set(range(ranks)) - outcomes.keys()):
        raise RanksFailed(f"rank{'s' * (len(lost) > 1)} {', '.join(map(str, lost))} of {ranks} ended without a word: killed, perhaps for "
                          "memory; the same command goes on from the last checkpoint", 3)
    failed = {rank: outcome for rank, outcome in outcomes.items() if outcome["code"]}
    if not failed:
        return
    rank = min(failed, key=lambda number: (failed[number].get("lost_contact", False), number))
    outcome = failed[rank]
    if outcome["code"] == Interrupted.exit_code:
        raise Interrupted(outcome["error"])
    raise RanksFailed(outcome["error"] if outcome["code"] != 1 else f"rank {rank} failed: {outcome['error']}; its traceback stands above",
                      outcome["code"])


def leave_outcome(code: int, message: str) -> bool:
    """Leave word of how this rank ended, if it was started by `start_ranks`; False: nobody else will tell the user."""
    if folder := os.environ.get(OUTCOMES):
        path = Path(folder, f"{os.environ.get('RANK', '0')}.json")
        path.write_text(json.dumps({"code": code, "error": message}), encoding="utf-8")
    return bool(folder)
