"""`key.sub=value` from the command line, put over a parsed YAML file."""

from difflib import get_close_matches
from typing import Any

from mft.config.yaml import Document, KeyPath, parse_yaml
from mft.errors import ConfigError


def apply_override(document: Document, text: str) -> str | None:
    """Put one `a.b.c=value` over the document; the value is read as YAML. Returns what is wrong with it, or None.

    A list item is named by its index or by its `name`; keys that the file lacks are made (whether they are known is the
    model's to say).
    """
    key, sign, value = text.partition("=")
    steps = key.strip().split(".")
    if not sign or not all(steps):
        return f"override '{text}': expected key.sub=value"
    try:
        parsed = parse_yaml(value, "value").data
    except ConfigError as error:
        return f"override '{text}': {error.problems[0].removeprefix('value:1: ')}"
    node, path = document.data, tuple[str | int, ...]()
    for step in steps[:-1]:
        place, problem = _place(node, step, path)
        if place is None:
            return f"override '{text}': {problem}"
        if isinstance(node, dict) and node.get(place) is None:
            node[place] = {}
        node, path = node[place], (*path, place)
    place, problem = _place(node, steps[-1], path)
    if place is None:
        return f"override '{text}': {problem}"
    node[place] = parsed
    document.overrides[(*path, place)] = text
    return None


def _place(node: Any, step: str, path: KeyPath) -> tuple[str | int | None, str]:
    """(key or index of `step` in `node`, what is wrong if there is none)."""
    name = ".".join(map(str, path))
    if isinstance(node, dict):
        return step, ""
    if not isinstance(node, list):
        return None, f"{name} is {node!r} and has no key '{step}'"
    if step.isdecimal() and int(step) < len(node):
        return int(step), ""
    names = [str(item.get("name", index)) if isinstance(item, dict) else str(index) for index, item in enumerate(node)]
    if step in names:
        return names.index(step), ""
    close = get_close_matches(step, names, n=1)
    hint = f"did you mean '{close[0]}'?" if close else f"allowed: {', '.join(names) or 'nothing, the list is empty'}"
    return None, f"{name} has no item '{step}'; {hint}"
