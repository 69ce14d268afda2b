"""HumanEval+ and MBPP+ in evalplus' layout: inputs and a reference solution in place of assertions.

A row has `prompt`, `entry_point`, `canonical_solution`, `contract`, `base_input`, `plus_input`, `atol`. What a solution must return for an
input is what the reference returns, so the tests made here call both, in the trusted process, and compare. `contract` (assertions on
inputs) says which inputs are legal; the file's inputs are, so it is kept out of the reference.

Rules of the comparison, from evalplus' `eval/__init__.py` and `data/mbpp.py` (evalplus/evalplus@1bd5f4c):
equal values pass; else floats, or where `atol` is not 0, values within `atol + 1e-7 * |expected|` (numpy's `assert_allclose`), 1e-6 being
taken for an `atol` of 0; `find_zero` (HumanEval/32) must give a root to within `atol`; an answer to `are_equivalent` (MBPP) may also be
always True, one to `sum_div` always 0.
"""

import pprint
from collections.abc import Mapping, Sequence
from typing import Any, Final

from mft.errors import DataError
from mft.problems.problem import Problem

KEYS: Final = ("task_id", "prompt", "entry_point", "canonical_solution", "base_input", "plus_input")

TUPLES: Final[Mapping[str, frozenset[int]]] = {
    "argument": frozenset({2, 116, 132, 143, 222, 261, 273, 394, 399, 421, 424, 429, 470, 560, 579, 596, 616, 630, 726, 740, 744, 809}),
    "items": frozenset({63, 64, 70, 94, 120, 237, 272, 299, 400, 409, 417, 438, 473, 614, 780}),
    "first_items": frozenset({75, 413, 444, 753}),
    "second": frozenset({106, 750}),
    "first": frozenset({250, 405, 446, 617, 720, 763, 808, 307}),
    "nested": frozenset({259, 401, 445}),
    "mixed": frozenset({278}),
    "all": frozenset({580, 615, 791}),
}
"""MBPP problems whose inputs JSON wrote as lists where the problem wants tuples, by where they stand (evalplus `data/mbpp.py`)."""

CHECK: Final = '''\
import copy as _copy
import math as _math
_own = {{}}
exec({reference!r}, _own)
_reference = _own[{entry_point!r}]
_ATOL = {atol!r}
_SPECIAL = {special!r}


def _floats(value):
    if isinstance(value, float):
        return True
    return isinstance(value, (list, tuple)) and all(isinstance(item, float) for item in value)


def _close(out, expected, atol):
    if isinstance(expected, dict):
        return isinstance(out, dict) and out.keys() == expected.keys() and all(_close(out[key], expected[key], atol) for key in expected)
    if isinstance(expected, (list, tuple)):
        return (isinstance(out, (list, tuple)) and len(out) == len(expected)
                and all(_close(a, b, atol) for a, b in zip(out, expected)))
    if out == expected:
        return True
    try:
        if _math.isnan(out) and _math.isnan(expected):
            return True
        return abs(out - expected) <= atol + 1e-7 * abs(expected)
    except (TypeError, OverflowError):
        return False


def _same(out, expected, arguments):
    if _SPECIAL == "find_zero":
        return abs(sum(coefficient * out ** power for power, coefficient in enumerate(arguments[0]))) <= _ATOL
    if out == expected:
        return True
    atol = 1e-6 if _ATOL == 0 and _floats(expected) else _ATOL
    return atol != 0 and _close(out, expected, atol)


def _checker(inputs, earlier):
    def check(candidate):
        if earlier:
            earlier(candidate)
        always, wrong = True, []
        for arguments in inputs:
            expected = _reference(*_copy.deepcopy(arguments))
            out = candidate(*_copy.deepcopy(arguments))
            always = always and (out is True if _SPECIAL == "are_equivalent" else out == 0 if _SPECIAL == "sum_div" else False)
            if not _same(out, expected, arguments):
                wrong.append((arguments, expected, out))
                if not always:
                    break
        call, expected, found = ([repr(part)[:200] for part in wrong[0]] if wrong else ["", "", ""])
        assert not wrong or always, {entry_point!r} + "(*" + call + ") is " + found + ", expected " + expected
    return check


check = _checker({inputs}, globals().get("check"))
'''


def is_evalplus(record: Mapping[str, Any]) -> bool:
    """True of a row in evalplus' layout."""
    return "base_input" in record and "plus_input" in record


def evalplus_problem(record: Mapping[str, Any], benchmark: str, where: str) -> Problem:
    """The problem of one row; `tests` are made of `base_input`, `plus_tests` of `plus_input`.

    Raises:
        DataError: a key is missing, or is not of the type that the layout has.
    """
    for key in KEYS:
        expected = list if key.endswith("_input") else str
        if not isinstance(record.get(key), expected):
            found = type(record[key]).__name__ if key in record else "nothing"
            raise DataError(f"{where}: '{key}' is {found}; evalplus' layout has {'a list' if expected is list else 'text'} there")
    name = str(record["task_id"])
    mbpp = name.lower().startswith("mbpp")
    prompt, solution = str(record["prompt"]), str(record["canonical_solution"])
    atol = record.get("atol") or 0
    if isinstance(atol, bool) or not isinstance(atol, int | float):
        raise DataError(f"{where}: 'atol' is {type(atol).__name__}; expected a number")
    entry_point = str(record["entry_point"])
    reference = solution if mbpp else prompt + solution
    special = entry_point if (entry_point == "find_zero" and not mbpp) or (mbpp and entry_point in ("are_equivalent", "sum_div")) else ""

    def tests(key: str) -> tuple[str, ...]:
        inputs = [typed_arguments(name, arguments, where) for arguments in record[key]]
        return (CHECK.format(reference=reference, entry_point=entry_point, atol=atol, special=special,
                             inputs=pprint.pformat(inputs, compact=True, width=4000)),) if inputs else ()

    return Problem(id=name, benchmark=benchmark, language="python", style="instruction" if mbpp else "completion", prompt=prompt,
                   solution=solution, entry_point=entry_point, tests=tests("base_input"), plus_tests=tests("plus_input"))


def typed_arguments(name: str, arguments: Any, where: str) -> list[Any]:
    """The arguments of one call, with the tuples, sets and complex numbers that JSON could not write.

    >>> typed_arguments("Mbpp/2", [[3, 4], [5]], "file:1")
    [(3, 4), (5,)]
    """
    if not isinstance(arguments, list):
        raise DataError(f"{where}: an input is {type(arguments).__name__}; expected the list of a call's arguments")
    benchmark, _, number = name.rpartition("/")
    if benchmark.lower() != "mbpp" or not number.isdigit():
        return arguments
    return _mbpp_arguments(int(number), arguments)


def _mbpp_arguments(number: int, given: Sequence[Any]) -> list[Any]:
    rule = next((rule for rule, numbers in TUPLES.items() if number in numbers), None)
    if number == 115:
        return [[set(item) if isinstance(item, list) and item else {} for item in given[0]]]
    if number == 124:
        return [float(given[0]), complex(given[1])]
    if number == 252:
        return [complex(given[0])]
    if number == 722:
        return [{key: tuple(value) for key, value in given[0].items()}, *given[1:]]
    if rule == "argument":
        return [tuple(argument) for argument in given]
    if rule == "items":
        return [[tuple(item) for item in argument] for argument in given]
    if rule == "first_items":
        return [[tuple(item) for item in given[0]], *given[1:]]
    if rule == "second":
        return [given[0], tuple(given[1])]
    if rule == "first":
        return [tuple(given[0]), *given[1:]]
    if rule == "nested":
        return [tuple(tuple(item) for item in argument) for argument in given]
    if rule == "mixed":
        return [tuple(tuple(item) if isinstance(item, list) else item for item in given[0])]
    return [_all_tuples(argument) for argument in given] if rule == "all" else list(given)


def _all_tuples(value: Any) -> Any:
    return tuple(map(_all_tuples, value)) if isinstance(value, list) else value
