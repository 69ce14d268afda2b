"""Calls across a socket look to the caller as if they were made at home, as far as plain values go."""

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from mft.sandbox.inner.peer import Channel, Gone, HandedOver, Peer, SolutionExit


class Node:
    def __init__(self, value: int) -> None:
        self.value = value
        self.next: Node | None = None

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = object.__hash__


class OwnError(KeyError):
    pass


def sort_in_place(items: list[int]) -> None:
    items.sort()


def rewrite(table: dict[str, list[int]], seen: set[int], data: bytearray) -> list[int]:
    table["b"] = table.pop("a")
    table["b"].append(9)
    seen.clear()
    data[:] = b"new"
    return table["b"]


def leave() -> None:
    raise SystemExit(0)


def own_error() -> None:
    raise OwnError("missing")


def countdown(n: int) -> Iterator[int]:
    while n:
        yield n
        n -= 1


def length(node: Node | None) -> int:
    return 0 if node is None else 1 + length(node.next)


NAMES = {function.__name__: function for function in (sort_in_place, rewrite, leave, own_error, countdown, length)} | {
    "Node": Node, "same": lambda x: x, "apply": lambda f, x: f(x), "adder": lambda n: lambda x: x + n, "keywords": lambda **named: named}


@pytest.fixture
def peer() -> Iterator[Peer]:
    ours, theirs = socket.socketpair()
    server = threading.Thread(target=Peer(Channel(theirs), NAMES, open_objects=True).serve)
    server.start()
    yield Peer(Channel(ours), open_objects=False)
    ours.close()
    server.join(5)
    theirs.close()


def call(peer: Peer, name: str, *arguments: Any, **keywords: Any) -> Any:
    return peer.ask(["call", name], arguments, keywords)


def test_a_change_of_an_argument_is_seen_by_the_caller(peer: Peer):
    items = [3, 1, 2]
    assert call(peer, "sort_in_place", items) is None
    assert items == [1, 2, 3]
    inner = [1]
    table, seen, data = {"a": inner}, {1, 2}, bytearray(b"old")
    result = call(peer, "rewrite", table, seen, data)
    assert table == {"b": [1, 9]}
    assert table["b"] is inner
    assert result is inner
    assert seen == set()
    assert data == b"new"


def test_the_same_list_comes_back_as_the_same_list(peer: Peer):
    items = [1, [2]]
    assert call(peer, "same", items) is items


def test_keywords_cross(peer: Peer):
    assert call(peer, "keywords", a=1, b=[2]) == {"a": 1, "b": [2]}


def test_an_exception_crosses_as_the_builtin_class_it_comes_from(peer: Peer):
    with pytest.raises(KeyError) as caught:
        call(peer, "own_error")
    assert type(caught.value).__name__ == "OwnError"
    assert caught.value.args == ("missing",)
    assert caught.value.from_solution  # type: ignore[attr-defined]
    with pytest.raises(NameError, match="name 'nothing' is not defined"):
        call(peer, "nothing")


def test_an_exit_is_none_that_a_test_could_catch_as_an_exception(peer: Peer):
    with pytest.raises(SolutionExit, match="SystemExit: 0"):
        call(peer, "leave")
    assert not issubclass(SolutionExit, Exception)


def test_generators_functions_and_objects_stay_where_they_are_and_can_be_used(peer: Peer):
    assert list(call(peer, "countdown", 3)) == [3, 2, 1]
    assert call(peer, "adder", 2)(5) == 7
    first, second = call(peer, "Node", 1), call(peer, "Node", 2)
    first.next = second
    assert call(peer, "length", first) == 2
    assert first.value == 1
    assert first.next is second


def test_an_object_is_equal_to_itself_alone_whatever_its_class_says(peer: Peer):
    node = call(peer, "Node", 1)
    assert node != 1
    assert node != call(peer, "Node", 1)
    assert node == node


def test_a_function_of_the_tests_is_called_back(peer: Peer):
    assert call(peer, "apply", lambda x: x * 2, 21) == 42


def test_an_object_of_the_tests_is_refused_by_name(peer: Peer):
    with pytest.raises(HandedOver, match="a test hands over an object of class Node"):
        call(peer, "same", Node(1))


def test_the_tests_side_answers_calls_of_what_it_gave_away_and_nothing_else():
    ours, theirs = socket.socketpair()
    tests, enemy = Peer(Channel(ours), {"secret": lambda: 1}, open_objects=False), Channel(theirs)
    handle = tests._give(lambda: 7)[1]
    asked = [["get", handle, "__globals__"], ["call", 5], ["call", "eval"], ["iter", handle], ["set", handle, "x"],
             ["no such verb", handle]]
    answers = []
    for message in asked:
        tests_thread = threading.Thread(target=lambda: tests._answer(tests.channel.receive()))
        tests_thread.start()
        enemy.send([*message, [], {}])
        answers.append(enemy.receive()[0])
        tests_thread.join(5)
    assert answers == ["raise"] * len(asked)
    ours.close()
    theirs.close()


@pytest.mark.parametrize("bytes_sent", [b"\xff\xff\xff\xff", b"\x02\0\0\0[]", b"\x01\0\0\0x", b'\x0d\0\0\0["return",1,2',
                                        b'\x12\0\0\0["raise",[1,2],[]]', b'\x10\0\0\0["return",["k"]]'])
def test_garbage_from_the_solution_is_an_error_of_ours(bytes_sent: bytes):
    ours, theirs = socket.socketpair()
    theirs.sendall(bytes_sent)
    with pytest.raises((ValueError, Gone)):
        Peer(Channel(ours), open_objects=False).ask(["call", "f"])
    ours.close()
    theirs.close()


def test_a_closed_connection_is_told():
    ours, theirs = socket.socketpair()
    theirs.close()
    with pytest.raises(Gone):
        Peer(Channel(ours), open_objects=False).ask(["call", "f"])
    ours.close()
