"""Parts of the engine by themselves: cuts, names, the working folder, the ledgers of shards, what is shown of progress."""

import logging
import multiprocessing
from contextlib import suppress

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import mft.data.engine.plan as plan
from mft.data.engine.jobs import Job, replay, run_job
from mft.data.engine.run import Progress
from mft.data.engine.shuffle import output_files
from mft.data.engine.work import finish, finished, work_folder
from mft.data.ledger import Ledger, ShardLedger, added
from mft.errors import ConfigError
from mft.runs.build import build_data, speed_of


def test_a_parquet_file_is_cut_between_row_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "PIECE_ROWS", 25)
    pq.write_table(pa.table({"text": [str(n) for n in range(95)]}), tmp_path / "a.parquet", row_group_size=10)
    assert plan._group_cuts(tmp_path / "a.parquet") == [(0, 1), (3, 31), (6, 61), (9, 91), (10, 96)]


def test_output_files_are_named_as_datasets_wants_them():
    files = output_files({"train": range(250), "validation": []}, 100)
    assert [(file.name, file.start, file.rows) for file in files] == [
        ("train-00000-of-00003.parquet", 0, 100), ("train-00001-of-00003.parquet", 100, 100), ("train-00002-of-00003.parquet", 200, 50)]


def test_a_working_folder_keeps_the_jobs_of_its_own_job_alone(tmp_path):
    out = tmp_path / "out"
    with suppress(KeyboardInterrupt), work_folder(out, "a") as folder:
        finish(folder, "map0", {"rows": 1})
        raise KeyboardInterrupt
    with suppress(KeyboardInterrupt), work_folder(out, "a") as folder:
        assert finished(folder, "map0") == {"rows": 1}
        raise KeyboardInterrupt
    with work_folder(out, "b") as folder:
        assert finished(folder, "map0") is None
    assert list(tmp_path.iterdir()) == []


def _hold(out, began, release):
    with work_folder(out, "a"):
        began.set()
        release.wait(20)


def test_a_second_process_waits_for_the_first(tmp_path):
    spawn = multiprocessing.get_context("fork")
    began, release, second = spawn.Event(), spawn.Event(), spawn.Event()
    first = spawn.Process(target=_hold, args=(tmp_path / "out", began, release))
    first.start()
    assert began.wait(20)
    other = spawn.Process(target=_hold, args=(tmp_path / "out", second, release))
    other.start()
    assert not second.wait(0.5)
    release.set()
    assert second.wait(20)
    first.join(20)
    other.join(20)
    assert (first.exitcode, other.exitcode) == (0, 0)


def test_the_first_drops_of_all_shards_are_named_and_the_counts_add_up(caplog):
    whole = Ledger("read")
    for shard in range(3):
        part = ShardLedger("read")
        for row in range(4):
            part.read += 1
            part.drop("odd", f"{shard}:{row}", "why")
        part.read += 1
        part.kept += 1
        part.report = {"found": {"x": 1, f"shard{shard}": 2}}
        whole.absorb(part.to_counts())
    with caplog.at_level(logging.WARNING, "mft"):
        whole.close()
    named = [record.getMessage() for record in caplog.records]
    assert named == [f"{place}: dropped: odd (why)" for place in ("0:0", "0:1", "0:2", "0:3", "1:0")] + [
        "odd: 12 in all, the first 5 are named above"]
    assert (whole.read, whole.kept, whole.dropped) == (15, 3, {"odd": 12})
    assert whole.report == {"found": {"shard0": 2, "shard1": 2, "shard2": 2, "x": 3}}


def test_reports_keep_the_order_of_their_step_unless_they_are_sorted():
    assert list(added({"nbsp": 1, "bidi": 2}, {"nbsp": 3, "bidi": 4})) == ["nbsp", "bidi"]
    assert list(added({"b": 1}, {"a": 1})) == ["a", "b"]


class _Wrong(Job):
    def __init__(self, folder):
        self.folder = folder

    @property
    def name(self):
        return "wrong"

    def run(self):
        logging.getLogger("mft.data.x").info("seen %d", 3)
        raise ConfigError(["a.yaml:1: one", "a.yaml:2: two"])


def test_an_error_of_a_job_comes_back_with_its_class_and_its_log(tmp_path, caplog):
    result = run_job(_Wrong(tmp_path))
    assert caplog.records == []
    with caplog.at_level(logging.INFO, "mft"), pytest.raises(ConfigError) as caught:
        replay(result)
    assert caught.value.problems == ["a.yaml:1: one", "a.yaml:2: two"]
    assert [(record.name, record.getMessage()) for record in caplog.records] == [("mft.data.x", "seen 3")]
    assert finished(tmp_path, "wrong") is None


def test_speed_and_time_left_are_of_the_shards_that_are_done():
    assert speed_of(Progress("clean", 0, 10, 0), 1.0) == ""
    assert speed_of(Progress("clean", 2, 6, 4000), 2.0) == "2,000 rows/s, 0:04 left"
    assert speed_of(Progress("clean", 1, 3, 90_000), 60.0) == "1,500 rows/s, 2:00 left"


def test_options_of_the_command_line_that_do_not_go_together_are_one_message(tmp_path):
    with pytest.raises(ConfigError, match="the CPUs of the cluster decide; leave it out"):
        build_data(tmp_path / "r.yaml", tmp_path / "out", False, engine="ray", workers=2)


def test_the_command_line_hands_its_options_on(tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr("mft.runs.build.build_data",
                        lambda recipe, out, overwrite, overrides, **options: seen.update(options, overrides=overrides))
    from typer.testing import CliRunner

    from mft.cli.data import app as data
    CliRunner().invoke(data, ["build", "r.yaml", "seed=7", "--out", str(tmp_path), "--workers", "3", "--engine", "local",
                              "--shard-rows", "7"])
    assert seen == {"overrides": ["seed=7"], "engine": "local", "workers": 3, "ray_address": None, "shard_rows": 7}
