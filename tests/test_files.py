"""Outputs appear whole or not at all (law 9), folders belong to one job, and a manifest sees every change."""

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mft.errors import CheckFailed, OutputError
from mft.files import (
    append_json_line,
    atomic_file,
    atomic_folder,
    check_manifest,
    claim_folder,
    folder_hashes,
    job_of,
    read_json,
    write_json,
    write_manifest,
    write_text,
)
from mft.hashes import hash_file, sha256_json

ROOT = Path(__file__).resolve().parent.parent

WRITER = """
import sys, time
from pathlib import Path
from mft.files import atomic_file, atomic_folder
out = Path(sys.argv[2])
with (atomic_folder if sys.argv[1] == "folder" else atomic_file)(out) as partial:
    (partial / "weights.bin" if sys.argv[1] == "folder" else partial).write_bytes(b"half")
    print("writing", flush=True)
    sys.stdin.readline()
"""


def start_writer(kind: str, out: Path) -> subprocess.Popen[str]:
    """A process that is half-way through writing `out`; a line on its stdin lets it finish."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, kind, str(out)], cwd=ROOT, text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    return process


def stop(process: subprocess.Popen[str], how: signal.Signals | None = None) -> int:
    if how is not None:
        process.send_signal(how)
    process.communicate("go on\n" if how is None else None, timeout=30)
    return process.returncode


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Files

def test_a_file_appears_when_its_block_ends(tmp_path: Path):
    with atomic_file(tmp_path / "below" / "a.txt") as partial:
        partial.write_text("done")
        assert names(tmp_path / "below") == [partial.name]
    assert names(tmp_path / "below") == ["a.txt"]
    assert (tmp_path / "below" / "a.txt").read_text() == "done"


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path):
    write_text(tmp_path / "a.txt", "old")

    def write_half() -> None:
        with atomic_file(tmp_path / "a.txt") as partial:
            partial.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert names(tmp_path) == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_killed_writer_leaves_no_file_of_that_name(tmp_path: Path):
    assert stop(start_writer("file", tmp_path / "a.bin"), signal.SIGKILL) == -signal.SIGKILL
    assert not (tmp_path / "a.bin").exists()


def test_who_reads_the_old_file_keeps_reading_the_old_one(tmp_path: Path):
    write_text(tmp_path / "a.txt", "old")
    with (tmp_path / "a.txt").open() as reader:
        write_text(tmp_path / "a.txt", "new, and longer")
        assert reader.read() == "old"
    assert (tmp_path / "a.txt").read_text() == "new, and longer"


def test_content_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    synced: dict[int, list[str]] = {}

    def record(descriptor: int) -> None:
        synced[os.fstat(descriptor).st_ino] = names(tmp_path)

    monkeypatch.setattr(os, "fsync", record)
    with atomic_folder(tmp_path / "model") as partial:
        (partial / "a").write_text("1")
    write_text(tmp_path / "b.txt", "2")
    assert "model" not in synced[(tmp_path / "model").stat().st_ino]
    assert "model" not in synced[(tmp_path / "model" / "a").stat().st_ino]
    assert "b.txt" not in synced[(tmp_path / "b.txt").stat().st_ino]
    assert synced[tmp_path.stat().st_ino] == ["b.txt", "model"], "and the new names after that"


# Folders

def test_a_folder_appears_when_its_block_ends(tmp_path: Path):
    with atomic_folder(tmp_path / "model") as partial:
        (partial / "a").write_text("1")
        (partial / "sub").mkdir()
        (partial / "sub" / "b").write_text("2")
        assert not (tmp_path / "model").exists()
    assert names(tmp_path) == ["model"]
    assert sorted(folder_hashes(tmp_path / "model")) == ["a", "sub/b"]


def test_an_error_leaves_no_folder(tmp_path: Path):
    def write_half() -> None:
        with atomic_folder(tmp_path / "model") as partial:
            (partial / "a").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert names(tmp_path) == []


def test_a_killed_writer_leaves_no_folder_and_the_next_one_sweeps_what_is_left(tmp_path: Path):
    assert stop(start_writer("folder", tmp_path / "model"), signal.SIGKILL) == -signal.SIGKILL
    [left] = tmp_path.iterdir()
    assert left.name.startswith(".model.")
    assert (left / "weights.bin").read_bytes() == b"half"
    with atomic_folder(tmp_path / "model") as partial:
        assert names(tmp_path) == [partial.name]
    assert names(tmp_path) == ["model"]


def test_what_a_living_process_is_making_is_not_swept(tmp_path: Path):
    writer = start_writer("folder", tmp_path / "model")
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "model"):
        raise RuntimeError
    assert stop(writer) == 0
    assert names(tmp_path) == ["model"]
    assert names(tmp_path / "model") == ["weights.bin"]


def test_of_two_that_make_the_same_folder_the_second_to_end_is_refused(tmp_path: Path):
    writer = start_writer("folder", tmp_path / "model")

    def write_second() -> None:
        with atomic_folder(tmp_path / "model") as partial:
            (partial / "other").write_text("")
            assert stop(writer) == 0

    with pytest.raises(OutputError, match="exists and is not empty"):
        write_second()
    assert names(tmp_path) == ["model"]
    assert names(tmp_path / "model") == ["weights.bin"]


def test_leftovers_of_a_name_with_glob_characters_are_its_own(tmp_path: Path):
    (tmp_path / ".model1.0.partial").mkdir()
    (tmp_path / ".model[1].0.partial").mkdir()
    with atomic_folder(tmp_path / "model[1]"):
        pass
    assert names(tmp_path) == [".model1.0.partial", "model[1]"]


def test_a_folder_that_holds_something_is_refused_and_kept(tmp_path: Path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine").write_text("precious")
    with pytest.raises(OutputError, match=r"model: exists and is not empty; give another --out, or --overwrite"), \
            atomic_folder(tmp_path / "model"):
        pytest.fail("the block must not run")
    assert (tmp_path / "model" / "mine").read_text() == "precious"


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_replace_puts_the_whole_folder_in_the_place_of_what_was_there(tmp_path: Path, kind: str):
    out = tmp_path / "model"
    if kind == "folder":
        out.mkdir()
        (out / "old").write_text("")
    elif kind == "file":
        out.write_text("")
    else:
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "kept").write_text("")
        out.symlink_to(tmp_path / "elsewhere")
    with atomic_folder(out, replace=True) as partial:
        (partial / "new").write_text("")
    assert names(out) == ["new"]
    assert names(tmp_path) == (["elsewhere", "model"] if kind == "link" else ["model"])
    assert kind != "link" or names(tmp_path / "elsewhere") == ["kept"]


def test_an_empty_folder_is_taken(tmp_path: Path):
    (tmp_path / "model").mkdir()
    with atomic_folder(tmp_path / "model") as partial:
        (partial / "a").write_text("")
    assert names(tmp_path / "model") == ["a"]


def test_a_place_where_nothing_can_be_made_is_an_error_of_the_user(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be made: "), atomic_folder(tmp_path / "file" / "model"):
        pytest.fail("the block must not run")


# Jobs

def test_a_folder_is_claimed_once_and_the_same_job_goes_on(tmp_path: Path):
    folder = tmp_path / "run"
    assert claim_folder(folder, "job-1") == "new"
    (folder / "metrics.jsonl").write_text("{}")
    assert claim_folder(folder, "job-1") == "same"
    with pytest.raises(OutputError, match="holds another job; give another output folder, or --overwrite"):
        claim_folder(folder, "job-2")
    assert names(folder) == ["job.json", "metrics.jsonl"]
    assert claim_folder(folder, "job-2", overwrite=True) == "new"
    assert names(folder) == ["job.json"]
    assert claim_folder(folder, "job-2") == "same"


@pytest.mark.parametrize("overwrite", [False, True])
def test_files_that_are_not_of_mft_are_never_removed(tmp_path: Path, overwrite: bool):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(OutputError, match="holds files that are not of mft"):
        claim_folder(tmp_path, "job-1", overwrite=overwrite)
    assert (tmp_path / "thesis.tex").read_text() == "precious"


def test_a_leftover_of_a_killed_claim_does_not_stand_in_the_way(tmp_path: Path):
    (tmp_path / ".job.json.12345678.partial").write_text("{")
    assert claim_folder(tmp_path, "job-1") == "new"


def test_a_file_and_a_damaged_marker_are_not_mistaken_for_this_job(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is a file, not a folder"):
        claim_folder(tmp_path / "file", "job-1")
    claim_folder(tmp_path / "run", "job-1")
    for damaged in ("", "[]", "{}", '{"job": "job-'):
        (tmp_path / "run" / "job.json").write_text(damaged)
        with pytest.raises(OutputError, match="holds another job"):
            claim_folder(tmp_path / "run", "job-1")


# Hashes and manifests

@pytest.fixture
def release(tmp_path: Path) -> Path:
    folder = tmp_path / "release"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.bin").write_bytes(bytes(range(256)))
    (folder / "sub" / "b.txt").write_bytes(b"abc")
    write_manifest(folder, {"kind": "merge"})
    return folder


def test_a_manifest_has_the_hashes_and_sizes_of_every_file(release: Path):
    manifest = check_manifest(release)
    assert manifest["kind"] == "merge"
    assert sorted(manifest["files"]) == ["a.bin", "sub/b.txt"]
    assert manifest["files"]["sub/b.txt"] == {
        "bytes": 3, "md5": "900150983cd24fb0d6963f7d28e17f72",
        "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}


@pytest.mark.parametrize(("name", "place"), [("a.bin", 0), ("a.bin", 255), ("sub/b.txt", 1)])
def test_one_changed_byte_is_found_and_its_file_named(release: Path, name: str, place: int):
    content = bytearray((release / name).read_bytes())
    content[place] ^= 1
    (release / name).write_bytes(content)
    with pytest.raises(CheckFailed) as caught:
        check_manifest(release)
    assert str(caught.value) == f"{release / name}: changed since the manifest was written"


def test_missing_and_added_files_are_all_named(release: Path):
    (release / "a.bin").rename(release / "c.bin")
    (release / "sub" / "b.txt").write_bytes(b"abd")
    with pytest.raises(CheckFailed) as caught:
        check_manifest(release)
    assert str(caught.value).split("\n") == [
        f"{release}/a.bin: missing", f"{release}/c.bin: not in the manifest",
        f"{release}/sub/b.txt: changed since the manifest was written"]


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"files": []}', '{"files": {"a.bin": {}}}'])
def test_a_damaged_or_missing_manifest_is_a_failed_check_and_not_a_crash(release: Path, damage: str):
    (release / "manifest.json").write_text(damage)
    with pytest.raises(CheckFailed, match=r"manifest\.json: is damaged, or not a manifest of mft"):
        check_manifest(release)
    (release / "manifest.json").unlink()
    with pytest.raises(CheckFailed, match=r"has no manifest\.json"):
        check_manifest(release)


def test_what_a_killed_process_left_is_not_part_of_a_release(release: Path):
    (release / ".a.bin.12345678.partial").write_text("half")
    check_manifest(release)


def test_a_file_larger_than_one_read_has_the_hash_of_all_of_it(tmp_path: Path):
    content = os.urandom(1000) * 9000
    (tmp_path / "large").write_bytes(content)
    assert hash_file(tmp_path / "large") == {
        "bytes": 9_000_000, "md5": hashlib.md5(content).hexdigest(), "sha256": hashlib.sha256(content).hexdigest()}


def test_the_hash_of_a_value_does_not_depend_on_the_order_of_its_keys():
    assert sha256_json({"a": 1, "b": [1, 2]}) == sha256_json({"b": [1, 2], "a": 1})
    assert sha256_json({"a": 1, "b": [1, 2]}) != sha256_json({"a": 1, "b": [2, 1]})
    assert sha256_json({"a": 1}) == hashlib.sha256(b'{"a":1}').hexdigest()


# Text and JSON

def test_json_is_written_whole_and_lines_are_appended(tmp_path: Path):
    write_json(tmp_path / "a.json", {"name": "\u00fc", "path": Path("x/y")})
    assert read_json(tmp_path / "a.json") == {"name": "\u00fc", "path": "x/y"}
    for step in (1, 2):
        append_json_line(tmp_path / "m.jsonl", {"step": step})
    assert [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()] == [{"step": 1}, {"step": 2}]


def test_another_jobs_folder_may_be_replaced_while_the_same_jobs_goes_on(tmp_path: Path):
    folder = tmp_path / "run"
    assert claim_folder(folder, "a") == "new"
    (folder / "checkpoint").write_text("half-way")
    assert claim_folder(folder, "a", replace_other=True) == "same"
    assert (folder / "checkpoint").read_text() == "half-way"
    assert claim_folder(folder, "b", replace_other=True) == "new"
    assert not (folder / "checkpoint").exists()
    assert job_of(folder) == "b"
    assert job_of(tmp_path) is None


def test_a_lock_is_waited_for_and_ends_with_its_process(tmp_path):
    import subprocess
    import sys
    import time

    from mft.files import locked

    program = ("import sys, time\nfrom pathlib import Path\nfrom mft.files import locked\n"
               "with locked(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(60)\n")
    holder = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "lock")], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    waiter = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "lock")], stdout=subprocess.PIPE, text=True)
    time.sleep(1)
    assert waiter.poll() is None
    holder.kill()
    holder.wait()
    assert waiter.stdout.readline() == "held\n"
    waiter.kill()
    waiter.wait()
    with locked(tmp_path / "lock"):
        pass


def test_a_file_system_without_locks_keeps_nobody_out_where_one_works_and_is_refused_where_several_do(tmp_path, monkeypatch):
    from mft.files import locked, take_lock

    def no_locks(descriptor, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("mft.files.fcntl.flock", no_locks)
    with (tmp_path / "one").open("w") as stream:
        assert take_lock(stream.fileno(), "taken") is False
    with pytest.raises(OutputError, match=r"lock: cannot be locked: No locks available; .* a disk that knows locks"), \
            locked(tmp_path / "lock"):
        pass
