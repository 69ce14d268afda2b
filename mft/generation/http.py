"""JSON posted over HTTP, and what comes back: the standard library's connections, kept open between requests.

What can go wrong between two machines has four names, and each says whether the server may have done the work:

    unreachable       no connection: nothing was sent
    timed_out         sent, and no whole answer within the time
    connection_lost   sent, and the connection ended before the answer began
    truncated         the answer ended before its end

Neither a fault nor its text holds anything of the request (its headers carry a key) or of the answer.
"""

import http.client
import os
import select
import ssl
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from mft.errors import ModelError

Cause = Literal["unreachable", "timed_out", "connection_lost", "truncated"]

LONGEST_REPLY_BYTES: Final = 64 << 20
CHUNK: Final = 1 << 16
CONNECT_TIMEOUT_S: Final = 30.0
"""A server that does not take a connection within this time is not there; what is left of the time limit is for its answer."""


class TransferFault(Exception):
    """No whole reply came. `cause` is one of four names; the text says more, as the system tells it."""

    def __init__(self, cause: Cause, text: str) -> None:
        super().__init__(text)
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server sent back, whole. Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(slots=True)
class Connections:
    """Open connections to any servers, shared by threads; one that is free is used again.

    Proxies are those of the environment (`HTTPS_PROXY`, `NO_PROXY`). A redirect is not followed: it is a reply.
    """

    _free: dict[tuple[str, str], list[http.client.HTTPConnection]] = field(default_factory=lambda: defaultdict(list))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def post(self, url: str, body: bytes, headers: Mapping[str, str], timeout_s: float) -> Reply:
        """Send `body` and wait for the reply, whatever its status; `timeout_s` is for all of it.

        Raises:
            TransferFault: no whole reply came.
        """
        deadline = time.monotonic() + timeout_s
        parts = urlsplit(url)
        place = (parts.scheme, parts.netloc)
        connection = self._take(place) or _connected(parts, min(timeout_s, CONNECT_TIMEOUT_S))
        keep = False
        try:
            reply, keep = _exchange(connection, _target(parts), body, headers, deadline)
            return reply
        finally:
            if keep:
                with self._lock:
                    self._free[place].append(connection)
            else:
                connection.close()

    def close(self) -> None:
        """Close the connections that no request uses; later requests open others."""
        with self._lock:
            free = [connection for connections in self._free.values() for connection in connections]
            self._free.clear()
        for connection in free:
            connection.close()

    def _take(self, place: tuple[str, str]) -> http.client.HTTPConnection | None:
        """A free connection that the server has not closed meanwhile."""
        while True:
            with self._lock:
                if not self._free[place]:
                    return None
                connection = self._free[place].pop()
            if connection.sock is not None and not _readable(connection):
                return connection
            connection.close()


def api_key(variable: str | None) -> str | None:
    """The key in an environment variable, or None where it is unset or empty.

    Raises:
        ModelError: it has characters that no header can carry; the message does not repeat it.
    """
    key = os.environ.get(variable, "").strip() if variable else ""
    if not (key.isascii() and key.isprintable()):
        raise ModelError(f"{variable}: holds characters that no key has, a line break or quotes of a text editor; set it anew")
    return key or None


def _readable(connection: http.client.HTTPConnection) -> bool:
    """True where an idle connection has something to read: its end, or an answer that nobody asked for."""
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return bool(poll.poll(0))


def _proxy(parts: SplitResult) -> SplitResult | None:
    found = getproxies().get(parts.scheme)
    if not found or proxy_bypass(parts.hostname or ""):
        return None
    return urlsplit(found if "//" in found else f"http://{found}")


def _target(parts: SplitResult) -> str:
    """What the request line names: the path, or for plain HTTP through a proxy all of the URL."""
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return f"{parts.scheme}://{parts.netloc}{path}" if parts.scheme == "http" and _proxy(parts) else path


def _connected(parts: SplitResult, timeout_s: float) -> http.client.HTTPConnection:
    proxy = _proxy(parts)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    first = proxy or parts
    default = 443 if first.scheme == "https" else 80
    connection = kind(first.hostname or "", first.port or default, timeout=timeout_s)
    if proxy and parts.scheme == "https":
        connection.set_tunnel(parts.hostname or "", parts.port or 443, _proxy_headers(proxy))
    try:
        connection.connect()
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        raise TransferFault("unreachable", _said(error)) from None
    return connection


def _proxy_headers(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    from base64 import b64encode

    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {b64encode(pair.encode()).decode()}"}


def _said(error: Exception) -> str:
    """What the system says of an error, without what was sent or received."""
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, OSError) and error.errno:
        return error.strerror or os.strerror(error.errno)
    return type(error).__name__


def _exchange(connection: http.client.HTTPConnection, target: str, body: bytes, headers: Mapping[str, str],
              deadline: float) -> tuple[Reply, bool]:
    """(the reply, whether the connection can be used again)."""
    sent = {"Content-Type": "application/json", "Accept": "application/json", **headers}
    begun = False
    try:
        _limit(connection, deadline)
        connection.request("POST", target, body, sent)
        response = connection.getresponse()
        begun = True
        content = _content(connection, response, deadline)
    except TimeoutError:
        raise TransferFault("timed_out", "timed out") from None
    except http.client.IncompleteRead:
        raise TransferFault("truncated", "the answer ended before its end") from None
    except (OSError, http.client.HTTPException) as error:
        raise TransferFault("truncated" if begun else "connection_lost", _said(error)) from None
    found = {name.lower(): value for name, value in response.headers.items()}
    return Reply(response.status, found, content), not response.will_close


def _limit(connection: http.client.HTTPConnection, deadline: float) -> None:
    """Let the connection's next wait end at the deadline."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    if connection.sock is not None:
        connection.sock.settimeout(left)


def _content(connection: http.client.HTTPConnection, response: http.client.HTTPResponse, deadline: float) -> bytes:
    parts, size, length = list[bytes](), 0, response.length
    while True:
        _limit(connection, deadline)
        chunk = response.read1(CHUNK if length is None else min(CHUNK, length - size))
        if not chunk:
            break
        parts.append(chunk)
        size += len(chunk)
        if size > LONGEST_REPLY_BYTES:
            raise http.client.HTTPException("too long")
        if size == length:
            break
    if length is not None and size < length:
        raise http.client.IncompleteRead(b"")
    if not response.isclosed():
        response.close()
    return b"".join(parts)
