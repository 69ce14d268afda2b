"""`mft import`: what holds for every tool, the command, and the files that it writes."""

import json
import string
import subprocess
import sys

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mft.config.load import parse_config
from mft.data.config import RecipeConfig
from mft.errors import MftError
from mft.runs.config import ProjectConfig, load_project
from mft.runs.importing import axolotl_keys, llamafactory_keys, mftcoder_keys
from mft.runs.importing.importer import import_config

SMALL = {
    "mftcoder": {"data_paths": "[/data/a,/data/b]", "pretrained_model_path": "base", "weighted_loss_mode": "case3", "tb_dir": "/tb"},
    "llamafactory": {"model_name_or_path": "base", "stage": "sft", "finetuning_type": "lora", "dataset": "a,b", "template": "llama3",
                     "cutoff_len": 1024},
    "axolotl": {"base_model": "base", "datasets": [{"path": "org/rows", "type": "alpaca"}], "learning_rate": 1e-4, "sequence_len": 512,
                "micro_batch_size": 1, "adapter": "qlora", "load_in_4bit": True},
}
KNOWN = {"mftcoder": mftcoder_keys, "llamafactory": llamafactory_keys, "axolotl": axolotl_keys}
VALUES = st.one_of(st.none(), st.booleans(), st.integers(-2, 10**6), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=8),
                   st.sampled_from(["4bit", "cosine", "constant", "paged_adamw_8bit", "steps", "epoch", "train[:20%]", "a,b", "org/name"]),
                   st.lists(st.one_of(st.text(max_size=4), st.integers(0, 9)), max_size=3),
                   st.dictionaries(st.text(string.ascii_letters, min_size=1, max_size=6), st.integers(0, 3), max_size=3))


def leaves(value, path=()):
    """The keys of a file down to what is neither a mapping nor a list of mappings."""
    if isinstance(value, dict) and value:
        return [leaf for key, part in value.items() for leaf in leaves(part, (*path, str(key)))]
    if isinstance(value, list) and any(isinstance(part, dict) for part in value):
        return [leaf for index, part in enumerate(value) for leaf in leaves(part, (*path, str(index)))]
    return [path]


def entries_of(report, leaf):
    """The entries of the three lists that speak of a key or of a parent of it."""
    names = [".".join(leaf[:length]) for length in range(1, len(leaf) + 1)]
    return [entry["key"] for part in ("mapped", "without_counterpart", "ignored") for entry in report[part] if entry["key"] in names]


@pytest.mark.parametrize("tool", list(SMALL))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_key_is_in_exactly_one_list_and_the_result_loads(tmp_path, tool, data):
    keys = KNOWN[tool]
    named = st.sampled_from([*keys.KNOWN, *(key.replace("*", "x") for key in [*keys.MEANINGLESS, *keys.MISSING])])
    unknown = st.text(string.ascii_letters + "_-", min_size=1, max_size=12)
    values = {**SMALL[tool], **data.draw(st.dictionaries(st.one_of(named, unknown), VALUES, max_size=6))}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(values), encoding="utf-8")
    try:
        result = import_config(tool, path, gpus=data.draw(st.sampled_from([None, 1, 8])))
    except MftError:   # a message to the user; any other exception is a bug
        return
    for leaf in leaves(values):
        assert len(entries_of(result.report, leaf)) == 1, leaf
    written, meant = parse_config(ProjectConfig, result.config_text), ProjectConfig.model_validate(result.config)
    apart = {"model": {"format"}}   # kept as it is read, where `true` is text
    assert written.model_dump(exclude=apart) == meant.model_dump(exclude=apart)
    parse_config(RecipeConfig, result.recipe_text)


def test_an_unknown_key_is_listed_with_its_likely_spelling(tmp_path):
    path = tmp_path / "config.yml"
    path.write_text(yaml.safe_dump({**SMALL["axolotl"], "micro_batchsize": 2, "made_up": {"a": 1}}), encoding="utf-8")
    why = {entry["key"]: entry["why"] for entry in import_config("axolotl", path).report["without_counterpart"]}
    assert why["micro_batchsize"].endswith("did you mean 'micro_batch_size'?")
    assert why["made_up.a"] == "no key of axolotl that this import knows"


@pytest.mark.parametrize("tool", list(SMALL))
def test_a_file_of_another_tool_is_told_from_its_keys(tmp_path, tool):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(SMALL[tool]), encoding="utf-8")
    for other in set(SMALL) - {tool}:
        with pytest.raises(MftError, match=f"looks like a config of .*try `mft import {tool} "):
            import_config(other, path)


@pytest.mark.parametrize(("tool", "text", "message"), [
    ("axolot", "base_model: b\n", "'axolot': configs of this tool cannot be imported; expected one of mftcoder, llamafactory, axolotl; "
                                  "did you mean 'axolotl'?"),
    ("axolotl", "[1, 2]\n", "expected keys and values, found a list"),
    ("axolotl", "provider: x\n", "does not look like a training config of axolotl"),
    ("axolotl", "base_model: [\n", "not valid YAML"),
    ("axolotl", "base_model: b\nrl: dpo\n", "config.yaml:2: rl: dpo: preference and reinforcement training have no counterpart here; "
                                             "supervised fine-tuning on text can be imported"),
    ("llamafactory", "model_name_or_path: b\ntemplate: qwen\ninfer_backend: vllm\n",
     "config.yaml:3: infer_backend: vllm: a config for answering (`llamafactory-cli chat`), not a training run: it has none of stage, "),
])
def test_what_cannot_be_imported_is_said_in_one_message(tmp_path, tool, text, message):
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(MftError) as caught:
        import_config(tool, path)
    assert message in str(caught.value)


def test_a_file_is_told_by_its_own_keys_not_by_those_that_are_put_over_it(tmp_path):
    """A model's config.json, or a launcher's YAML, is no training config because a base was named on the command line."""
    path = tmp_path / "ds.yaml"
    path.write_text("compute_environment: LOCAL_MACHINE\nnum_processes: 8\n", encoding="utf-8")
    with pytest.raises(MftError, match="does not look like a training config of MFTCoder"):
        import_config("mftcoder", path, overrides=["pretrained_model_path=org/base"])


def mft(*arguments, cwd):
    return subprocess.run([sys.executable, "-m", "mft", *arguments], cwd=cwd, capture_output=True, text=True, check=False)


def test_the_command_writes_two_files_and_one_json_object(tmp_path):
    (tmp_path / "lora.yml").write_text(yaml.safe_dump({**SMALL["axolotl"], "wandb_watch": "x"}), encoding="utf-8")
    ended = mft("import", "axolotl", "lora.yml", "lora_r=64", "--out", "ours/p.yaml", "--gpus", "4", "--json", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    result = json.loads(ended.stdout)
    assert {"config", "mapped", "without_counterpart", "ignored", "assumed", "notes", "files"} <= result.keys()
    assert result["files"] == ["ours/p.yaml", "ours/p-data.yaml"]
    assert {"key": "lora_r", "value": 64, "our_key": "stages.train.adapter.rank", "our_value": 64} in result["mapped"]
    assert load_project(tmp_path / "ours" / "p.yaml").stage("train").training.global_batch_rows == 4
    text = (tmp_path / "ours" / "p.yaml").read_text(encoding="utf-8")
    assert text.startswith("# Made from lora.yml of axolotl by `mft import`.")
    assert "rank: 64   # lora_r" in text


def test_the_command_never_writes_over_a_file_unasked_and_prints_without_out(tmp_path):
    (tmp_path / "lora.yml").write_text(yaml.safe_dump(SMALL["axolotl"]), encoding="utf-8")
    (tmp_path / "p-data.yaml").write_text("mine\n", encoding="utf-8")
    refused = mft("import", "axolotl", "lora.yml", "--out", "p.yaml", cwd=tmp_path)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "p-data.yaml: there already; give another --out, or --overwrite" in refused.stderr
    assert not (tmp_path / "p.yaml").exists()
    printed = mft("import", "axolotl", "lora.yml", cwd=tmp_path)
    project, _, recipe = printed.stdout.partition("# ----- lora-data.yaml\n")
    assert parse_config(ProjectConfig, project).name == "lora"
    assert list(parse_config(RecipeConfig, recipe).tasks) == ["rows"]


def test_no_file_is_one_message(tmp_path):
    ended = mft("import", "mftcoder", "absent.json", cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (2, "mft: absent.json: no such file\n")
