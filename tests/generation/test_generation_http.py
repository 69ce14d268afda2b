"""Posting over HTTP: connections that stay open, and every way in which a reply can fail to come, against raw sockets."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from mft.errors import ModelError
from mft.generation.http import Connections, TransferFault, api_key

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-One: 1\r\n\r\nhi"


@contextmanager
def server(talk: Callable[[socket.socket, int], None]) -> Iterator[tuple[str, list[int]]]:
    """A socket that hands each connection and its number to `talk`; yields the URL and the connections that came."""
    listening = socket.create_server(("127.0.0.1", 0))
    came: list[int] = []

    def accept() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            came.append(len(came))
            threading.Thread(target=serve, args=(connection, came[-1]), daemon=True).start()

    def serve(connection: socket.socket, number: int) -> None:
        with connection, suppress(OSError):     # the other side may go away
            talk(connection, number)

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1/x?y=1", came
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()


def read_request(connection: socket.socket) -> bytes:
    """One request with its body; empty where the other side has gone."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65536)
        if not part:
            return b""
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")).split(b":")[1])
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def always(reply: bytes) -> Callable[[socket.socket, int], None]:
    def talk(connection: socket.socket, number: int) -> None:
        while read_request(connection):
            connection.sendall(reply)
    return talk


def test_a_connection_is_used_again_and_the_reply_is_whole() -> None:
    asked: list[bytes] = []

    def talk(connection: socket.socket, number: int) -> None:
        while request := read_request(connection):
            asked.append(request)
            connection.sendall(OK)

    connections = Connections()
    with server(talk) as (url, came):
        replies = [connections.post(url, b"{}", {"Authorization": "Bearer k"}, 5) for _ in range(5)]
    connections.close()
    assert len(came) == 1
    assert [(reply.status, reply.body, reply.headers["x-one"]) for reply in replies] == [(200, b"hi", "1")] * 5
    assert asked[0].startswith(b"POST /v1/x?y=1 HTTP/1.1\r\n")
    assert b"\r\nAuthorization: Bearer k\r\n" in asked[0]


def test_a_connection_that_the_server_closed_meanwhile_is_no_fault() -> None:
    def once(connection: socket.socket, number: int) -> None:
        read_request(connection)
        connection.sendall(OK)

    connections = Connections()
    with server(once) as (url, came):
        for _ in range(3):
            assert connections.post(url, b"{}", {}, 5).body == b"hi"
            time.sleep(0.05)
    assert len(came) == 3


def test_a_reply_in_chunks_and_one_that_ends_with_the_connection_are_read_whole() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    with server(always(chunked)) as (url, came):
        connections = Connections()
        assert [connections.post(url, b"{}", {}, 5).body for _ in range(2)] == [b"abcde", b"abcde"]
        assert len(came) == 1

    def closes(connection: socket.socket, number: int) -> None:
        read_request(connection)
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nto the end")

    with server(closes) as (url, _):
        assert Connections().post(url, b"{}", {}, 5).body == b"to the end"


@pytest.mark.parametrize(("sent", "cause"), [
    (b"", "connection_lost"), (b"nonsense\r\n\r\n", "connection_lost"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nhalf", "truncated"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf", "truncated"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", "truncated"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "truncated")])
def test_an_answer_that_ends_too_early_is_told_from_one_that_never_began(sent: bytes, cause: str) -> None:
    def breaks_off(connection: socket.socket, number: int) -> None:
        read_request(connection)
        connection.sendall(sent)

    with server(breaks_off) as (url, _), pytest.raises(TransferFault) as raised:
        Connections().post(url, b"{}", {}, 5)
    assert raised.value.cause == cause
    assert raised.value.__cause__ is None       # the library's exception may hold what was received


@pytest.mark.parametrize("first", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"])
def test_the_time_limit_holds_for_the_whole_reply_however_slowly_it_drips(first: bytes) -> None:
    def drips(connection: socket.socket, number: int) -> None:
        read_request(connection)
        connection.sendall(first)
        for _ in range(100):
            time.sleep(0.05)
            if first:
                connection.sendall(b"x")

    started = time.monotonic()
    with server(drips) as (url, _), pytest.raises(TransferFault) as raised:
        Connections().post(url, b"{}", {}, 0.4)
    assert raised.value.cause == "timed_out"
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/v1", "http://no-such-host.invalid/v1", "https://127.0.0.1:9/v1"])
def test_where_no_connection_can_be_made_nothing_was_sent(url: str) -> None:
    with pytest.raises(TransferFault) as raised:
        Connections().post(url, b"{}", {}, 5)
    assert raised.value.cause == "unreachable"


def test_a_redirect_is_a_reply_and_is_not_followed() -> None:
    with server(always(b"HTTP/1.1 307 Go\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n")) as (url, _):
        assert Connections().post(url, b"{}", {}, 5).status == 307


def test_a_proxy_of_the_environment_is_used_and_no_proxy_is_kept_to(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[bytes] = []

    def proxy(connection: socket.socket, number: int) -> None:
        while request := read_request(connection):
            lines.append(request.split(b"\r\n")[0])
            connection.sendall(OK)

    with server(proxy) as (proxy_url, _), server(always(OK.replace(b"hi", b"me"))) as (url, _):
        monkeypatch.setenv("http_proxy", proxy_url.removesuffix("/v1/x?y=1"))
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        assert Connections().post("http://far.invalid/v1/chat", b"{}", {}, 5).body == b"hi"
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert Connections().post(url, b"{}", {}, 5).body == b"me"
    assert lines == [b"POST http://far.invalid/v1/chat HTTP/1.1"]


def test_a_key_comes_from_its_variable_or_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", " k-1 \n")
    assert api_key("SOME_KEY") == "k-1"
    monkeypatch.setenv("SOME_KEY", "")
    assert api_key("SOME_KEY") is None
    assert api_key(None) is None
    monkeypatch.setenv("SOME_KEY", "ключ")
    with pytest.raises(ModelError, match="SOME_KEY: holds characters that no key has"):
        api_key("SOME_KEY")
