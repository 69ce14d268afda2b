"""Start a server, wait until it answers, and stay with it until it ends or is told to."""

import logging
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from mft.errors import MftError
from mft.serving.engines import ServePlan

logger = logging.getLogger(__name__)

POLL_S, STOP_S = 0.25, 20.0


class ServerFailed(MftError):
    """A server that could not be started, or that ended by itself."""


class Stopped(Exception):
    """SIGTERM came."""


def serve(plan: ServePlan) -> int:
    """Run the server in the foreground; Ctrl-C and SIGTERM stop it. Returns how many seconds it served.

    Raises:
        ServerFailed: the port is taken, or the server ended by itself (its own last lines say why).
    """
    refuse_taken_port(plan.options.host, plan.options.port)
    logger.info("%s", shlex.join(plan.command))
    for note in plan.notes:
        logger.info("%s", note)
    # A session of its own: Ctrl-C reaches it through us, once. Its words go to stderr: stdout is ours.
    process = subprocess.Popen(plan.command, start_new_session=True, stdout=sys.stderr.fileno())
    ready: float | None = None
    try:
        with _sigterm_stops():
            while process.poll() is None:
                if ready is None and _answers(plan):
                    ready = time.monotonic()
                    logger.info("serving %s at %s", plan.model, plan.url)
                time.sleep(POLL_S)
    except (KeyboardInterrupt, Stopped):
        return round(time.monotonic() - ready) if ready is not None else 0
    finally:
        _stop(process)
    what = "ended" if ready is not None else "did not start"
    raise ServerFailed(f"the {plan.engine} server {what} (exit code {process.returncode}); its last lines say why")


def refuse_taken_port(host: str, port: int) -> None:
    """Raises ServerFailed where no server can listen there."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise ServerFailed(f"{host}:{port}: a server cannot listen there: {error.strerror or error}; "
                           "give another --port or --host") from error


def _answers(plan: ServePlan) -> bool:
    try:
        with urllib.request.urlopen(plan.url.removesuffix("/v1") + "/health", timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@contextmanager
def _sigterm_stops() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Interrupt the server as Ctrl-C would, and wait; what has not ended then is killed."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)   # its own children too, such as vLLM's engine
    process.wait()
