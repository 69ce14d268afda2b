"""The funnel on the page of a run."""

import json
from pathlib import Path

from mft.report.page import write_report

FUNNEL = [{"step": "read", "read": 10, "made": 0, "kept": 10, "replaced": 0, "dropped": {}},
          {"step": "evolve", "read": 10, "made": 10, "kept": 8, "replaced": 10, "dropped": {"refused": 2}},
          {"step": "tests_<bite>", "read": 8, "made": 0, "kept": 4, "replaced": 0, "dropped": {"passes_mutants": 3, "no_assertions": 1}}]


def page_of(folder: Path, funnel: list) -> str:
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps({"kind": "synthesis", "made": 10, "kept": 4, "funnel": funnel, "options": {}}))
    return write_report(folder).read_text()


def test_the_page_of_a_synthesis_shows_each_step_with_its_reasons(tmp_path: Path):
    page = page_of(tmp_path / "out", FUNNEL)
    assert "10 seeds, 10 rows made of them, 4 kept." in page
    assert "passes_mutants 3, no_assertions 1" in page
    assert ">80.0%<" in page            # of the ten that were made, eight are kept
    assert "tests_&lt;bite&gt;" in page
    assert 'x="30%" y="0" width="40%"' in page
    assert "does not add up" not in page


def test_a_funnel_that_does_not_add_up_is_said_so(tmp_path: Path):
    assert "Step evolve does not add up:" in page_of(tmp_path / "out", [FUNNEL[0], {**FUNNEL[1], "kept": 7}])


def test_the_stage_of_a_project_is_on_its_page(tmp_path: Path):
    home = tmp_path / "run" / "made"
    home.mkdir(parents=True)
    (home / "manifest.json").write_text(json.dumps({"kind": "synthesis", "made": 10, "kept": 4, "funnel": FUNNEL}))
    (tmp_path / "run" / "run.json").write_text(json.dumps({"name": "p", "stages": [{"name": "made", "kind": "synthesize", "seconds": 1}]}))
    assert "10 seeds, 10 rows made of them, 4 kept." in write_report(tmp_path / "run").read_text()
