"""YAML is read as a person means it, and its lines are known."""

from pathlib import Path

import pytest

from mft.config.yaml import parse_yaml, read_yaml
from mft.errors import ConfigError


def problems_of(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "run.yaml")
    return caught.value.problems


@pytest.mark.parametrize(("written", "value"), [
    ("3e-4", 0.0003), ("1e-3", 0.001), ("1E5", 100000.0), (".5", 0.5), ("-2.", -2.0), ("+7", 7), ("-3", -3), ("0755", 755),
    (".inf", float("inf")), ("null", None), ("~", None), ("", None),
    ("no", "no"), ("off", "off"), ("Yes", "Yes"), ("true", "true"), ("2024-01-31", "2024-01-31"), ("12:30:00", "12:30:00"),
    ("1_000", "1_000"), ("0x1F", "0x1F"), ("1.2.3", "1.2.3"), ("'5'", "5"), ("nan", "nan"),
])
def test_a_plain_value_is_a_number_or_null_as_in_yaml_1_2_and_else_text(written: str, value: object):
    read = parse_yaml(f"key: {written}", "run.yaml").data["key"]
    assert read == value
    assert isinstance(read, str) == isinstance(value, str)


def test_a_number_remembers_how_it_was_written():
    data = parse_yaml("a: 0755\nb: 1.10\nc: 3e-4", "run.yaml").data
    assert [str(data[key]) for key in "abc"] == ["0755", "1.10", "3e-4"]


def test_keys_stay_text():
    assert parse_yaml("no: 1\n3: 2\nnull: 3", "run.yaml").data == {"no": 1, "3": 2, "null": 3}


def test_the_line_of_every_key_and_list_item_is_known():
    document = parse_yaml("# a comment\nname: x\nstages:\n  - kind: data\n  - kind: train\n    training:\n      seed: 1\n", "run.yaml")
    assert document.where(("name",)) == "run.yaml:2"
    assert document.where(("stages", 1)) == "run.yaml:5"
    assert document.where(("stages", 1, "training", "seed")) == "run.yaml:7"
    assert document.where(("stages", 1, "training", "not there")) == "run.yaml:6"


def test_every_key_that_stands_twice_is_told_with_both_lines():
    assert problems_of("a: 1\nb: {c: 1, c: 2}\na: 3\n") == [
        "run.yaml:2: b.c: stands twice, first in line 2",
        "run.yaml:3: a: stands twice, first in line 1",
    ]


def test_merged_keys_have_the_line_of_their_anchor():
    document = parse_yaml("base: &base\n  seed: 1\n  rate: 2\n  clip: 3\nrun:\n  rate: 4\n  <<: *base\n  seed: 5\n", "run.yaml")
    assert document.data["run"] == {"seed": 5, "rate": 4, "clip": 3}
    assert document.where(("run", "rate")) == "run.yaml:6"
    assert document.where(("run", "seed")) == "run.yaml:8"
    assert document.where(("run", "clip")) == "run.yaml:4"


@pytest.mark.parametrize(("text", "problem"), [
    ("a: b: c", "run.yaml:1: not valid YAML: mapping values are not allowed here"),
    ("a:\n\t- b", "run.yaml:2: not valid YAML: found character '\\t' that cannot start any token; indent with spaces"),
    ("a: [1, 2\nb: 3", "run.yaml:2: not valid YAML: expected ',' or ']', but got ':'"),
    ("a: 1\n---\nb: 2", "run.yaml:2: not valid YAML: expected a single document in the stream, but found another document"),
    ("a: 1\nb: \x00", "run.yaml:2: not valid YAML: it has the control character U+0000"),
    ("a: *nowhere", "run.yaml:1: not valid YAML: found undefined alias 'nowhere'"),
    ("a: &a [*a]", "run.yaml:1: a.0: contains itself"),
    ("? [a, b]\n: 1", "run.yaml:1: a key must be text, not a list or a mapping"),
    ("a: !!int ten", "run.yaml:1: not valid YAML: invalid literal for int() with base 10: 'ten'"),
    ("a: !!python/object:os.system x",
     "run.yaml:1: not valid YAML: could not determine a constructor for the tag 'tag:yaml.org,2002:python/object:os.system'"),
    ("[" * 5000, "run.yaml:1: nested too deeply"),
])
def test_what_is_not_yaml_is_one_message_with_its_line(text: str, problem: str):
    assert problems_of(text) == [problem]


def test_files_that_cannot_be_read_are_one_message(tmp_path: Path):
    missing, binary = tmp_path / "missing.yaml", tmp_path / "binary.yaml"
    binary.write_bytes(b"name: \xff")
    found = []
    for path in (missing, tmp_path, binary, binary / "below.yaml"):
        with pytest.raises(ConfigError) as caught:
            read_yaml(path)
        found += caught.value.problems
    assert found == [f"{missing}: no such file", f"{tmp_path}: is a folder, not a YAML file",
                     f"{binary}: not UTF-8 text (byte 6)", f"{binary}/below.yaml: cannot be read: Not a directory"]


def test_a_byte_order_mark_is_not_part_of_the_first_key(tmp_path: Path):
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbfname: x")
    assert read_yaml(tmp_path / "bom.yaml").data == {"name": "x"}
