"""What goes wrong outside of a build: full disks, odd files, folders of somebody else, sources that move, processes that die."""

import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from engine_jobs import Sleep

import mft.data.engine.plan as plan
import mft.data.pipeline as pipeline
from mft.data import build, load_recipe, read_built
from mft.data.engine.config import Engine
from mft.data.engine.executors import executor_of
from mft.data.engine.map_job import MapJob
from mft.data.engine.work import finish, finished, part_of, save_array, work_folder
from mft.data.rows import write_rows
from mft.errors import ConfigError, DataError, OutputError
from mft.runs.build import build_data

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def recipe(tmp_path):
    rows = [json.dumps({"prompt": f"question {n}", "answer": f"answer {n}"}) for n in range(50)]
    (tmp_path / "a.jsonl").write_text("\n".join(rows) + "\n")
    path = tmp_path / "r.yaml"
    path.write_text("name: r\ntasks: {t: {sources: [{type: jsonl, path: a.jsonl}]}}\nsteps: [{type: exact_dedup}]\n")
    return path


def full_disk(*arguments, **options):
    raise OSError(errno.ENOSPC, "Error writing bytes to file. Detail: [errno 28] No space left on device")


def stop(progress):
    if progress.stage == "write":
        raise KeyboardInterrupt


@pytest.mark.parametrize("place", ["mft.data.engine.map_job.write_rows", "mft.data.engine.shuffle.pa.ipc.new_file",
                                   "mft.data.engine.shuffle.pq.write_table", "mft.files.shutil.copyfile",
                                   "mft.data.engine.work.Path.write_bytes"])
def test_a_full_disk_is_one_message_whatever_is_written(recipe, tmp_path, monkeypatch, place):
    recipe.write_text(recipe.read_text().replace("exact_dedup}", "exact_dedup}, {type: length, min_characters: 1}"))
    monkeypatch.setattr(place, full_disk)
    monkeypatch.setattr("mft.files.os.link", full_disk)
    with pytest.raises(OutputError, match=r"cannot be written: No space left on device"):
        build(recipe, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    monkeypatch.undo()
    assert build(recipe, tmp_path / "out").facts["kept"] == 50


def test_other_errors_of_the_operating_system_stay_what_they_are(tmp_path):
    with pytest.raises(PermissionError), part_of(tmp_path, "a"):
        raise PermissionError(errno.EACCES, "no")


def test_a_real_file_that_may_not_grow_is_one_message_in_a_worker_too(recipe, tmp_path):
    script = ("import resource, sys\nfrom mft.cli.main import main\nif __name__ == '__main__':\n"
              "    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n    main(sys.argv[1:])\n")
    (tmp_path / "run.py").write_text(script)
    command = [sys.executable, str(tmp_path / "run.py"), "data", "build", str(recipe), "--out", str(tmp_path / "out"), "--workers", "2"]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"prompt": os.urandom(40).hex(), "answer": "a"}) + "\n" for _ in range(200)))
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (2, f"mft: {tmp_path}/.out.work: cannot be written: File too large")


def test_overwrite_removes_only_what_a_build_has_written(recipe, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="holds files that no `mft data build` has written, which --overwrite does not remove"):
        build(recipe, tmp_path / "mine", overwrite=True)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    (tmp_path / "empty").mkdir()
    build(recipe, tmp_path / "empty", overwrite=True)
    build(recipe, tmp_path / "empty", overwrite=True)


def test_the_folder_that_one_stands_in_can_be_built(recipe, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    build(recipe, ".")
    assert (tmp_path / "here" / "manifest.json").is_file()


def test_a_pipe_is_refused_and_not_waited_for(recipe, tmp_path):
    (tmp_path / "a.jsonl").unlink()
    os.mkfifo(tmp_path / "a.jsonl")
    with pytest.raises(ConfigError, match=r"a\.jsonl: is a pipe or a device"):
        build(recipe)


def test_a_source_that_cannot_be_read_is_one_message(recipe, tmp_path, monkeypatch):
    def unreadable(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))
    monkeypatch.setattr("mft.data.sources.hash_file", unreadable)
    with pytest.raises(DataError, match=r"a\.jsonl: cannot be read: Permission denied"):
        build(recipe, tmp_path / "out")


@pytest.mark.parametrize("change", ["in place, same size", "grown", "gone"])
def test_a_source_that_is_written_to_meanwhile_ends_the_build_without_a_folder(recipe, tmp_path, change):
    source = tmp_path / "a.jsonl"
    before = source.read_text()

    def write(progress):
        if progress.stage == "sort" and progress.done == 0:
            time.sleep(0.02)
            if change == "gone":
                source.unlink()
            else:
                source.write_text(before.replace("answer 7", "answer X") if change == "in place, same size" else before + before)
    with pytest.raises(DataError, match=r"a\.jsonl: (changed while the build read it|no such file)"):
        build(recipe, tmp_path / "out", report=write)
    assert not (tmp_path / "out").exists()
    source.write_text(before)
    again = build(recipe, tmp_path / "out")
    assert again.usage["resumed_jobs"] == 0             # what was read of it belongs to no state of the file
    assert again.facts["sha256"] == build(recipe).facts["sha256"]


@pytest.mark.parametrize("what", ["PIECE_BYTES", "PIECE_ROWS", "mft"])
def test_pieces_of_another_cut_or_another_version_are_not_gone_on_with(recipe, tmp_path, monkeypatch, what):
    with pytest.raises(KeyboardInterrupt):
        build(recipe, tmp_path / "out", report=stop)
    if what == "mft":
        monkeypatch.setattr("mft.__version__", "99")
    else:
        monkeypatch.setattr(plan, what, 500)
    again = build(recipe, tmp_path / "out")
    assert (again.usage["resumed_jobs"], again.facts["kept"]) == (0, 50)


def test_a_source_that_was_only_touched_is_the_same_finished_build(recipe, tmp_path):
    first = build(recipe, tmp_path / "out")
    os.utime(tmp_path / "a.jsonl")
    inode = (tmp_path / "out" / "manifest.json").stat().st_ino
    assert build(recipe, tmp_path / "out").facts == first.facts
    assert (tmp_path / "out" / "manifest.json").stat().st_ino == inode


def test_what_a_process_left_that_was_killed_behind_its_last_step_goes_with_the_next_call(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr("mft.data.engine.work._remove", lambda folder: None)
    build(recipe, tmp_path / "out")
    assert (tmp_path / ".out.work").is_dir()
    monkeypatch.undo()
    build(recipe, tmp_path / "out")
    assert not (tmp_path / ".out.work").exists()


def test_a_removal_that_was_killed_leaves_nothing_to_go_on_with(recipe, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def half(folder):
        next(folder.glob("map0*.rows.parquet")).unlink()
        raise Killed
    monkeypatch.setattr("mft.data.engine.work.shutil.rmtree", half)
    with pytest.raises(Killed):
        build(recipe, tmp_path / "out")
    monkeypatch.undo()
    again = build(recipe, tmp_path / "out", overwrite=True)
    assert again.usage["resumed_jobs"] == 0


def test_a_build_that_waits_for_another_says_so(tmp_path, monkeypatch):
    fork = multiprocessing.get_context("fork")
    began, release = fork.Event(), fork.Event()
    first = fork.Process(target=_hold, args=(tmp_path / "out", began, release))
    first.start()
    assert began.wait(20)
    said = []

    def info(text, *values):
        said.append(text % values)
        release.set()
    monkeypatch.setattr("mft.data.engine.work.logger.info", info)
    with work_folder(tmp_path / "out", "a"):
        pass
    first.join(20)
    assert said == [f"{tmp_path}/out: another process builds it; waiting for that to end"]


def _hold(out, began, release):
    with work_folder(out, "a"):
        began.set()
        release.wait(20)


def test_workers_end_at_once_when_the_build_is_interrupted(tmp_path):
    started = time.monotonic()
    with suppress(KeyboardInterrupt), executor_of(Engine(workers=2)) as execute:
        results = execute([Sleep(tmp_path, 0, 0.0), Sleep(tmp_path, 1, 60.0)])
        assert next(results)["rows"] == 0
        raise KeyboardInterrupt
    assert time.monotonic() - started < 30
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_an_interrupted_command_says_so_and_json_stays_one_object(recipe, tmp_path):
    lines = (tmp_path / "a.jsonl").read_text()
    (tmp_path / "a.jsonl").write_text("".join(lines.replace("question", f"question {n}") for n in range(4000)))
    command = [sys.executable, "-m", "mft", "--json", "data", "build", str(recipe), "--out", str(tmp_path / "out")]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    while not (tmp_path / ".out.work" / "job.json").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert json.loads(out) == {"ok": False, "error": "interrupted", "exit_code": 130}
    assert error.splitlines()[-1] == "interrupted"


def test_a_wrong_number_of_workers_names_the_option(tmp_path):
    with pytest.raises(ConfigError, match="--workers: Input should be less than or equal to 1024"):
        build_data(tmp_path / "r.yaml", tmp_path / "out", False, workers=5000)


def test_a_job_costs_the_same_however_many_files_lie_in_the_folder(tmp_path, monkeypatch):
    def never(*arguments):
        raise AssertionError("the folder was listed")
    with work_folder(tmp_path / "out", "a") as folder:
        monkeypatch.setattr(Path, "glob", never)
        monkeypatch.setattr(Path, "iterdir", never)
        with part_of(folder, "map0.x") as path:
            path.write_text("x")
        finish(folder, "map0", {"rows": 1})
        assert finished(folder, "map0") == {"rows": 1}
        monkeypatch.undo()


def test_files_of_a_job_are_on_the_disk_before_its_result(tmp_path, monkeypatch):
    order = []
    monkeypatch.setattr("mft.data.engine.work.fsync_path", lambda path: order.append(("part", path.name[:5])))
    monkeypatch.setattr("mft.files.fsync_path", lambda path: order.append(("result", path.name[:5])))
    with work_folder(tmp_path / "out", "a") as folder:
        order.clear()
        save_array(folder, "map0.kept.npy", np.arange(3))
        finish(folder, "map0", {})
    assert order == [("part", ".map0"), ("result", ".map0"), ("result", ".out.")]


def test_rows_that_were_selected_and_are_not_there_stop_the_build(recipe, tmp_path):
    config = load_recipe(recipe)
    write_rows(tmp_path / "rows.parquet", build(recipe).rows["train"][:10] or build(recipe).rows["validation"][:10])
    shard = plan.plan_shards(config)[0]
    np.save(tmp_path / "map1-00000.select.npy", np.arange(8, 12))
    with pytest.raises(AssertionError, match=r"rows\.parquet: 4 rows were selected, 2 are there"):
        MapJob(tmp_path, config, shard, 1, "rows.parquet", config.steps[:0], None, last=True).run()


def test_the_hash_of_the_working_folder_is_of_the_job_too():
    assert pipeline._work_hash("a", []) != pipeline._work_hash("b", [])


@pytest.mark.parametrize("damage", ["cut", "of another build", "gone"])
def test_a_built_folder_with_a_file_of_another_size_is_refused_by_its_name(recipe, tmp_path, damage):
    file = next(build(recipe, tmp_path / "out").out.glob("*.parquet"))
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-1] if damage == "cut" else file.read_bytes() * 2)
    with pytest.raises(DataError, match=rf"{file.name} (has \d+ bytes; the manifest says|is missing)"):
        read_built(tmp_path / "out")


def test_half_written_files_of_a_killed_process_are_gone_when_it_goes_on(tmp_path):
    with suppress(KeyboardInterrupt), work_folder(tmp_path / "out", "a") as folder:
        (folder / ".map0.rows.parquet.12345678.partial").write_bytes(b"half")
        raise KeyboardInterrupt
    with work_folder(tmp_path / "out", "a") as folder:
        assert [path.name for path in folder.iterdir()] == ["job.json"]


@pytest.mark.parametrize(("was", "now"), [
    ("steps: [{type: exact_dedup}]", "steps: [{type: length, min_characters: 3}]"), ("name: r", "name: s"),
    ("steps: [{type: exact_dedup}]", "steps: [{type: exact_dedup}]\nseed: 7"), ("a.jsonl}", "a.jsonl, train: last}"),
    ("a.jsonl}]}", "a.jsonl}], steps: [{type: length, min_characters: 3}]}")])
def test_whatever_a_recipe_says_makes_another_job(recipe, was, now):
    def job():
        config = load_recipe(recipe)
        return pipeline.job_hash(config, pipeline.recipe_inputs(config))
    before = job()
    assert before == job()
    assert was in recipe.read_text()
    recipe.write_text(recipe.read_text().replace(was, now))
    assert job() != before


def test_a_stopped_build_goes_on_with_files_of_another_length(recipe, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        build(recipe, tmp_path / "out", engine=Engine(shard_rows=10), report=stop)
    again = build(recipe, tmp_path / "out", engine=Engine(shard_rows=7))
    assert again.usage["resumed_jobs"] == 1             # the reading, not what was sorted for files of ten rows
    assert again.facts == build(recipe).facts
    assert again.rows == build(recipe).rows


def test_a_row_is_called_the_same_whether_or_not_a_step_drops_another_of_its_id(recipe, tmp_path):
    rows = [{"id": "x", "prompt": "question", "answer": "a"}, {"id": "x", "prompt": "question", "answer": "a longer answer"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "b.jsonl").write_text(json.dumps(rows[1] | {"prompt": "another"}) + "\n")
    recipe.write_text(recipe.read_text().replace("a.jsonl}", "'?.jsonl'}").replace("exact_dedup", "length, min_characters: 16"))
    names = sorted(row.id for part in build(recipe).rows.values() for row in part)
    assert names == ["x@a.jsonl:2", "x@b.jsonl:1"]
