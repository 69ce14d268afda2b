"""configs/README.md: every key of a project and every value that a key may have is explained, and every shipped file is listed."""

import re
from pathlib import Path

import pytest

from mft.runs.config import ProjectConfig, load_project

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "configs" / "README.md").read_text(encoding="utf-8")
SCHEMA = ProjectConfig.model_json_schema()


def places():
    """Heading -> what stands under it, of the part on keys; `stages/KIND` is the row of the table for this kind."""
    part = re.split(r"(?m)^## ", README.split("\n## Keys\n")[1])[0]
    opening, *sections = re.split(r"(?m)^### ", part)
    found = {"": opening} | {section.split("\n")[0]: section for section in sections}
    found |= {f"stages/{kind}": row for kind, row in re.findall(r"(?m)^\| `(\w+)` \| (.*) \|$", found["stages"])}
    found["stages/evaluate"] += found["Code benchmarks"]
    found["stages/synthesize"] += "".join((ROOT / "data_recipes" / name).read_text(encoding="utf-8")
                                          for name in ("synthesis/README.md", "README.md"))     # its keys are those of other files too
    return found


PLACES = places()


def referred(node):
    """Names of the definitions that a part of the schema refers to."""
    if isinstance(node, dict):
        return ([node["$ref"].split("/")[-1]] if "$ref" in node else []) + [name for value in node.values() for name in referred(value)]
    return [name for value in node for name in referred(value)] if isinstance(node, list) else []


def values_of(spec):
    """The texts that a key may have, where they are listed."""
    listed = [*spec.get("enum", []), *([spec["const"]] if "const" in spec else [])]
    return [value for value in listed if isinstance(value, str)] + [value for other in spec.get("anyOf", []) for value in values_of(other)]


def keys(node, place):
    """(place in the README, key, texts it may have) of a definition and of all below it."""
    for key, spec in node["properties"].items():
        yield ("stages" if key in ("name", "kind") and place else place), key, values_of(spec)
        for name in dict.fromkeys(referred(spec)):
            below = SCHEMA["$defs"][name]
            kind = below["properties"].get("kind", {}).get("const")
            yield from keys(below, f"stages/{kind}" if kind else key if key in PLACES else place)


KEYS = list(keys(SCHEMA, ""))


def test_the_walk_finds_keys_of_every_depth():
    found = {(place, key) for place, key, _ in KEYS}
    assert {("", "stages"), ("stages/merge", "shard_size"), ("training", "watchdog_minutes"), ("tasks", "scale"), ("training", "min_delta"),
            ("stages/train", "allow_higher_learning_rate"), ("stages", "kind"), ("distributed", "zero_stage")} <= found
    kinds = {kind.split("/")[1] for kind, _ in found if "/" in kind}
    assert kinds == {"data", "train", "merge", "quantize", "evaluate", "release", "synthesize"}   # report has no keys
    assert "stages/report" in PLACES


@pytest.mark.parametrize(("place", "key", "values"), KEYS, ids=[f"{place}.{key}" for place, key, _ in KEYS])
def test_every_key_and_every_value_that_it_may_have_is_explained(place, key, values):
    assert re.search(rf"`{key}\b[^`]*`", PLACES[place]), f"configs/README.md: '{key}' is not explained under '{place}'"
    for value in values:
        assert re.search(rf"(?<![\w-]){value}(?![\w-])", PLACES[place]), f"'{value}' of '{key}' is not explained under '{place}'"


def test_no_key_is_explained_that_does_not_exist():
    for heading in ("model", "tracking", "quantization", "adapter", "tasks", "training", "distributed"):
        known = {key for place, key, _ in KEYS if place == heading}
        explained = {key for line in re.findall(r"(?m)^ *- (`[a-z_0-9]+`(?:, `[a-z_0-9]+`)*)", PLACES[heading])
                     for key in re.findall(r"`([a-z_0-9]+)`", line)}
        assert explained
        assert explained <= known, heading


def test_the_table_lists_the_shipped_files_and_no_other():
    listed = re.findall(r"(?m)^\| \[([\w.-]+\.yaml)\]\(([\w.-]+\.yaml)\) \|", README)
    assert all(name == target for name, target in listed)
    assert sorted(name for name, _ in listed) == sorted(path.name for path in (ROOT / "configs").glob("*.yaml"))


def test_the_table_says_not_yet_run_where_the_file_does():
    for name, told in re.findall(r"(?m)^\| \[([\w.-]+\.yaml)\].*\| (.*) \|$", README):
        text = (ROOT / "configs" / name).read_text(encoding="utf-8")
        assert ("not yet run" in text.split("\nname:")[0]) == told.startswith("not yet run"), name
        if gpus := re.search(r"\d+ GPUs? of \d+ GB", told):
            assert gpus[0] in text.split("\nname:")[0], name


def test_the_command_that_the_readme_shows_is_one_that_its_config_takes():
    (shown,) = re.findall(r"(?m)^    mft train (configs/\S+) --stage (\w+) (\S+) '(.*)'$", README)
    config = load_project(ROOT / shown[0], list(shown[2:]))
    assert (config.stage(shown[1]).training.epochs, config.stage(shown[1]).adapter.rank) == (3, 32)
