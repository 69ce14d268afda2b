"""The YAML that the READMEs of configs/ and data_recipes/ show is YAML that mft takes."""

import re
from pathlib import Path

import pytest
import yaml

from mft import formats
from mft.conversation import Conversation, Message
from mft.data import build
from mft.formats.base import joined
from mft.runs.config import load_project

ROOT = Path(__file__).resolve().parents[2]
CONFIGS, RECIPES = (ROOT / name / "README.md" for name in ("configs", "data_recipes"))
RECIPE = "name: shown\ntasks: {t: {sources: [{type: jsonl, path: a.jsonl, %s}]}}\nsplit: {validation: 0}\n"


def blocks(readme):
    """The indented blocks of a README that are YAML mappings, without their indentation."""
    text = re.sub(r"(?s)```yaml\n(.*?)```", lambda block: re.sub("(?m)^", "    ", block[1]), readme.read_text(encoding="utf-8"))
    found = re.findall(r"(?m)(?<=\n\n)(?:^    .*\n)+", text)
    plain = [re.sub("(?m)^    ", "", block) for block in found]
    return [block for block in plain if re.match(r"[a-z_]+:(\s|$)", block)]


def block_of(readme, key):
    """The one block that begins with this key."""
    (found,) = [block for block in blocks(readme) if block.startswith(f"{key}:")]
    return found


def test_every_block_is_loaded_by_a_test_below():
    assert {next(iter(yaml.safe_load(block))) for block in blocks(CONFIGS)} <= {"name", "tasks"}
    assert [next(iter(yaml.safe_load(block))) for block in blocks(RECIPES)] == ["converter", "converter"]


def test_the_prompt_format_that_is_shown_renders_as_it_says(tmp_path):
    (tmp_path / "house.yaml").write_text(block_of(CONFIGS, "name"), encoding="utf-8")
    house = formats.get(str(tmp_path / "house.yaml"))
    rows = (Message("system", "Be brief."), Message("user", "2+2?"), Message("assistant", "4"))
    segments = house.render(Conversation("row", "task", rows))
    assert joined(segments) == "<s>### System\nBe brief.\n### User\n2+2?\n### Assistant\n4\n<|end|>\n"
    assert "".join(segment.text for segment in segments if segment.trainable) == "4\n<|end|>"


def test_keys_of_a_train_stage_that_are_shown_are_keys_of_one(tmp_path):
    shown = [yaml.safe_load(block) for block in blocks(CONFIGS) if block.startswith("tasks:")]
    for block in shown:
        stage = {"kind": "train", "name": "train", "data": "data", **block}
        stages = [{"kind": "data", "name": "data", "recipe": str(ROOT / "data_recipes" / "python-stdlib.yaml")}, stage]
        project = {"name": "shown", "model": {"base": "tiny-code-llama", "format": "codefuse", "context": 1024}, "stages": stages}
        (tmp_path / "shown.yaml").write_text(yaml.safe_dump(project), encoding="utf-8")
        loaded = load_project(tmp_path / "shown.yaml").stages[1].model_dump(mode="json")
        assert {key: loaded["tasks"][key] for key in block["tasks"]} == block["tasks"]


@pytest.mark.parametrize(("number", "row", "name", "texts"), [
    (0, '{"user": "2+2?", "assistant": "4", "task_id": "x/1"}', "x/1", ["2+2?", "4"]),
    (1, '{"java": "int a;", "cs": "int b;", "query-split": "test"}', "a.jsonl:1",
     ["You translate code.", "Translate to C#:\nint a;", "int b;"]),
])
def test_the_converters_that_are_shown_read_a_row(tmp_path, number, row, name, texts):
    block = yaml.safe_load(blocks(RECIPES)[number])
    (tmp_path / "a.jsonl").write_text(row + "\n", encoding="utf-8")
    shown = yaml.safe_dump(block, default_flow_style=True, width=1000).strip()[1:-1]
    (tmp_path / "shown.yaml").write_text(RECIPE % shown, encoding="utf-8")
    built = build(tmp_path / "shown.yaml").rows["train"][0]
    assert built.id == name
    assert [message.content for message in built.messages] == texts
