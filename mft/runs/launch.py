"""Starting the ranks of a train stage on this machine, and learning how each of them ended."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

from mft.errors import Interrupted, MftError, RanksFailed, TrainingStopped
from mft.files import read_json, write_json, write_text

PR_SET_PDEATHSIG = 1
OUTCOMES = "MFT_RANK_OUTCOMES"
"""Environment: a folder in which each rank leaves its number and how it ended; set by the process that started the ranks, and speaks
for them."""

GROUP, FAULT = "group.json", "fault"
"""Beside the words of the ranks: the numbers they have, and why torchrun could not go on."""

LOST_RANK_GRACE_S = 60.0
"""How long the others may go on after a rank has failed. gloo's connections break at once; NCCL may wait for the lost rank for as long
as `distributed.timeout_minutes`, and torchrun for as long again."""

LOOK_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class GroupEnd:
    """How the ranks that this machine ran have ended. Of several attempts, the last one."""

    outcomes: dict[int, dict[str, Any]]
    """Rank -> the word it left."""

    ranks: frozenset[int]
    """The numbers that the ranks of this machine had; empty where they were never started."""

    killed: frozenset[int]
    """Those that were killed here, because another one had failed."""

    asked_to_stop: bool
    """A signal came to this command."""

    fault: str
    """Why torchrun could not go on: `closed`, `alone` or `unreachable` (mft/runs/torchrun.py), or nothing."""

    code: int
    """The exit code of the process that started the ranks."""


def start_ranks(command: Sequence[str], ranks: int, timeout_minutes: float) -> None:
    """Run `mft COMMAND` on this many processes under torchrun and wait for their end.

    A SIGTERM or SIGINT is passed on to all; they save and stop. Ranks that outlive one that has failed by `LOST_RANK_GRACE_S` are killed.

    Raises:
        Interrupted: they were stopped by a signal. RanksFailed: with the message and the exit code of the rank that failed, or with the
        ranks that are gone without a word.
    """
    end = run_group(["--standalone", f"--nproc-per-node={ranks}"], command, timeout_minutes)
    judge(end.outcomes, lost=set(range(ranks)) - end.killed, ranks=ranks, asked_to_stop=end.asked_to_stop)


def torchrun_command(options: Sequence[str], command: Sequence[str]) -> list[str]:
    """What runs torchrun with these options on `mft COMMAND`."""
    return [sys.executable, "-m", "mft.runs.torchrun", *options, "-m", "mft", *command]


def run_group(options: Sequence[str], command: Sequence[str], timeout_minutes: float,
              settings: Mapping[str, str] | None = None) -> GroupEnd:
    """Run torchrun on `mft COMMAND`, and wait until this machine's ranks have ended for good. `settings` go into their environment."""
    own = {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(int(timeout_minutes * 60)),
           # A connection that breaks is told in one sentence; torch would add its C++ stack, again and again.
           "TORCH_CPP_LOG_LEVEL": os.environ.get("TORCH_CPP_LOG_LEVEL", "ERROR")}
    return run_launcher(torchrun_command(options, command), {**own, **(settings or {})})


def run_launcher(arguments: Sequence[str], settings: Mapping[str, str], *, stop_ranks_themselves: bool = False) -> GroupEnd:
    """Run a process that starts ranks, and wait for it; `settings` go into its environment.

    `stop_ranks_themselves`: a signal is passed on to the ranks instead of to the process that started them.
    """
    with TemporaryDirectory(prefix="mft-ranks-") as name:
        folder = Path(name)
        environment = {**os.environ, OUTCOMES: name, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"), **settings}
        process = subprocess.Popen(arguments, env=environment, stdout=sys.stderr, start_new_session=True, preexec_fn=stop_with_parent)
        with _signals_passed_to(process, folder if stop_ranks_themselves else None) as received:
            killed = wait_for_ranks(process, folder, LOST_RANK_GRACE_S)
        started = read_json(folder / GROUP) if (folder / GROUP).is_file() else list(_announced(folder))
        fault = (folder / FAULT).read_text(encoding="utf-8") if (folder / FAULT).is_file() else ""
        return GroupEnd(_outcomes(folder), frozenset(started), frozenset(killed), bool(received), fault, process.returncode)


def begin_attempt(folder: Path, ranks: Sequence[int]) -> None:
    """Forget what the ranks of an earlier attempt have left, before these are started."""
    for path in [*folder.glob("*.pid"), *folder.glob("[0-9]*.json")]:
        path.unlink()
    write_json(folder / GROUP, list(ranks))


def worth_another_attempt(folder: Path) -> bool:
    """Whether ranks that have failed may do better when they are started again: not after a mistake of the user, a fault that the run
    found in itself, or a request to stop."""
    final = (MftError.exit_code, TrainingStopped.exit_code, Interrupted.exit_code)
    return not any(outcome["code"] in final and not outcome["lost_contact"] for outcome in _outcomes(folder).values())


def stop_with_parent() -> None:
    """Should the process that started this one be killed, this one is told to save and stop instead of running on unseen (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def wait_for_ranks(process: "subprocess.Popen[bytes]", folder: Path, grace_s: float) -> set[int]:
    """Wait for torchrun; kill the ranks that are left `grace_s` seconds after one of them failed or was gone without a word.

    Returns:
        The ranks of the last attempt that were killed here.
    """
    failed_at: float | None = None
    killed: set[int] = set()
    while True:
        try:
            process.wait(timeout=LOOK_EVERY_S)
            return killed
        except subprocess.TimeoutExpired:
            alive = {rank: pid for rank, pid in _announced(folder).items() if _lives(pid)}
        if not _one_failed(folder, alive):
            failed_at = None   # none did, or the ranks have been started again
            killed.clear()
        elif failed_at is None:
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
    return {int(path.stem): int(text) for path, text in _left_in(folder, "*.pid")}


def _outcomes(folder: Path) -> dict[int, dict[str, Any]]:
    return {int(path.stem): json.loads(text) for path, text in _left_in(folder, "[0-9]*.json")}


def _left_in(folder: Path, pattern: str) -> Iterator[tuple[Path, str]]:
    for path in folder.glob(pattern):
        with suppress(FileNotFoundError):   # `begin_attempt` may remove it meanwhile
            yield path, path.read_text(encoding="utf-8")


def _lives(pid: int) -> bool:
    """Whether the process runs; a dead one goes as soon as torchrun has taken note."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def _signals_passed_to(process: "subprocess.Popen[bytes]", folder: Path | None = None) -> Iterator[list[int]]:
    """While the ranks run, a signal to this process is a request to them to save and stop. Yields the list of those that came.

    `folder`: where the ranks have announced themselves, if they are to be told rather than `process`.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def pass_on(number: int, frame: FrameType | None) -> None:
        received.append(number)
        pids = list(_announced(folder).values()) if folder else []
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        if not pids:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM) if folder else process.send_signal(signal.SIGTERM)

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
