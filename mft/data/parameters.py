"""Parameters of a recipe: a path is said once, and whoever builds the recipe may give another one.

    parameters: {tree: my-repository}                        # name -> the path where nobody gives one
    tasks:
      completion: {sources: [{type: code, path: "{tree}", make: completion}]}

`{tree}` stands for the value in the `path` of a source and in the problem files of a step; `{{` and `}}` are braces. They are filled
in before the recipe is checked, so all that follows (hashes, the manifest, `recipe.yaml`) knows the paths alone.
"""

import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from mft.config.yaml import Document, KeyPath

NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"
KEY = "parameters"
_BRACES = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def fill_parameters(document: Document, given: Mapping[str, str]) -> list[str]:
    """Put values in place of `{name}` in the paths of a recipe's document, and take its `parameters` away; returns what is wrong.

    `given`: values that stand above those of the recipe. A document that is no recipe is left to be refused by the model.
    """
    if not isinstance(document.data, dict) or not _well_formed(declared := document.data.get(KEY) or {}):
        return []
    values = {name: str(value) for name, value in declared.items()} | dict(given)
    problems: list[str] = []
    used: set[str] = set()

    def fill(text: str, key: KeyPath) -> str:
        where = f"{document.where(key)}: {'.'.join(map(str, key))}"

        def value_of(match: re.Match[str]) -> str:
            name = match[1]
            if match[0] in ("{{", "}}"):
                return match[0][0]
            if name is not None and name in values:
                used.add(name)
                return values[name]
            problems.append(f"{where}: {_unknown(name, match[0], values)}")
            return match[0]

        return _BRACES.sub(value_of, text)

    document.data = {name: value for name, value in _filled(document.data, fill).items() if name != KEY}
    for name in values.keys() - used:
        names = sorted(used)
        close = get_close_matches(name, names, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"parameters that are used: {', '.join(names) or 'none'}"
        where = f"{document.path}: {KEY}.{name} is given" if name in given else f"{document.where((KEY, name))}: {KEY}.{name}"
        problems.append(f"{where}: no path of the recipe holds {{{name}}}; {hint}")
    return problems


def holds_parameters(document: Document) -> bool:
    """True where `parameters` are still there: they are not as a recipe has them, and nothing was filled in."""
    return isinstance(document.data, dict) and KEY in document.data


def escaped(path: str) -> str:
    """A path as a recipe writes it, its braces doubled.

    >>> escaped("a{b}")
    'a{{b}}'
    """
    return path.replace("{", "{{").replace("}", "}}")


def _well_formed(declared: Any) -> bool:
    """Names and plain values; anything else is the model's to refuse."""
    return isinstance(declared, dict) and all(re.match(NAME, name) and isinstance(value, str | int | float) and str(value)
                                              for name, value in declared.items())


def _unknown(name: str | None, found: str, values: Mapping[str, str]) -> str:
    if name is None or not re.match(NAME, name):
        return f"'{found}' is no parameter; braces that belong to the path are written {{{{ and }}}}"
    close = get_close_matches(name, values, n=1)
    if close:
        return f"the recipe has no parameter '{name}'; did you mean '{close[0]}'?"
    known = ", ".join(values) or "none"
    return f"the recipe has no parameter '{name}'; parameters: {known}; braces that belong to the path are written {{{{ and }}}}"


def _filled(recipe: dict[str, Any], fill: Callable[[str, KeyPath], str]) -> dict[str, Any]:
    """The recipe with its paths filled in; parts that are not as a recipe has them stay as they are."""
    out = dict(recipe)
    if isinstance(recipe.get("steps"), list):
        out["steps"] = _steps(recipe["steps"], ("steps",), fill)
    if isinstance(recipe.get("tasks"), dict):
        out["tasks"] = {name: _task(task, ("tasks", name), fill) if isinstance(task, dict) else task
                        for name, task in recipe["tasks"].items()}
    return out


def _task(task: dict[str, Any], key: KeyPath, fill: Callable[[str, KeyPath], str]) -> dict[str, Any]:
    out = dict(task)
    if isinstance(task.get("sources"), list):
        out["sources"] = [_path_of(source, (*key, "sources", number), fill) for number, source in enumerate(task["sources"])]
    if isinstance(task.get("steps"), list):
        out["steps"] = _steps(task["steps"], (*key, "steps"), fill)
    return out


def _steps(steps: list[Any], key: KeyPath, fill: Callable[[str, KeyPath], str]) -> list[Any]:
    out = []
    for number, step in enumerate(steps):
        problems = step.get("problems") if isinstance(step, dict) else None
        if isinstance(problems, list):
            place = (*key, number, "problems")
            step = step | {"problems": [fill(entry, (*place, index)) if isinstance(entry, str) else _path_of(entry, (*place, index), fill)
                                        for index, entry in enumerate(problems)]}
        out.append(step)
    return out


def _path_of(entry: Any, key: KeyPath, fill: Callable[[str, KeyPath], str]) -> Any:
    if isinstance(entry, dict) and isinstance(entry.get("path"), str):
        return entry | {"path": fill(entry["path"], (*key, "path"))}
    return entry
