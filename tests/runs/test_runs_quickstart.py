"""The quickstart as a user runs it: the shipped config, whole, in a process of its own."""

import json
import subprocess
import sys

import pytest

from mft.files import check_manifest
from mft.runs.quickstart import before_after


@pytest.mark.slow
def test_quickstart_lowers_the_held_out_loss_of_every_task_and_leaves_a_checked_model(tiny_base, tmp_path):
    out = tmp_path / "quickstart"
    process = subprocess.run([sys.executable, "-m", "mft", "--json", "quickstart", "--out", str(out)], capture_output=True, text=True,
                             timeout=1800)
    assert process.returncode == 0, process.stderr
    result = json.loads(process.stdout)
    assert set(result["tasks"]) == {"text2code", "docstring", "completion"}
    assert all(task["loss_after"] < task["loss_before"] for task in result["tasks"].values())
    assert result["overall"]["difference"] < -2 * result["overall"]["standard_error"]
    assert result["merge"]["max_abs_diff"] <= result["merge"]["tolerance"]
    assert result["seconds"] > 0
    assert result["run"] == str(out)
    check_manifest(out / "merged")
    check_manifest(out / "train" / "adapter")
    page = (out / "report.html").read_text()
    assert all(task in page for task in result["tasks"])


def test_before_and_after_are_read_from_the_models_in_their_order():
    table = {"rows": 3, "tokens": 20, "loss": {"base": 2.0, "train": 1.5, "merged": 1.6},
             "difference": {"train": {"mean": -0.5, "se": 0.1}, "merged": {"mean": -0.4, "se": 0.1}}}
    assert before_after(table) == {"rows": 3, "tokens": 20, "loss_before": 2.0, "loss_after": 1.5, "loss_merged": 1.6,
                                   "difference": -0.5, "standard_error": 0.1}
