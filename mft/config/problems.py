"""pydantic's errors as sentences about the file: line, key, what is allowed, what was found, the likely spelling."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError

from mft.config.yaml import Document, KeyPath

TAGS = ("kind", "type", "benchmark")
"""The keys that say which model of a tagged union an entry is."""

LONGEST = 80
"""Characters of a value that a message repeats."""

EXPECTED = {
    "int_type": "a whole number", "int_parsing": "a whole number", "int_from_float": "a whole number",
    "int_parsing_size": "a whole number", "float_type": "a number", "float_parsing": "a number", "finite_number": "a finite number",
    "bool_type": "true or false", "bool_parsing": "true or false", "string_type": "text", "path_type": "a path",
    "list_type": "a list", "tuple_type": "a list", "set_type": "a list", "dict_type": "keys and values",
    "model_type": "keys and values", "model_attributes_type": "keys and values",
    "greater_than": "more than {gt}", "greater_than_equal": "at least {ge}", "less_than": "less than {lt}",
    "less_than_equal": "at most {le}", "multiple_of": "a multiple of {multiple_of}", "literal_error": "{expected}",
    "enum": "{expected}", "string_pattern_mismatch": "text that matches {pattern}",
    "string_too_short": "text of length {min_length} or more", "string_too_long": "text of length {max_length} or less",
    "too_short": "{min_length} or more entries", "too_long": "{max_length} or fewer entries",
}
"""Type of a pydantic error -> what was expected, with the names of its context."""


@dataclass(slots=True)
class _Fault:
    """One mistake. `expected` is a phrase, or None where `sentence` says all; `value` is what was found."""

    key: KeyPath
    sentence: str = ""
    expected: str | None = None
    value: Any = None


def describe(error: ValidationError, document: Document, model: type[BaseModel]) -> list[str]:
    """One line for each mistake, in the order of the file."""
    faults = _merged([_fault(details, document, model) for details in error.errors(include_url=False)])
    lines = []
    for fault in sorted(faults, key=lambda fault: document.line(fault.key)):
        name = _readable(document.data, fault.key)
        sentence = fault.sentence if fault.expected is None else f"expected {fault.expected}, found {found(fault.value)}"
        if fault.expected is not None:
            sentence += did_you_mean(fault.value, fault.expected.split("'")[1::2])
        lines.append(": ".join(part for part in (document.where(fault.key), name, sentence) if part))
    return lines


def found(value: Any) -> str:
    """A value as a message repeats it."""
    if value is None or value == {}:
        return "nothing"
    if isinstance(value, list | dict):
        return ("a list" if value else "an empty list") if isinstance(value, list) else "keys and values"
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _fault(details: Any, document: Document, model: type[BaseModel]) -> _Fault:
    kind = details["type"]
    context: dict[str, Any] = {name: int(value) if isinstance(value, float) and value.is_integer() else value
                               for name, value in details.get("ctx", {}).items()}
    key = _key(document.data, details["loc"], kind)
    if kind == "extra_forbidden":
        known = _siblings(model, details["loc"])
        hint = did_you_mean(key[-1], known) or (f"; allowed: {', '.join(known)}" if known else "")
        return _Fault(key, f"not a known key{hint}")
    if kind == "missing":
        return _Fault(key, "is required and not given")
    if kind == "union_tag_not_found":
        return _Fault((*key, context["discriminator"].strip("'")), "is required and not given")
    if kind == "union_tag_invalid":
        return _Fault((*key, context["discriminator"].strip("'")),
                      expected=" or ".join(context["expected_tags"].split(", ")), value=context["tag"])
    if kind in ("value_error", "assertion_error"):
        return _Fault(key, str(context["error"]))
    if kind in EXPECTED:
        return _Fault(key, expected=EXPECTED[kind].format(**context), value=details["input"])
    return _Fault(key, f"{details['msg'][0].lower()}{details['msg'][1:]}, found {found(details['input'])}")


def _merged(faults: list[_Fault]) -> list[_Fault]:
    """Where a value may be one of several types, pydantic complains once for each: make that one mistake.

    A complaint about the whole of a value (`expected text`) goes where another says what is wrong inside it.
    """
    out: dict[tuple[KeyPath, object], _Fault] = {}
    for number, fault in enumerate(faults):
        if fault.expected is None:
            out[fault.key, number] = fault
        elif any(len(other.key) > len(fault.key) and other.key[:len(fault.key)] == fault.key for other in faults):
            continue
        elif (fault.key, "expected") in out:
            first = out[fault.key, "expected"]
            if fault.expected != first.expected:
                first.expected = f"{first.expected} or {fault.expected}"
        else:
            out[fault.key, "expected"] = fault
    return list(out.values())


def did_you_mean(value: Any, known: Sequence[str]) -> str:
    """A hint at the likely spelling, or nothing."""
    close = get_close_matches(str(value), known, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def _key(data: Any, location: KeyPath, kind: str) -> KeyPath:
    """Where in the file pydantic's location is: without the union tags and type names that it has as steps of its own."""
    out: list[str | int] = []
    tag_seen = False
    for index, step in enumerate(location):
        if isinstance(data, dict):
            if not tag_seen and step in [data.get(tag) for tag in TAGS]:
                tag_seen = True
                continue
            absent = step not in data
            if absent and not (kind == "missing" and index == len(location) - 1):
                continue
            data = data.get(step)
        elif isinstance(data, list) and isinstance(step, int) and step < len(data):
            data = data[step]
        else:
            continue
        out.append(step)
        tag_seen = False
    return tuple(out)


def _readable(data: Any, key: KeyPath) -> str:
    """`stages.train.training.epochs`: a list item by its name where it has one, as in an override."""
    words = []
    for step in key:
        if isinstance(data, list) and isinstance(step, int):
            data = data[step]
            words.append(data["name"] if isinstance(data, dict) and isinstance(data.get("name"), str) else str(step))
        else:
            data = data.get(step) if isinstance(data, dict) else None
            words.append(str(step))
    return ".".join(words)


def _siblings(model: type[BaseModel], location: KeyPath) -> list[str]:
    """The keys that were allowed where an unknown key stands, found by walking the model's JSON schema."""
    schema = model.model_json_schema()
    nodes = [schema]
    for step in location[:-1]:
        nodes = list(_below(nodes, step, schema.get("$defs", {}))) or nodes
    return sorted({key for node in _resolved(nodes, schema.get("$defs", {})) for key in node.get("properties", {})})


def _below(nodes: list[dict[str, Any]], step: str | int, definitions: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The schemas one step down: the branch that a union tag names, the items of a list, the value of a key."""
    resolved = list(_resolved(nodes, definitions))
    tagged = [node for node in resolved if len(resolved) > 1 and any(
        step in (tag := node.get("properties", {}).get(name, {})).get("enum", [tag.get("const")]) for name in TAGS)]
    if tagged:
        yield from tagged
        return
    for node in resolved:
        if isinstance(step, int) and "items" in node:
            yield node["items"]
        elif step in node.get("properties", {}):
            yield node["properties"][step]
        elif isinstance(node.get("additionalProperties"), dict):
            yield node["additionalProperties"]


def _resolved(nodes: list[dict[str, Any]], definitions: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Follow `$ref`, `anyOf` and `oneOf` until each node is an object, a list or a plain value."""
    queue = list(nodes)
    while queue:
        node = queue.pop()
        if "$ref" in node:
            queue.append(definitions[node["$ref"].rsplit("/", 1)[1]])
        elif "anyOf" in node or "oneOf" in node:
            queue += node.get("anyOf", []) + node.get("oneOf", [])
        else:
            yield node
