"""Running a probe in a process of its own: `python -m mft.doctor.child PROBE '{"argument": 1}'`.

The child answers with lines of JSON on its standard output, `{"value": ...}` for each thing found and at last `{"done": true}`; what
libraries print goes to its standard error. A child that crashes or hangs has told what it found until then.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mft.errors import MftError

GRACE_S = 5
"""How long a child whose parent is gone outlives its time limit."""


class ProbeFailed(MftError):
    """A probe ended without an answer; the message says how."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a probe told, in order; `error`: how it ended, if not well."""

    values: list[Any]
    error: str | None


def ask(probe: str, arguments: Mapping[str, Any], *, timeout_s: float) -> Any:
    """The one value that a probe gives.

    Raises:
        ProbeFailed: it raised, crashed, hung, or gave nothing.
    """
    answer = listen(probe, arguments, timeout_s=timeout_s)
    if answer.error is not None or not answer.values:
        raise ProbeFailed(answer.error or f"the probe {probe} gave no answer")
    return answer.values[-1]


def listen(probe: str, arguments: Mapping[str, Any], *, timeout_s: float) -> Answer:
    """All values that a probe gives, also of one that did not end well."""
    return wait_for([start(probe, arguments, timeout_s=timeout_s)], timeout_s=timeout_s)[0]


def start(probe: str, arguments: Mapping[str, Any], *, timeout_s: float) -> "subprocess.Popen[str]":
    """Start a probe; `wait_for` ends it."""
    command = [sys.executable, "-m", "mft.doctor.child", probe, json.dumps({**arguments, "timeout_s": timeout_s})]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            errors="replace")


def wait_for(children: Sequence["subprocess.Popen[str]"], *, timeout_s: float) -> list[Answer]:
    """The answers of probes that run at the same time; each that is still running after `timeout_s` seconds is killed."""
    answers = []
    for child in children:
        late = False
        try:
            out, errors = child.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            late = True
            child.kill()
            out, errors = child.communicate()
        messages = list(_messages(out))
        values = [message["value"] for message in messages if "value" in message]
        error = f"did not end within {timeout_s:g} s" if late else _how_it_ended(child.returncode, messages, errors)
        answers.append(Answer(values, error))
    return answers


def _messages(out: str) -> Iterator[dict[str, Any]]:
    for line in out.splitlines():
        try:
            yield json.loads(line)
        except ValueError:   # the last line of a child that was killed while it wrote
            continue


def _how_it_ended(code: int, messages: Sequence[Mapping[str, Any]], errors: str) -> str | None:
    last = messages[-1] if messages else {}
    if code == 0 and "done" in last:
        return None
    if "error" in last:
        return str(last["error"])
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    said = f": {lines[-1][:300]}" if lines else ""
    if code == -signal.SIGKILL:
        return f"was killed, perhaps for memory{said}"
    if code < 0:
        return f"the interpreter crashed ({signal.Signals(-code).name}){said}"
    return f"ended with exit code {code}{said}"


def first_line(error: BaseException) -> str:
    """`ValueError: what it said`, in one line."""
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {said}"[:400] if said else type(error).__name__


def main(arguments: Sequence[str]) -> int:
    """Run one probe in this process and write what it gives."""
    # The channel is a copy of standard output; the descriptor itself goes to standard error, C libraries print there too.
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    options = json.loads(arguments[1])
    signal.alarm(int(options.pop("timeout_s")) + GRACE_S)
    try:
        for value in importlib.import_module(f"mft.doctor.probes.{arguments[0]}").run(**options):
            channel.write(json.dumps({"value": value}) + "\n")
    except (Exception, SystemExit) as error:  # noqa: BLE001  told to the parent
        channel.write(json.dumps({"error": str(error) if isinstance(error, MftError) else first_line(error)}) + "\n")
        return 1
    channel.write(json.dumps({"done": True}) + "\n")
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stderr.flush()
    # Without the interpreter's own end: libraries' exit handlers have been seen to crash or hang there.
    os._exit(code)
