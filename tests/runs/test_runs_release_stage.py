"""The stage kind `release`: what it takes is checked when the config is read; its folder is one that others can check."""

import pytest
from runs.test_runs_config import GOOD, problems_of

from mft.files import check_manifest, read_json
from mft.runs.config import load_project
from mft.runs.kinds.registry import KINDS

QUANTIZED = GOOD + """  - {kind: quantize, name: small, model: merged, jobs: [{method: rtn, bits: 8}, JOB]}
  - {kind: release, name: release, model: MODEL}
""".replace("JOB", "{method: rtn, bits: 4, group_size: 64}")


@pytest.mark.parametrize("model", ["train", "merged", "small/main", "small/rtn-4bit-64g"])
def test_a_release_takes_an_adapter_a_merged_model_or_a_job_of_a_matrix(tmp_path, model):
    (tmp_path / "config.yaml").write_text(QUANTIZED.replace("MODEL", model))
    assert load_project(tmp_path / "config.yaml").stage("release").model == model


@pytest.mark.parametrize(("model", "said"), [
    ("small", "'small' names no job of the quantize stage 'small'; allowed: small/main, small/rtn-4bit-64g"),
    ("small/gptq", "'small/gptq' names no job of the quantize stage 'small'; allowed: small/main, small/rtn-4bit-64g"),
    ("merged/main", "'merged/main' is not a model of an earlier stage; allowed: train, merged, small/main, small/rtn-4bit-64g"),
    ("data", "'data' is not a model of an earlier stage; allowed: train, merged, small/main, small/rtn-4bit-64g"),
    ("later", "'later' is not a model of an earlier stage; allowed: train, merged, small/main, small/rtn-4bit-64g"),
])
def test_anything_else_is_refused_with_what_is_allowed(tmp_path, model, said):
    assert problems_of(tmp_path, QUANTIZED.replace("MODEL", model)) == [f"9: stages.release.model: {said}"]


def test_a_loss_is_not_measured_where_nothing_was_trained(tmp_path):
    text = """name: demo
model: {base: tiny-code-llama, format: codefuse, context: 256}
stages:
  - {kind: evaluate, name: loss, benchmark: loss, models: [base]}
"""
    assert problems_of(tmp_path, text) == [
        "4: stages.loss.benchmark: loss is measured on the held-out rows of a train stage, and none stands before this one"]


def test_every_kind_of_the_config_has_one_entry_in_the_registry():
    assert list(KINDS) == ["data", "synthesize", "train", "merge", "quantize", "evaluate", "release", "report"]
    assert all(kind.forecast for name, kind in KINDS.items() if name != "report")


@pytest.mark.slow
def test_a_released_job_of_a_matrix_has_a_card_with_licence_and_title_and_its_hashes_hold(tiny_base, tmp_path):
    from runs.test_runs_project import run

    config = tmp_path / "config.yaml"
    config.write_text("""name: demo
model: {base: tiny-code-llama, format: codefuse, context: 256}
stages:
  - {kind: quantize, name: small, model: base, jobs: [{method: rtn, bits: 4, group_size: 32}]}
  - {kind: release, name: release, model: small/main, title: Demo-4bit, licence: apache-2.0}
""")
    record = run(config, tmp_path / "out")
    released = record["stages"][1]["result"]
    assert (released["name"], released["stage"], released["format"]) == ("Demo-4bit", "small", "codefuse")
    check_manifest(tmp_path / "out" / "release")
    card = (tmp_path / "out" / "release" / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\n")
    assert "# Demo-4bit" in card
    assert read_json(tmp_path / "out" / "release" / "mft.json")["format"] == "codefuse"
    eight = run(config, tmp_path / "out", ["stages.small.jobs=[{method: rtn, bits: 8, group_size: 32}]"])
    assert [entry["skipped"] for entry in eight["stages"]] == [False, False]
    assert [job["bits"] for job in eight["stages"][0]["result"]["jobs"]] == [8]
    run(config, tmp_path / "out")
    again = run(config, tmp_path / "out", ["stages.release.title=Other"])
    assert [entry["skipped"] for entry in again["stages"]] == [True, False]
    assert "# Other" in (tmp_path / "out" / "release" / "README.md").read_text()
