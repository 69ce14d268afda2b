"""Plain values cross unchanged, types apart; nothing else crosses."""

import collections
import datetime
import decimal
import fractions
import math

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mft.sandbox.inner.values import NotPlain, decode, encode

VALUES = [
    None, True, False, 0, -1, 1 << 52, 1 << 53, -(1 << 200), 10**5000, 0.0, 1.5, 1e300, float("inf"), -float("inf"),
    "", "x\n\0", "\ud800", "日本", 1j, complex(-0.0, 2), b"", b"\x00\xff", bytearray(b"ab"), [], [1, [2, ()]], (), (1,), ((), []), set(), {1, "a"}, frozenset({1, (2, 3)}),
    {}, {1: 2, (1, 2): [3], None: {}}, {True: 1}, range(3), range(0, 10, 2), ..., slice(1, None),
    collections.deque([1, 2], maxlen=5), collections.Counter("aab"), collections.defaultdict(list, {1: [2]}),
    collections.OrderedDict([(2, 1), (1, 2)]), decimal.Decimal("1.10"), fractions.Fraction(1, 3), datetime.date(2020, 2, 29),
    datetime.datetime(2020, 1, 2, 3, 4, 5, 6), datetime.time(1, 2), datetime.timedelta(days=-1, microseconds=5), int, ValueError,
    numpy.float64(1.5), numpy.int32(7), numpy.bool_(True), numpy.complex64(1j),
]


def same(left: object, right: object) -> bool:
    """Equal, and of the same types all the way down."""
    if type(left) is not type(right):
        return False
    if isinstance(left, (list, tuple, collections.deque)):
        return len(left) == len(right) and all(map(same, left, right))  # type: ignore[arg-type]
    if isinstance(left, dict):
        return list(map(repr, left)) == list(map(repr, right)) and all(map(same, left.values(), right.values()))  # type: ignore[attr-defined, call-overload]
    return repr(left) == repr(right) if isinstance(left, float) else left == right


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_plain_value_comes_back_as_it_went(value: object):
    assert same(decode(encode(value)), value)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary() | st.complex_numbers(),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text() | st.integers() | st.booleans(), inner),
    max_leaves=20)


@given(PLAIN)
def test_any_plain_value_comes_back_as_it_went(value: object):
    assert repr(decode(encode(value))) == repr(value)


def test_the_text_is_as_documented():
    assert encode([1, (2.5, "x"), {3}]) == '["l",1,["t",2.5,"x"],["s",3]]'
    assert encode({"a": None}) == '["d","a",null]'
    assert encode(math.nan) == "NaN"


def test_views_and_arrays_keep_what_makes_them_different():
    assert decode(encode({1: 2}.keys())) == {1}
    assert list(decode(encode({1: 2}.items()))) == [(1, 2)]
    assert list(decode(encode({1: 2}.values()))) == [2]
    array = decode(encode(numpy.arange(6, dtype=numpy.int16).reshape(2, 3)))
    assert array.dtype == numpy.int16
    assert array.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_one_list_twice_stays_one_list_and_a_list_may_hold_itself():
    shared: list[object] = [1]
    pair = decode(encode((shared, shared)))
    assert pair[0] is pair[1]
    shared.append(shared)
    again = decode(encode(shared))
    assert again[1] is again


def test_an_instance_of_a_subclass_crosses_as_its_plain_base():
    class Int(int):
        def __eq__(self, other: object) -> bool:
            return True
        __hash__ = int.__hash__

    class Text(str):
        def __eq__(self, other: object) -> bool:
            return True
        __hash__ = str.__hash__

    class Items(list):  # type: ignore[type-arg]
        def __eq__(self, other: object) -> bool:
            return True

    pair = collections.namedtuple("pair", "a b")
    crossed = decode(encode([Int(7), Text("x"), Items([1]), pair(1, 2)]))
    assert same(crossed, [7, "x", [1], (1, 2)])


NOT_PLAIN = [object(), lambda: 1, iter([]), (x for x in ()), math, type("Own", (), {}), len]


@pytest.mark.parametrize("value", NOT_PLAIN, ids=lambda value: type(value).__name__)
def test_nothing_else_crosses(value: object):
    with pytest.raises(NotPlain, match="no plain value"):
        encode(value)


@pytest.mark.parametrize("text", [
    "", "{", '{"a": 1}', '["zz"]', "[]", '["k", 0]', '["k", -1]', '["k", true]', '["h", 0, "callable"]', '["T", "eval"]',
    '["T", "__loader__"]', '["s", ["l"]]', '["i", "x"]', '["b", "\\u20ac"]', '["a", "O", [1], ""]', '["n", "<f8", [5], ""]', '["x", "eval", "1"]', '["d", 1]',
    '["q"]', "[" * 100000 + "]" * 100000, '["l",' * 50000 + "1" + "]" * 50000, "1" * 5000,
])
def test_a_text_that_is_no_value_is_refused_by_one_error(text: str):
    with pytest.raises(NotPlain):
        decode(text)
