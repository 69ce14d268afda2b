"""The stage kind `merge` of a project hands its options on."""

import pytest
from training.test_training_resume import write_project

from mft.files import check_manifest, read_json
from mft.report.page import write_report
from mft.runs.config import load_project
from mft.runs.project import Project, run_project

STAGES = """
  - {kind: merge, name: merged, adapter: train, onto: quantised, dtype: fp32, shard_size: 10MB, verify: logits}
  - {kind: merge, name: usual, adapter: train, verify: layers}
"""


@pytest.mark.slow
def test_a_project_merges_onto_the_weights_that_were_trained(tiny_base, tmp_path):
    config, out = write_project(tmp_path / "project", steps=2, every=0), tmp_path / "out"
    config.write_text(config.read_text() + STAGES)
    record = run_project(Project(load_project(config, ["stages.train.quantization.type=nf4"]), config, out, write_report))
    results = {entry["name"]: entry["result"] for entry in record["stages"]}
    quantised, usual = results["merged"], results["usual"]
    assert (quantised["onto"], usual["onto"]) == ("quantised", "original")
    assert quantised["from_trained"]["relative"] < 1e-6 < 0.05 < usual["from_trained"]["relative"]
    assert quantised["from_trained"]["kl"] < 1e-6
    manifest = check_manifest(out / "merged")
    assert manifest["options"] == {"onto": "quantised", "dtype": "fp32", "shard_size": "10MB", "verify": "logits"}
    assert len(read_json(out / "merged" / "distance.json")) == 49
