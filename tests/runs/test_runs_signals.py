"""SIGTERM and Ctrl-C are the same to a project: what is finished is kept, run.json says where it stopped, exit code 130."""

import os
import signal

import pytest
from training.test_training_resume import write_project

from mft.errors import DataError, Interrupted
from mft.files import read_json
from mft.report.page import write_report
from mft.runs.config import load_project
from mft.runs.finished import read_finished, was_begun
from mft.runs.project import Project, run_project
from mft.runs.signals import stop_as_interrupt


def project(folder):
    config = folder / "project" / "config.yaml"
    if not config.is_file():
        write_project(config.parent)
    return Project(load_project(config), config, folder / "out", write_report)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_a_stage_is_told_with_its_stage_and_the_stage_is_not_taken_for_finished(tmp_path, monkeypatch, number):
    monkeypatch.setattr("mft.runs.kinds.data.build", lambda *arguments, **options: os.kill(os.getpid(), number))
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="interrupted in stage 'data'; what is finished is kept, and the same command goes on") as caught:
        run_project(project(tmp_path), until="data")
    assert caught.value.exit_code == 130
    record = read_json(tmp_path / "out" / "run.json")
    assert (record["status"], record["stage"], record["stages"]) == ("interrupted", "data", [])
    assert was_begun(tmp_path / "out", "data")
    assert signal.getsignal(signal.SIGTERM) is before
    monkeypatch.undo()
    assert run_project(project(tmp_path), until="data")["status"] == "done"
    assert read_finished(tmp_path / "out", "data").result["kept"] == 180


def test_a_stage_that_fails_is_named_in_run_json(tmp_path):
    failing = project(tmp_path)
    (tmp_path / "project" / "add.jsonl").write_text("{broken\n")
    with pytest.raises(DataError):
        run_project(failing, until="data")
    record = read_json(tmp_path / "out" / "run.json")
    assert (record["status"], record["stage"]) == ("failed", "data")


def test_one_of_several_ranks_keeps_its_own_handling(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    before = signal.getsignal(signal.SIGTERM)
    with stop_as_interrupt():
        assert signal.getsignal(signal.SIGTERM) is before
