"""SIGTERM and Ctrl-C are the same to a project: what is finished is kept, run.json says where it stopped, exit code 130."""

import os
import signal

import pytest
from training.test_training_resume import write_project

from mft.errors import DataError, Interrupted, OutputError
from mft.files import read_json
from mft.report.page import write_report
from mft.runs.claim import claimed
from mft.runs.config import load_project
from mft.runs.finished import read_finished, was_begun
from mft.runs.project import Project, run_project
from mft.runs.signals import stop_as_interrupt


def project(folder):
    config = folder / "project" / "config.yaml"
    if not config.is_file():
        write_project(config.parent)
    return Project(load_project(config), config, folder / "out", write_report)


@pytest.fixture
def interrupts_are_heard():
    """A process that was started in the background ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts_are_heard")
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


def test_a_process_that_was_killed_in_its_first_moment_leaves_no_folder_that_is_refused(tmp_path):
    (tmp_path / "out" / ".stages").mkdir(parents=True)
    (tmp_path / "out" / ".config.yaml.0123abcd.partial").write_text("half")
    assert run_project(project(tmp_path), until="data")["status"] == "done"
    assert not (tmp_path / "out" / ".config.yaml.0123abcd.partial").exists()


def test_one_process_at_a_time_works_on_a_project_and_what_a_killed_one_left_half_written_goes(tmp_path):
    mine = project(tmp_path)
    out = tmp_path / "out"
    run_project(mine, until="data")
    for leftover in (out / ".run.json.0123abcd.partial", out / ".stages" / ".data.json.0123abcd.partial"):
        leftover.write_text("half")
    with claimed(mine.config, mine.path, out, overwrite=False), pytest.raises(OutputError, match="another process runs this project there"):
        run_project(project(tmp_path), until="data")
    run_project(project(tmp_path), until="data")
    assert not list(out.rglob(".*.partial"))
