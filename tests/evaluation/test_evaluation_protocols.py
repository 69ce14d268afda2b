"""Protocols: what they ask, their hashes, changes of rules, and a user's own in YAML."""

from dataclasses import replace
from pathlib import Path

import pytest
from evaluation_problems import ADD, PROSE

from mft.errors import ConfigError
from mft.evaluation.completions import Sample
from mft.evaluation.programs import program, user_text
from mft.evaluation.protocols import RULES, names, protocol


@pytest.mark.parametrize(("name", "text"), [
    ("openai", 'def add(a, b):\n    """Sum."""\n'),
    ("completion", 'def add(a, b):\n    """Sum."""\n'),
    ("codefuse", '# language: Python\ndef add(a, b):\n    """Sum."""\n'),
    ("ziya", 'Please Complete the given function below according to the docstring: \ndef add(a, b):\n    """Sum."""\n'),
    ("wizardcoder", "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n\n"
                    "### Instruction:\nCreate a Python script for this problem:\ndef add(a, b):\n\t\"\"\"Sum.\"\"\"\n\n\n### Response:"),
    ("evalplus", "Please provide a self-contained Python script that solves the following problem in a markdown code block:\n```\n"
                 "def add(a, b):\n    \"\"\"Sum.\"\"\"\n```\n"),
])
def test_a_protocol_asks_exactly_this(name: str, text: str):
    assert user_text(ADD, protocol(name)) == text


def test_prose_is_asked_with_its_tests():
    assert user_text(PROSE, protocol("completion", "instruction")) == '"""\nWrite a function to add.\nassert add(1, 2) == 3\n"""\n'
    assert user_text(PROSE, protocol("codefuse", "instruction")) == (
        "Write a function to add.Your code should satisfy these tests:\nassert add(1, 2) == 3\nassert add(0, 0) == 0")


def test_evalplus_begins_the_answer():
    assert protocol("evalplus").prefill == ("Below is a Python script with a self-contained function that solves the problem and passes "
                                            "corresponding tests:\n```python\n")


def test_every_protocol_has_a_hash_of_its_own_and_the_name_is_no_rule():
    rules = [protocol(name, "instruction") for name in names()]
    assert len({each.sha256 for each in rules}) == len(rules)
    assert replace(rules[0], name="mine").sha256 == rules[0].sha256
    assert protocol("openai").judging_sha256 == replace(protocol("openai"), prompt="# {prompt}").judging_sha256
    assert len(RULES) == 2 * len(names()) - 1      # `sql` has one style


def test_changed_rules_are_in_the_name_and_in_the_hash():
    plain = protocol("completion")
    other = protocol("completion", changes={"imports": "codefuse", "temperature": 0.8, "joining": "prompt_completion"})
    assert other.name == "completion, imports=codefuse, temperature=0.8"
    assert (other.imports, other.decoding.temperature, other.decoding.top_p) == ("codefuse", 0.8, 1.0)
    assert other.sha256 != plain.sha256
    assert "import hashlib\n" in other.to_json()["header"]


def test_the_header_of_an_import_rule_stands_before_the_program():
    programs = {imports: program(Sample("HumanEval/0", 0, "    return a + b\n"), ADD, protocol("completion", changes={"imports": imports}))
                for imports in ("none", "codefuse", "codefuse+math", "codefuse+ceil-factorial")}
    assert programs["none"].solution == 'def add(a, b):\n    """Sum."""\n    return a + b\n'
    assert programs["codefuse"].solution.endswith('from typing import *\nfrom collections import *\ndef add(a, b):\n    """Sum."""\n'
                                                  "    return a + b\n")
    assert "from math import *\ndef add" in programs["codefuse+math"].solution
    assert "from math import ceil, factorial\ndef add" in programs["codefuse+ceil-factorial"].solution
    assert "numpy" not in programs["codefuse"].solution


@pytest.mark.parametrize(("changes", "message"), [
    ({"import": "none"}, "'import' is no rule of a protocol; did you mean 'imports'?"),
    ({"imports": "all"}, "imports"),
    ({"timeout_s": "soon"}, "timeout_s"),
    ({"temperature": -1}, "temperature"),
    ({"prompt": "{promt}"}, "{promt}"),
])
def test_a_wrong_rule_is_refused_by_name(changes, message: str):
    with pytest.raises(ConfigError, match=message.replace("{", r"\{").replace("?", r"\?")):
        protocol("completion", changes=changes)


def test_an_unknown_protocol_is_answered_with_those_there_are():
    with pytest.raises(ConfigError, match=r"'code-fuse' is not a protocol; expected one of openai, codefuse, .*; did you mean 'codefuse'"):
        protocol("code-fuse")


def test_a_users_protocol_is_read_from_yaml(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text('name: mine\nprompt: "Complete:\\n{prompt}"\nformat: chatml\nextraction: fence\njoining: prompt_if_body\n'
                    'stops: ["\\n#"]\ntimeout_s: 5\ndecoding: {max_new_tokens: 300}\n')
    mine = protocol(str(path))
    assert (mine.name, mine.format, mine.stops, mine.decoding.max_new_tokens) == ("mine", "chatml", ("\n#",), 300)
    assert user_text(ADD, mine).startswith("Complete:\ndef add")


def test_every_mistake_of_a_users_protocol_is_told_with_its_line(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nextration: fence\ntimeout_s: 0\n")
    with pytest.raises(ConfigError) as caught:
        protocol(str(path))
    assert [problem.partition(": ")[0].rpartition(":")[2] for problem in caught.value.problems] == ["2", "3"]
    assert "did you mean 'extraction'?" in str(caught.value)
