"""One import under way: the project so far, and what has become of each key of the other tool's file."""

from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from mft.config.yaml import KeyPath
from mft.errors import ConfigError
from mft.runs.importing.source import Source, is_off

Kind = Literal["text", "number", "whole", "flag"]
TRAIN = "stages.train."
"""How a key of the train stage begins, as in an override."""


@dataclass(frozen=True, slots=True)
class Mapped:
    """A key that has a counterpart. `our_key` is written as in an override; keys of the recipe begin with `recipe:`."""

    key: str
    value: Any
    our_key: str
    our_value: Any


@dataclass(frozen=True, slots=True)
class Fate:
    """A key without counterpart, or one that means nothing here, and why."""

    key: str
    value: Any
    why: str


@dataclass(frozen=True, slots=True)
class Assumed:
    """A value that the file leaves to the other tool's default, or to its command line, and that is written out."""

    our_key: str
    our_value: Any
    why: str


@dataclass(slots=True)
class Draft:
    """The project and recipe as nested values, and the lists of the report. Every key of the file enters one of them, once."""

    tool: str
    source: Source
    gpus: int
    gpus_given: bool
    folder: Path
    """Where project and recipe will lie; what relative paths are relative to."""
    config: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    comments: dict[str, str] = field(default_factory=dict)
    """Our key -> where its value comes from."""
    lines: dict[KeyPath, int] = field(default_factory=dict)
    """Our key -> line of the file that it was made from, for messages."""
    mapped: list[Mapped] = field(default_factory=list)
    without: list[Fate] = field(default_factory=list)
    ignored: list[Fate] = field(default_factory=list)
    assumed: list[Assumed] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    claims: set[KeyPath] = field(default_factory=set)
    """The keys that are in a list."""

    def set(self, our_key: str, value: Any) -> None:
        """Set a value of the project by its dotted key."""
        node = self.config
        *parents, last = our_key.split(".")
        for step in parents:
            node = node.setdefault(step, {})
        node[last] = value

    def get(self, our_key: str) -> Any:
        """A value of the project that was set, or None."""
        node: Any = self.config
        for step in our_key.split("."):
            node = node.get(step) if isinstance(node, dict) else None
        return node

    def map(self, key: KeyPath | str, our_key: str, value: Any, *, write: bool = True) -> None:
        """`key` becomes `our_key: value`; with `write=False` the value is in the recipe or set already."""
        path = (key,) if isinstance(key, str) else key
        name = self._claim(path)
        self.mapped.append(Mapped(name, self.source.at(*path), our_key, value))
        if write:
            self.set(our_key, value)
        self.comments[our_key] = ", ".join(filter(None, [self.comments.get(our_key), name]))
        self.lines.setdefault(tuple(our_key.split(".")), self.source.document.line(path))

    def drop(self, key: KeyPath | str, why: str) -> None:
        """`key` has no counterpart; `why` also says what to do instead."""
        path = (key,) if isinstance(key, str) else key
        self.without.append(Fate(self._claim(path), self.source.at(*path), why))

    def ignore(self, key: KeyPath | str, why: str) -> None:
        """`key` means nothing here."""
        path = (key,) if isinstance(key, str) else key
        self.ignored.append(Fate(self._claim(path), self.source.at(*path), why))

    def assume(self, our_key: str, value: Any, why: str, *, write: bool = True) -> None:
        """Write out what the file leaves open."""
        self.assumed.append(Assumed(our_key, value, why))
        self.comments[our_key] = why
        if write:
            self.set(our_key, value)

    def note(self, text: str) -> None:
        """Say something about the whole, once."""
        if text not in self.notes:
            self.notes.append(text)

    def copy(self, key: str, our_key: str, kind: Kind, default: Any = None, why: str = "") -> Any:
        """Map a key whose value is ours too; where the file leaves it out, write the other tool's default out."""
        value = getattr(self.source, kind)(key)
        if value is not None:
            self.map(key, our_key, value)
        elif default is not None:
            self.assume(our_key, default, why or f"default of {self.tool}")
        return default if value is None else value

    def sweep(self, meaningless: dict[str, str], missing: dict[str, str], known: list[str]) -> None:
        """Put each key that is left into a list. `meaningless` and `missing`: tables of key -> why, `galore_*` for a group of keys."""
        everything = [*known, *meaningless, *missing]
        for path in _leaves(self.source.document.data):
            if self.claimed(path):
                continue
            top = str(path[0])
            if why := _looked_up(top, meaningless):
                self.ignore(path, why)
            elif self.source.at(*path) is None:
                self.ignore(path, "not set")
            elif why := _looked_up(top, missing):
                self.settle(path, why)
            elif top in known:
                self.settle(path, "does nothing beside the other values of this file, or has not the form that the tool documents")
            else:
                close = get_close_matches(top, everything, n=1, cutoff=0.8)
                hint = f"; did you mean '{close[0]}'?" if close and close[0] != top else ""
                self.drop(path, f"no key of {self.tool} that this import knows{hint}")

    def settle(self, key: KeyPath | str, why: str) -> None:
        """A key of something that does not exist here: without counterpart where it is on, ignored where it is off."""
        path = (key,) if isinstance(key, str) else key
        if is_off(self.source.at(*path)):
            self.ignore(path, "switched off, as here")
        else:
            self.drop(path, why)

    def claimed(self, path: KeyPath) -> bool:
        """Whether the key, or a parent of it, is in one of the lists."""
        return any(path[:length] in self.claims for length in range(1, len(path) + 1))

    def check(self) -> None:
        """Raise what the getters have noted.

        Raises:
            ConfigError: one or more mistakes in the file.
        """
        if self.source.problems:
            raise ConfigError(list(dict.fromkeys(self.source.problems)))

    def report(self) -> dict[str, Any]:
        """The lists, for --json."""
        return {"mapped": [asdict(entry) for entry in self.mapped], "without_counterpart": [asdict(entry) for entry in self.without],
                "ignored": [asdict(entry) for entry in self.ignored], "assumed": [asdict(entry) for entry in self.assumed],
                "notes": list(self.notes)}

    def _claim(self, path: KeyPath) -> str:
        assert not self.claimed(path), f"{path} is in a list already"
        self.claims.add(path)
        return ".".join(map(str, path))


def _looked_up(key: str, table: dict[str, str]) -> str | None:
    return table.get(key) or next((why for pattern, why in table.items() if pattern.endswith("*") and key.startswith(pattern[:-1])), None)


def _leaves(data: Any, path: KeyPath = ()) -> list[KeyPath]:
    """The keys of nested mappings, and of mappings in lists, down to what is neither.

    >>> _leaves({"a": 1, "b": {"c": [1, 2]}, "d": [{"e": 1}], "f": {}})
    [('a',), ('b', 'c'), ('d', 0, 'e'), ('f',)]
    """
    if isinstance(data, dict) and data:
        return [leaf for key, value in data.items() for leaf in _leaves(value, (*path, key))]
    if isinstance(data, list) and any(isinstance(part, dict) for part in data):
        return [leaf for index, part in enumerate(data) for leaf in _leaves(part, (*path, index))]
    return [path]
