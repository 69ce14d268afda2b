"""Starting the ranks of a train stage on this machine, and learning how each of them ended."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

from mft.errors import Interrupted, RanksFailed
from mft.files import write_text

PR_SET_PDEATHSIG = 1
OUTCOMES = "MFT_RANK_OUTCOMES"
"""Environment: a folder in which each rank leaves its number and how it ended; set by the process that started the ranks, and speaks
for them."""

LOST_RANK_GRACE_S = 60.0
"""How long the others may go on after a rank has failed. gloo's connections break at once; NCCL may wait for the lost rank for as long
as `distributed.timeout_minutes`, and torchrun for as long again."""

LOOK_EVERY_S = 0.5


def start_ranks(command: Sequence[str], ranks: int, timeout_minutes: float) -> None:
    """Run `mft COMMAND` on this many processes under torchrun and wait for their end.

    A SIGTERM or SIGINT is passed on to all of them; they save and stop. When one of them fails or is killed, the others are killed
    after `LOST_RANK_GRACE_S`, if they have not ended by themselves.

    Raises:
        Interrupted: they were stopped by a signal. RanksFailed: with the message and the exit code of the rank that failed, or with the
        ranks that are gone without a word.
    """
    with TemporaryDirectory(prefix="mft-ranks-") as folder:
        environment = {**os.environ, OUTCOMES: folder, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
                       "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(int(timeout_minutes * 60))}
        arguments = [sys.executable, "-m", "mft.runs.torchrun", "--standalone", f"--nproc-per-node={ranks}", "-m", "mft", *command]
        process = subprocess.Popen(arguments, env=environment, stdout=sys.stderr, start_new_session=True,
                                   preexec_fn=stop_with_parent)
        with _signals_passed_to(process) as received:
            killed = wait_for_ranks(process, Path(folder), LOST_RANK_GRACE_S)
        judge(_outcomes(Path(folder)), lost=set(range(ranks)) - killed, ranks=ranks, asked_to_stop=bool(received))


def stop_with_parent() -> None:
    """Should the process that started this one be killed, this one is told to save and stop instead of running on unseen (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def wait_for_ranks(process: "subprocess.Popen[bytes]", folder: Path, grace_s: float) -> set[int]:
    """Wait for torchrun; kill the ranks that are left `grace_s` seconds after one of them failed or was gone without a word.

    Returns:
        The ranks that were killed here.
    """
    failed_at: float | None = None
    killed: set[int] = set()
    while True:
        try:
            process.wait(timeout=LOOK_EVERY_S)
            return killed
        except subprocess.TimeoutExpired:
            alive = {rank: pid for rank, pid in _announced(folder).items() if _lives(pid)}
        if failed_at is None and _one_failed(folder, alive):
            failed_at = time.monotonic()
        if failed_at is not None and time.monotonic() - failed_at > grace_s:
            for rank, pid in alive.items():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    killed.add(rank)


def _one_failed(folder: Path, alive: dict[int, int]) -> bool:
    """Whether a rank ended with a fault of its own, or without a word. A rank that was asked to stop has not failed."""
    gone = _announced(folder).keys() - alive.keys()
    outcomes = _outcomes(folder)   # read after `alive` was: a rank leaves word before it ends
    return any(outcomes.get(rank, {"code": -1})["code"] not in (0, Interrupted.exit_code) for rank in gone)


def _announced(folder: Path) -> dict[int, int]:
    """Rank -> process id."""
    return {int(path.stem): int(path.read_text(encoding="utf-8")) for path in folder.glob("*.pid")}


def _outcomes(folder: Path) -> dict[int, dict[str, Any]]:
    return {int(path.stem): json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")}


def _lives(pid: int) -> bool:
    """Whether the process runs; a dead one goes as soon as torchrun has taken note."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def _signals_passed_to(process: "subprocess.Popen[bytes]") -> Iterator[list[int]]:
    """While the ranks run, a signal to this process is a request to them to save and stop. Yields the list of those that came."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def pass_on(number: int, frame: FrameType | None) -> None:
        received.append(number)
        process.send_signal(signal.SIGTERM)

    previous = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def judge(outcomes: dict[int, dict[str, Any]], lost: set[int], ranks: int, *, asked_to_stop: bool = False) -> None:
    """Turn the ends of the ranks into one. `lost`: those that are missing if they have left no word.

    `asked_to_stop`: they were sent a signal, which ends a rank without a word while it still loads.

    Raises:
        Interrupted, RanksFailed: as `start_ranks`.
    """
    gone = sorted(lost - outcomes.keys())
    if gone and asked_to_stop:
        raise Interrupted("stopped by a signal; the same command goes on from the last checkpoint")
    if gone:
        raise RanksFailed(f"rank{'s' * (len(gone) > 1)} {', '.join(map(str, gone))} of {ranks} ended without a word: killed, perhaps for "
                          "memory; the same command goes on from the last checkpoint", 3)
    failed = {rank: outcome for rank, outcome in outcomes.items() if outcome["code"]}
    if not failed:
        return
    # One that lost contact with the others fails because of them.
    rank = min(failed, key=lambda number: (failed[number]["lost_contact"], number))
    outcome = outcomes[rank]
    if outcome["code"] == Interrupted.exit_code:
        raise Interrupted(outcome["error"])
    raise RanksFailed(outcome["error"] if outcome["code"] != 1 else f"rank {rank} failed: {outcome['error']}; its traceback stands above",
                      outcome["code"])


def announce_rank() -> None:
    """Tell the process that started this rank which process it is, and stop should that one's torchrun be killed."""
    if folder := os.environ.get(OUTCOMES):
        stop_with_parent()
        write_text(Path(folder, f"{os.environ['RANK']}.pid"), str(os.getpid()))


def leave_outcome(code: int, message: str, *, lost_contact: bool = False) -> bool:
    """Leave word of how this rank ended, if it was started by `start_ranks`; False: nobody else will tell the user.

    `lost_contact`: it failed because another rank did.
    """
    if folder := os.environ.get(OUTCOMES):
        facts = {"code": code, "error": message, "lost_contact": lost_contact}
        write_text(Path(folder, f"{os.environ.get('RANK', '0')}.json"), json.dumps(facts))
    return bool(folder)
