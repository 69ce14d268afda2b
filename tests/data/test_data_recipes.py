"""The shipped recipes load and build, and public files are read or refused as they should be."""

import re
import shutil
from pathlib import Path
from typing import get_args

import pytest

from mft.data import build, load_recipe
from mft.data.code.functions import LeftOutReason
from mft.data.config import RecipeConfig
from mft.data.split import is_validation
from mft.data.walk import source_files, standard_library

RECIPES = Path(__file__).resolve().parents[2] / "data_recipes"


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_recipe_loads_under_its_own_name(path):
    assert load_recipe(path).name == path.stem


def test_the_readme_lists_every_reason_that_a_row_can_be_dropped_for():
    package = RECIPES.parent / "mft"
    code = "".join(path.read_text(encoding="utf-8") for path in [package / "conversation.py", *sorted((package / "data").rglob("*.py"))])
    said = r'(?:RowFault|StreamFault|\bdrop|count_drop)\((?:ledger, )?"([a-z_0-9]+)"|(?:return|relative,|else) "([a-z_0-9]+)"'
    given = set(re.findall(said, code))
    reasons = {name for pair in given for name in pair if name}
    reasons -= {"last_not_user", "train", "file", "folder", "other", "c", "cpp", "python"}   # of prompts; no reasons
    reasons |= set(get_args(LeftOutReason))
    text = (RECIPES / "README.md").read_text(encoding="utf-8").split("## The ledger")[1]
    assert set(re.findall(r"`([a-z_0-9]+)`", "".join(re.findall(r"(?m)^\|([^|]*)\|", text)))) == reasons


def table_after(intro):
    """The cells of the first table of the README behind these words: `{first cell: (the others, ...)}`, back quotes taken off the first."""
    text = (RECIPES / "README.md").read_text(encoding="utf-8")
    table = text[text.index(intro):].split("\n|", 1)[1].split("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    return {row[0].strip("`"): row[1:] for row in rows}


def keys_of(model, *without):
    """`{key: default}` of a model of the schema, `None` where it has none."""
    schema = RecipeConfig.model_json_schema()["$defs"]
    return {key: field.get("default") for key, field in schema[model]["properties"].items() if key not in ("type", *without)}


@pytest.mark.parametrize(("step", "model"), [
    ("normalise", "NormaliseStep"), ("length", "LengthStep"), ("language", "LanguageStep"), ("syntax", "SyntaxStep"),
    ("repetition", "RepetitionStep"), ("secrets", "SecretsStep"), ("exact_dedup", "ExactDedupStep"), ("near_dedup", "NearDedupStep"),
    ("decontaminate", "DecontaminateStep"), ("sample", "SampleStep"), ("cap", "CapStep")])
def test_the_readme_names_each_key_of_a_step_with_its_default(step, model):
    steps = table_after("\nSteps:\n")
    known = RecipeConfig.model_json_schema()["$defs"]["TaskConfig"]["properties"]["steps"]["items"]["discriminator"]["mapping"]
    assert steps.keys() == known.keys()
    cell, keys = steps[step][0], keys_of(model)
    assert set(re.findall(r"`(\w+)`", re.sub(r"\([^)]*\)", "", cell))) == keys.keys()
    for key, default in keys.items():
        if isinstance(default, bool | int | float | dict):
            written = str(default).replace("'", "") if isinstance(default, dict) else str(default).lower()
            assert f"`{key}` ({written})" in cell


COMMON = ("license", "origin", "converter", "train", "split_key")


@pytest.mark.parametrize(("intro", "model", "without"), [
    ("Sources of files", "CsvSource", COMMON), ("`type: hub` streams", "HubSource", COMMON),
    ("`type: modelscope` fetches", "ModelscopeSource", COMMON),
    ("A code source, `type: code`", "CodeSource", COMMON), ("A code source of Python alone", "PythonCodeSource", COMMON),
    ("Every source of rows", "CsvSource", ("license", "origin", "path", "delimiter", "names", "join_below"))])
def test_the_readme_names_each_key_of_a_source_with_its_default(intro, model, without):
    table, keys = table_after(intro), keys_of(model, *without)
    assert table.keys() == keys.keys()
    required = RecipeConfig.model_json_schema()["$defs"][model]["required"]
    for key, default in keys.items():
        assert (table[key][0] == "required") == (key in required)
        if isinstance(default, str):
            assert table[key][0] == f"`{default}`"


def test_the_readme_names_each_key_of_a_mixture():
    for name, (cell, _) in table_after("\n### Mixture").items():
        assert set(re.findall(r"`(\w+)`", cell)) == keys_of(f"{name.capitalize()}Mixture").keys()


def test_the_readme_lists_every_key_of_a_recipe():
    text = (RECIPES / "README.md").read_text(encoding="utf-8").split("## How a row")[0]
    schema = RecipeConfig.model_json_schema()
    keys = {key for node in [schema, *schema["$defs"].values()] for key in node["properties"]} - {"type"}
    assert {key for key in keys if not re.search(rf"\b{key}\b", text)} == set()


@pytest.fixture(scope="module")
def stdlib_build():
    return build(RECIPES / "python-stdlib.yaml")


def test_the_standard_library_gives_three_tasks_and_a_ledger_that_adds_up(stdlib_build):
    facts = stdlib_build.facts
    assert set(facts["per_task"]) == {"text2code", "docstring", "completion"}
    assert facts["read"] == facts["kept"] + sum(facts["dropped"].values())
    assert facts["emitted"] == facts["kept"] == sum(sum(parts.values()) for parts in facts["per_task"].values())
    assert all(parts["train"] > 2000 and parts["validation"] > 50 for parts in facts["per_task"].values())
    assert facts["joined"]["usage"]["into"] == "docstring"


def test_its_validation_files_are_those_the_base_model_never_saw(stdlib_build):
    exclude = ("**/test*/**", "**/idlelib/**", "**/lib2to3/**")     # as in scripts/train_tiny_base.py
    held_out = {relative for relative, _ in source_files(standard_library(), ".py", exclude) if is_validation(relative, 0.05)}
    train, validation = ({row.split_key for row in stdlib_build.rows[part]} for part in ("train", "validation"))
    assert validation <= held_out
    assert not train & held_out


def test_its_rows_fit_the_tiny_base_model_in_characters(stdlib_build):
    assert max(sum(len(message.content) for message in row.messages) for row in stdlib_build.rows["train"]) <= 2400


def test_the_example_for_chat_rounds_builds_from_public_files(shared_data, tmp_path):
    (tmp_path / "chat-rounds").mkdir()
    shutil.copy(RECIPES / "chat-rounds.yaml", tmp_path)
    for name in ("code_repair", "text2sql", "multi_turn_chat"):
        shutil.copy(shared_data / "mft" / f"{name}.jsonl.gz", tmp_path / "chat-rounds")
    facts = build(tmp_path / "chat-rounds.yaml").facts
    assert facts["read"] == 2000 + 700 + 696
    assert facts["per_task"] == {"chat": {"train": 305, "validation": 34}, "code_repair": {"train": 1893, "validation": 107},
                                 "text2sql": {"train": 1643, "validation": 36}}
    assert facts["dropped"] == {"sampled_out": 340, "too_long": 17}
