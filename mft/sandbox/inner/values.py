"""Plain values as JSON text and back, with Python's types kept apart: what may cross between a solution and its tests.

Exact types cross: None, bool, int, float (nan, infinities, -0.0), complex, str (lone surrogates too), bytes, bytearray, list, tuple, set,
frozenset, dict and its views, range, slice, Ellipsis; deque, Counter, defaultdict, OrderedDict; Decimal, Fraction, date, time, datetime,
timedelta; numpy's scalars and arrays of numbers; builtin classes by name. An instance of a subclass crosses as its plain base, so a class
of one's own with an `==` of its own is worth nothing on the other side. Anything else is for `export`, which may hand out a reference.

    >>> encode([1, (2.5, "x"), {3}])
    '["l",1,["t",2.5,"x"],["s",3]]'
    >>> decode(encode({"a": [1j, b"x"]}))
    {'a': [1j, b'x']}

Two mentions of one list stay one list (`["k", n]`: the n-th changeable value of the conversation so far), and a list may hold itself.
"""

import base64
import builtins
import collections
import datetime
import decimal
import fractions
import sys
from collections.abc import Callable
from json import dumps, loads
from typing import Any, Final

SMALL_INT = 1 << 53
"""Larger ones cross in base 16, which has no limit of digits."""

MUTABLE: Final = (list, dict, set, bytearray, collections.deque)

FACTORIES: Final = {"int": int, "list": list, "set": set, "dict": dict, "str": str, "float": float, "tuple": tuple, "bool": bool}

FACTORY_NAMES: Final = {factory: name for name, factory in FACTORIES.items()}

BUILTIN_CLASSES: Final = {id(kind): name for name, kind in vars(builtins).items() if isinstance(kind, type) and not name.startswith("_")}
"""By identity, so that no `==` is asked."""

MALFORMED: Final = (ValueError, TypeError, KeyError, IndexError, ArithmeticError, AttributeError, ImportError, RecursionError, MemoryError)
"""What making a value of a bad text can raise."""

NUMPY_KINDS: Final = "biufc"
"""Numbers: an array of objects or text has no place here."""


class NotPlain(ValueError):
    """A value that cannot cross, by the name of its class; or text that is no value."""


def encode(value: Any, *, numbers: dict[int, int] | None = None, export: Callable[[Any], list[Any]] | None = None) -> str:
    """One value as text. `numbers`: id of each changeable value met so far -> its number; grows."""
    return dumps(Encoder({} if numbers is None else numbers, export).tree(value), separators=(",", ":"))


def decode(text: str | bytes, *, objects: list[Any] | None = None, resolve: Callable[[list[Any]], Any] | None = None) -> Any:
    """The value of a text. `objects`: the changeable values met so far; grows.

    Raises:
        NotPlain: it is none.
    """
    try:
        return Decoder([] if objects is None else objects, resolve).value(loads(text))
    except NotPlain:
        raise
    except MALFORMED as error:
        raise NotPlain(f"no plain value: {type(error).__name__}: {error}") from None


class Encoder:
    """Values to trees of lists, ready for JSON."""

    def __init__(self, numbers: dict[int, int], export: Callable[[Any], list[Any]] | None = None) -> None:
        self.numbers = numbers
        self.export = export
        self.alive: list[Any] = []
        """Keeps what has a number from being freed, so that its id stays its own."""

    def tree(self, value: Any) -> Any:
        kind = type(value)
        if value is None or kind is bool or kind is str or kind is float:
            return value
        if kind is int:
            return value if -SMALL_INT < value < SMALL_INT else ["i", hex(value)]
        if isinstance(value, MUTABLE):
            return self._changeable(value)
        return self.content(value)

    def _changeable(self, value: Any) -> Any:
        number = self.numbers.get(id(value))
        if number is not None:
            return ["k", number]
        self.numbers[id(value)] = len(self.numbers)
        self.alive.append(value)
        return self.content(value)

    def content(self, value: Any) -> Any:
        """The tree of a value itself, even where it has a number."""
        if type(value).__module__ == "numpy" and (tree := _numpy_tree(value)) is not None:
            return tree
        for classes, make in _ENCODERS:
            if isinstance(value, classes):
                return make(self, value)
        if id(value) in BUILTIN_CLASSES:
            return ["T", BUILTIN_CLASSES[id(value)]]
        if self.export is None:
            raise NotPlain(f"{type(value).__name__} is no plain value")
        return self.export(value)

    def many(self, tag: str, values: Any) -> list[Any]:
        return [tag, *map(self.tree, values)]

    def pairs(self, tag: str, items: Any) -> list[Any]:
        tree: list[Any] = [tag]
        for key, item in items:
            tree += [self.tree(key), self.tree(item)]
        return tree


def _text(data: bytes) -> str:
    return base64.b85encode(data).decode()


_ENCODERS: Final[list[tuple[Any, Callable[[Encoder, Any], Any]]]] = [
    (list, lambda e, v: e.many("l", list.__iter__(v))),
    (tuple, lambda e, v: e.many("t", tuple.__iter__(v))),
    (collections.Counter, lambda e, v: e.pairs("C", dict.items(v))),
    (collections.defaultdict, lambda e, v: [*e.pairs("D", dict.items(v)), FACTORY_NAMES.get(v.default_factory)]),
    (collections.OrderedDict, lambda e, v: e.pairs("O", collections.OrderedDict.items(v))),
    (dict, lambda e, v: e.pairs("d", dict.items(v))),
    (set, lambda e, v: e.many("s", set.__iter__(v))),
    (frozenset, lambda e, v: e.many("f", frozenset.__iter__(v))),
    (str, lambda e, v: str.__add__(v, "")),
    (int, lambda e, v: e.tree(int.__add__(v, 0))),
    (bytes, lambda e, v: ["b", _text(bytes.__add__(v, b""))]),
    (bytearray, lambda e, v: ["B", _text(bytes(memoryview(v)))]),
    (float, lambda e, v: float.__pos__(v)),
    (complex, lambda e, v: ["c", complex.__pos__(v).real, complex.__pos__(v).imag]),
    (collections.deque, lambda e, v: [*e.many("q", collections.deque.__iter__(v)), v.maxlen]),
    (range, lambda e, v: ["r", e.tree(v.start), e.tree(v.stop), e.tree(v.step)]),
    (slice, lambda e, v: ["S", e.tree(v.start), e.tree(v.stop), e.tree(v.step)]),
    (type(...), lambda e, v: ["E"]),
    (type(NotImplemented), lambda e, v: ["N"]),
    (type({}.keys()), lambda e, v: e.many("vk", v)),
    (type({}.values()), lambda e, v: e.many("vv", v)),
    (type({}.items()), lambda e, v: e.many("vi", v)),
    (decimal.Decimal, lambda e, v: ["x", "Decimal", decimal.Decimal.__str__(v)]),
    (fractions.Fraction, lambda e, v: ["x", "Fraction", hex(v.numerator), hex(v.denominator)]),
    (datetime.datetime, lambda e, v: ["x", "datetime", datetime.datetime.isoformat(v)]),
    (datetime.date, lambda e, v: ["x", "date", datetime.date.isoformat(v)]),
    (datetime.time, lambda e, v: ["x", "time", datetime.time.isoformat(v)]),
    (datetime.timedelta, lambda e, v: ["x", "timedelta", v.days, v.seconds, v.microseconds]),
]
"""In this order, subclasses before their bases. An instance of a subclass is read with the base's own methods."""


def _numpy_tree(value: Any) -> Any:
    """Scalars and arrays of numbers; None for anything else, or where numpy was not imported."""
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, (numpy.generic, numpy.ndarray)) or value.dtype.kind not in NUMPY_KINDS:
        return None
    array = numpy.asarray(value)
    data = _text(numpy.ascontiguousarray(array).tobytes())
    return ["n" if isinstance(value, numpy.generic) else "a", array.dtype.str, list(array.shape), data]


class Decoder:
    """Trees to values. The text may come from an enemy: only these types are ever made, and nothing is called by name."""

    def __init__(self, objects: list[Any], resolve: Callable[[list[Any]], Any] | None = None) -> None:
        self.objects = objects
        self.resolve = resolve

    def value(self, tree: Any) -> Any:
        if not isinstance(tree, list):
            if isinstance(tree, dict):
                raise NotPlain("no plain value: an object of JSON")
            return tree
        tag, parts = tree[0], tree[1:]
        make = _DECODERS.get(tag)
        if make is not None:
            return make(self, parts)
        if tag in ("h", "m") and self.resolve is not None:
            return self.resolve(tree)
        raise NotPlain(f"no plain value: tag {str(tag)[:20]!r}")

    def refill(self, number: int, tree: Any) -> None:
        """Give the n-th changeable value the content of this tree, in place."""
        target = self.objects[number]
        content = _Unnumbered(self).value(tree)
        if isinstance(target, list):
            target[:] = content
        elif isinstance(target, bytearray):
            target[:] = bytes(content)
        elif isinstance(target, collections.deque):
            target.clear()
            target.extend(content)
        else:
            target.clear()
            target.update(content)

    def new(self, empty: Any) -> Any:
        self.objects.append(empty)
        return empty

    def make_list(self, parts: list[Any]) -> Any:
        made = self.new([])
        made.extend(map(self.value, parts))
        return made

    def make_mapping(self, made: Any, parts: list[Any]) -> Any:
        self.new(made)
        for position in range(0, len(parts), 2):
            made[self.value(parts[position])] = self.value(parts[position + 1])
        return made

    def make_set(self, parts: list[Any]) -> Any:
        made = self.new(set())
        made.update(map(self.value, parts))
        return made

    def make_deque(self, parts: list[Any]) -> Any:
        made = self.new(collections.deque(maxlen=parts[-1]))
        made.extend(map(self.value, parts[:-1]))
        return made

    def known(self, parts: list[Any]) -> Any:
        number = parts[0]
        if type(number) is not int or not 0 <= number < len(self.objects):
            raise NotPlain("no plain value: a reference to nothing")
        return self.objects[number]


class _Unnumbered(Decoder):
    """Makes one value without a number of its own: the content for a value that has one. What is in it is numbered as ever."""

    def __init__(self, outer: Decoder) -> None:
        super().__init__(outer.objects, outer.resolve)
        self.outer = outer
        self.first = True

    def new(self, empty: Any) -> Any:
        if not self.first:
            return super().new(empty)
        self.first = False
        return empty


def _data(text: Any) -> bytes:
    return base64.b85decode(text.encode("ascii"))


def _view(kind: str, values: list[Any]) -> Any:
    if kind == "vk":
        return dict.fromkeys(values).keys()
    return dict(values).items() if kind == "vi" else dict(enumerate(values)).values()


def _stdlib_value(name: str, parts: list[Any]) -> Any:
    if name == "Decimal":
        return decimal.Decimal(parts[0])
    if name == "Fraction":
        return fractions.Fraction(int(parts[0], 16), int(parts[1], 16))
    if name == "timedelta":
        return datetime.timedelta(*parts)
    if name == "datetime":
        return datetime.datetime.fromisoformat(parts[0])
    return datetime.date.fromisoformat(parts[0]) if name == "date" else datetime.time.fromisoformat(parts[0])


def _numpy_value(parts: list[Any], *, scalar: bool) -> Any:
    import numpy

    dtype = numpy.dtype(parts[0])
    if dtype.kind not in NUMPY_KINDS:
        raise NotPlain("no plain value: an array of objects")
    array = numpy.frombuffer(_data(parts[2]), dtype).reshape(parts[1])
    return array[()] if scalar else array.copy()


def _builtin_class(name: str) -> Any:
    if name not in BUILTIN_CLASSES.values():
        raise NotPlain("no plain value: no builtin class")
    return getattr(builtins, name)


_DECODERS: Final[dict[str, Callable[[Decoder, list[Any]], Any]]] = {
    "l": Decoder.make_list, "s": Decoder.make_set, "q": Decoder.make_deque, "k": Decoder.known,
    "t": lambda d, p: tuple(map(d.value, p)),
    "f": lambda d, p: frozenset(map(d.value, p)),
    "d": lambda d, p: d.make_mapping({}, p),
    "C": lambda d, p: d.make_mapping(collections.Counter(), p),
    "O": lambda d, p: d.make_mapping(collections.OrderedDict(), p),
    "D": lambda d, p: d.make_mapping(collections.defaultdict(FACTORIES.get(p[-1])), p[:-1]),
    "i": lambda d, p: int(p[0], 16),
    "b": lambda d, p: _data(p[0]),
    "B": lambda d, p: d.new(bytearray(_data(p[0]))),
    "c": lambda d, p: complex(p[0], p[1]),
    "r": lambda d, p: range(*map(d.value, p)),
    "S": lambda d, p: slice(*map(d.value, p)),
    "E": lambda d, p: ...,
    "N": lambda d, p: NotImplemented,
    "vk": lambda d, p: _view("vk", [d.value(x) for x in p]),
    "vv": lambda d, p: _view("vv", [d.value(x) for x in p]),
    "vi": lambda d, p: _view("vi", [d.value(x) for x in p]),
    "x": lambda d, p: _stdlib_value(p[0], p[1:]),
    "n": lambda d, p: _numpy_value(p, scalar=True),
    "a": lambda d, p: _numpy_value(p, scalar=False),
    "T": lambda d, p: _builtin_class(p[0]),
}
