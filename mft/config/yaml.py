"""YAML as a person means it: line numbers kept, duplicate keys refused, numbers as in YAML 1.2, `no` left to the field."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from yaml.reader import ReaderError

from mft.errors import ConfigError

KeyPath = tuple[str | int, ...]


@dataclass(slots=True)
class Document:
    """A parsed file: plain data, the line of every key and list item, and the overrides that were put over it."""

    path: str
    data: Any
    lines: dict[KeyPath, int] = field(default_factory=dict)
    overrides: dict[KeyPath, str] = field(default_factory=dict)

    def line(self, key: KeyPath) -> int:
        """Line of a key, or of the nearest parent that has one."""
        return next((self.lines[parent] for parent in _parents(key) if parent in self.lines), 1)

    def where(self, key: KeyPath) -> str:
        """`file:line` of a key; where its value comes from an override, that override."""
        override = next((self.overrides[parent] for parent in _parents(key) if parent in self.overrides), None)
        return f"{self.path}:{self.line(key)}" if override is None else f"override '{override}'"


def _parents(key: KeyPath) -> Iterator[KeyPath]:
    """`a.b.c`, `a.b`, `a` and the top."""
    return (key[:length] for length in range(len(key), -1, -1))


class WrittenInt(int):
    """A whole number that `str` gives back as it was written: `0755` in a field for text stays `0755`."""

    text: str

    def __str__(self) -> str:
        return self.text


class WrittenFloat(float):
    """A number that `str` gives back as it was written: `1.10` in a field for text stays `1.10`."""

    text: str

    def __str__(self) -> str:
        return self.text


class _Loader(yaml.SafeLoader):
    """SafeLoader without YAML 1.1's guesses: only null and numbers are resolved; `no`, `on`, dates stay text."""

    def construct_int(self, node: yaml.ScalarNode) -> WrittenInt:
        value = WrittenInt(node.value)
        value.text = node.value
        return value

    def construct_float(self, node: yaml.ScalarNode) -> WrittenFloat:
        value = WrittenFloat(node.value.lower().replace(".inf", "inf").replace(".nan", "nan"))
        value.text = node.value
        return value


TAG = "tag:yaml.org,2002:"
_Loader.yaml_implicit_resolvers = {}
_Loader.add_implicit_resolver(TAG + "null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver(TAG + "int", re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    TAG + "float",
    re.compile(r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"),
    list("-+.0123456789"))
_Loader.add_implicit_resolver(TAG + "merge", re.compile(r"^<<$"), ["<"])
_Loader.add_constructor(TAG + "int", _Loader.construct_int)
_Loader.add_constructor(TAG + "float", _Loader.construct_float)


def parse_yaml(text: str, path: str) -> Document:
    """Parse YAML text; `path` is used in messages. Every key is text, as it stands in the file.

    Raises:
        ConfigError: not YAML, or a key stands twice; the message has the line.
    """
    document, problems = Document(path, None), list[str]()
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is not None:
            _note_lines(node, (), document, problems, parents=())
        if node is not None and not problems:
            document.data = loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problems.append(f"{path}:{mark.line + 1 if mark else 1}: not valid YAML: {_said(error)}")
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        problems.append(f"{path}:{line}: not valid YAML: it has the control character U+{error.character:04X}")
    except ValueError as error:
        problems.append(f"{path}:1: not valid YAML: {error}")
    except RecursionError:
        problems.append(f"{path}:1: nested too deeply")
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))
    return document


def _said(error: yaml.MarkedYAMLError) -> str:
    """The parser's complaint in one line."""
    problem = str(error.problem or "")
    if problem.startswith("but ") or not problem:
        return f"{error.context}, {problem}".rstrip(", ")
    return f"{problem}; indent with spaces" if "'\\t'" in problem else problem


def read_yaml(path: Path) -> Document:
    """Read and parse a file.

    Raises:
        ConfigError: it is missing, not UTF-8 text, or not YAML.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError([f"{path}: no such file"]) from error
    except IsADirectoryError as error:
        raise ConfigError([f"{path}: is a folder, not a YAML file"]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: not UTF-8 text (byte {error.start})"]) from error
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from error
    return parse_yaml(text, str(path))


def _note_lines(node: yaml.Node, key: KeyPath, document: Document, problems: list[str], parents: tuple[yaml.Node, ...]) -> None:
    """Note the line of every key and list item and the keys that stand twice; make every key text."""
    line = node.start_mark.line + 1
    document.lines.setdefault(key, line)
    if node in parents:
        problems.append(f"{document.path}:{line}: {'.'.join(map(str, key))}: contains itself")
        return
    parents = (*parents, node)
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                problems.append(f"{document.path}:{line}: a key must be text, not a list or a mapping")
            elif key_node.tag == TAG + "merge":
                _note_merge(value_node, key, document, problems, parents)
            else:
                key_node.tag = TAG + "str"
                path = (*key, key_node.value)
                if key_node.value in seen:
                    dotted = ".".join(map(str, path))
                    problems.append(f"{document.path}:{line}: {dotted}: stands twice, first in line {seen[key_node.value]}")
                seen[key_node.value] = line
                document.lines[path] = line
                _note_lines(value_node, path, document, problems, parents)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _note_lines(item, (*key, index), document, problems, parents)


def _note_merge(node: yaml.Node, key: KeyPath, document: Document, problems: list[str], parents: tuple[yaml.Node, ...]) -> None:
    """`<<: *base`: its keys stand where the anchor does, unless the mapping has them itself."""
    own = dict(document.lines)
    for part in node.value if isinstance(node, yaml.SequenceNode) else [node]:
        _note_lines(part, key, document, problems, parents)
    document.lines.update(own)
