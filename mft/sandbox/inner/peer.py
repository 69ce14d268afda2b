"""Calls between a solution and its tests over a socket: one message a time each way, values as `values` writes them.

| message | answer |
|---|---|
| `["call", name or handle, arguments, {keyword: argument}]` | `["return", value, changes]` or `["raise", exception, changes]` |
| `["get", handle, name]`, `["set", handle, name, value]`, `["iter", handle]`, `["next", handle]` | the same |

`changes`: the arguments that the call altered (`["l", ...]` again, by number), so that a sort in place is seen by the caller. What is no
plain value stays where it is: the other side gets a handle, `["h", number, kind]`, and may hand it back, `["m", number]`. The side of the
tests answers calls of functions that the tests themselves gave away, and nothing else.
"""

import builtins
import socket
import struct
from collections.abc import Mapping, Sequence
from json import JSONEncoder, loads
from typing import Any

from .values import MALFORMED, Decoder, Encoder, NotPlain

MESSAGE_BYTES = 64 << 20
LENGTH = struct.Struct("<I")
WRITE = JSONEncoder(separators=(",", ":")).encode
TEXT = 300
"""Characters of an exception's message that cross."""


class Gone(Exception):
    """The other process is no more."""


class HandedOver(NotPlain):
    """A test gives the solution what can only be used in its own process."""


class SolutionExit(BaseException):
    """The solution raised what no test may catch: SystemExit, KeyboardInterrupt, GeneratorExit."""


class Channel:
    """Messages over a stream socket."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection

    def send(self, tree: Any) -> None:
        data = WRITE(tree).encode()
        if len(data) > MESSAGE_BYTES:
            raise NotPlain(f"a value of {len(data)} bytes as text; {MESSAGE_BYTES} may cross")
        try:
            self.connection.sendall(LENGTH.pack(len(data)) + data)
        except OSError:
            raise Gone from None

    def receive(self) -> Any:
        """Raises Gone, NotPlain."""
        length, = LENGTH.unpack(self._exactly(LENGTH.size))
        if length > MESSAGE_BYTES:
            raise NotPlain(f"a message of {length} bytes; {MESSAGE_BYTES} may cross")
        try:
            return loads(self._exactly(length))
        except (ValueError, RecursionError, MemoryError) as error:
            raise NotPlain(f"no message: {type(error).__name__}: {error}") from None

    def _exactly(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            try:
                piece = self.connection.recv(min(count - len(data), 1 << 20))
            except OSError:
                raise Gone from None
            if not piece:
                raise Gone
            data += piece
        return bytes(data)


class Remote:
    """An object of the other side. Equal to itself alone; only names without `__` are asked for."""

    __slots__ = ("_handle", "_peer")

    def __init__(self, peer: "Peer", handle: int | str) -> None:
        object.__setattr__(self, "_peer", peer)
        object.__setattr__(self, "_handle", handle)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._peer.ask(["get", self._handle, name])

    def __setattr__(self, name: str, value: Any) -> None:
        self._peer.ask(["set", self._handle, name], [value])


class RemoteCallable(Remote):
    """A function or class of the other side."""

    __slots__ = ()

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self._peer.ask(["call", self._handle], arguments, keywords)


class RemoteIterable(Remote):
    """Something of the other side that can be gone through."""

    __slots__ = ()

    def __iter__(self) -> Any:
        return self._peer.ask(["iter", self._handle])


class RemoteIterator(RemoteIterable):
    """A generator, `map`, `zip` and their like."""

    __slots__ = ()

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        return self._peer.ask(["next", self._handle])


KINDS: Mapping[str, type[Remote]] = {"object": Remote, "callable": RemoteCallable, "iterable": RemoteIterable, "iterator": RemoteIterator}


def _kind(value: Any) -> str:
    if hasattr(type(value), "__next__"):
        return "iterator"
    if callable(value):
        return "callable"
    return "iterable" if hasattr(type(value), "__iter__") else "object"


class Peer:
    """One end. `names`: what the other side may call by name; `open_objects`: it may ask objects that were given to it for more."""

    def __init__(self, channel: Channel, names: Mapping[str, Any] | None = None, *, open_objects: bool) -> None:
        self.channel = channel
        self.names = {} if names is None else names
        self.open_objects = open_objects
        self.given: list[Any] = []
        self.given_numbers: dict[int, int] = {}
        self.remotes: dict[int, Remote] = {}

    # -- asking

    def ask(self, message: list[Any], arguments: Sequence[Any] = (), keywords: Mapping[str, Any] | None = None) -> Any:
        """The other side's value, or its exception raised here."""
        encoder = Encoder({}, self._give)
        trees = [encoder.tree(argument) for argument in arguments]
        named = {name: encoder.tree(value) for name, value in (keywords or {}).items()}
        self.channel.send([*message, trees, named])
        while True:
            answer = self.channel.receive()
            if not isinstance(answer, list) or not answer:
                raise NotPlain("no message")
            if answer[0] not in ("return", "raise"):
                self._answer(answer)
                continue
            return self._outcome(answer, Decoder(list(encoder.alive), self._take))

    def _outcome(self, answer: list[Any], decoder: Decoder) -> Any:
        try:
            how, tree, changes = answer
            value = decoder.value(tree)
            for number, content in changes:
                decoder.known([number])
                decoder.refill(number, content)
        except NotPlain:
            raise
        except MALFORMED as error:
            raise NotPlain(f"no plain value: {type(error).__name__}: {error}") from None
        if how == "return":
            return value
        raise rebuilt(value)

    # -- answering

    def serve(self) -> None:
        """Answer until the other side is gone."""
        while True:
            try:
                self._answer(self.channel.receive())
            except Gone:
                return

    def _answer(self, message: list[Any]) -> None:
        decoder = Decoder([], self._take)
        objects: list[Any] = []
        before: list[Any] = []
        numbers: dict[int, int] = {}
        try:
            verb, target, *rest = message
            arguments = [decoder.value(tree) for tree in rest[-2]]
            keywords = {name: decoder.value(tree) for name, tree in rest[-1].items()}
            objects = list(decoder.objects)
            numbers = {id(value): number for number, value in enumerate(objects)}
            before = [Encoder(dict(numbers), self._give).content(value) for value in objects]
            how, value = "return", self._do(verb, self._target(target), rest[:-2], arguments, keywords)
        except BaseException as error:  # noqa: BLE001 - whatever it is goes to the side that asked
            how, value = "raise", described(error)
        encoder = Encoder(numbers, self._give)
        try:
            self.channel.send([how, encoder.tree(value), self._changes(objects, before, encoder)])
        except (NotPlain, RecursionError, MemoryError, ValueError) as error:
            self.channel.send(["raise", Encoder({}).tree(described(error)), []])

    def _changes(self, objects: list[Any], before: list[Any], encoder: Encoder) -> list[Any]:
        changes = []
        for number, value in enumerate(objects):
            if Encoder(dict(encoder.numbers), self._give).content(value) != before[number]:
                changes.append([number, encoder.content(value)])
        return changes

    def _target(self, target: Any) -> Any:
        if isinstance(target, str):
            if target not in self.names:
                raise NameError(f"name '{target}' is not defined")
            return self.names[target]
        return self.given[target]

    def _do(self, verb: str, target: Any, rest: list[Any], arguments: list[Any], keywords: dict[str, Any]) -> Any:
        if verb == "call" and (self.open_objects or callable(target)):
            return target(*arguments, **keywords)
        if not self.open_objects:
            raise NotPlain(f"the tests answer calls of their functions, not {verb!r}")
        if verb == "get":
            return getattr(target, rest[0])
        if verb == "set":
            return setattr(target, rest[0], arguments[0])
        return iter(target) if verb == "iter" else next(target)

    # -- what is no plain value

    def _give(self, value: Any) -> list[Any]:
        if isinstance(value, Remote) and value._peer is self:
            return ["m", value._handle]
        if not self.open_objects and not callable(value):
            raise HandedOver(f"a test hands over an object of class {type(value).__name__}")
        number = self.given_numbers.get(id(value))
        if number is None:
            number = self.given_numbers[id(value)] = len(self.given)
            self.given.append(value)
        return ["h", number, _kind(value)]

    def _take(self, tree: list[Any]) -> Any:
        tag, number = tree[0], tree[1]
        if tag == "m":
            return self._target(number)
        if number not in self.remotes:
            self.remotes[number] = KINDS[tree[2]](self, number)
        return self.remotes[number]


def described(error: BaseException) -> list[Any]:
    """An exception as plain values: its class, the nearest builtin class, its message."""
    base = next(kind for kind in type(error).__mro__ if getattr(builtins, kind.__name__, None) is kind)
    argument = error.args[0] if len(error.args) == 1 and type(error.args[0]) in (str, int, float, bool) else str(error)
    return [type(error).__name__, base.__name__, argument[:TEXT] if isinstance(argument, str) else argument]


def rebuilt(description: Any) -> BaseException:
    """The exception that a description tells of; `from_solution` marks it."""
    name, base_name, argument = description
    base = getattr(builtins, str(base_name), None)
    made: BaseException
    if not (isinstance(base, type) and issubclass(base, Exception)):
        made = SolutionExit(f"{name}: {argument}")
    else:
        kind: type[Exception] = base if name == base_name else type(str(name), (base,), {})
        made = kind.__new__(kind)
        made.args = (argument,)
    vars(made)["from_solution"] = True
    return made

