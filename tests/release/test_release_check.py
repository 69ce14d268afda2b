"""A folder beside its hashes: the damaged file and the missing one are named; sha256sum and md5sum agree."""

import json
import subprocess
import sys

import pytest

from mft.errors import CheckFailed, DataError
from mft.release.check import check_folder, write_hashes

ABC = {"md5": "900150983cd24fb0d6963f7d28e17f72", "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "model"
    (path / "onnx").mkdir(parents=True)
    (path / "a.bin").write_bytes(b"abc")
    (path / "onnx" / "b c.txt").write_bytes(b"")
    write_hashes(path)
    return path


def mft(*arguments):
    done = subprocess.run([sys.executable, "-m", "mft", *map(str, arguments)], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def test_the_sums_are_those_of_the_standard_tools(folder):
    assert (folder / "SHA256SUMS").read_text().splitlines()[0] == f"{ABC['sha256']}  a.bin"
    assert (folder / "MD5SUMS").read_text().splitlines()[0] == f"{ABC['md5']}  a.bin"
    for tool, sums in (("sha256sum", "SHA256SUMS"), ("md5sum", "MD5SUMS")):
        assert subprocess.run([tool, "-c", "--strict", "--quiet", sums], cwd=folder).returncode == 0
    assert "manifest.json" in (folder / "SHA256SUMS").read_text()
    assert json.loads((folder / "manifest.json").read_text())["files"]["a.bin"] == {"bytes": 3, **ABC}


def test_a_whole_folder_is_ok(folder):
    found = check_folder(folder)
    assert (found.ok, found.sources) == (True, ("manifest.json", "SHA256SUMS", "MD5SUMS"))
    assert [file.path for file in found.files] == ["a.bin", "manifest.json", "onnx/b c.txt"]


def test_one_changed_byte_a_missing_file_and_a_new_one_are_named_by_the_command(folder):
    (folder / "a.bin").write_bytes(b"abd")
    (folder / "onnx" / "b c.txt").unlink()
    (folder / "new.txt").write_text("x")
    code, out, errors = mft("--json", "manifest", "check", folder)
    assert code == 3
    result = json.loads(out)
    assert result["ok"] is False
    assert {file["path"]: file["status"] for file in result["files"]} == {
        "a.bin": "damaged", "manifest.json": "ok", "new.txt": "unlisted", "onnx/b c.txt": "missing"}
    assert "a.bin: damaged: its sha256 is" in errors
    assert f"listed as {ABC['sha256']} in manifest.json, SHA256SUMS, MD5SUMS" in errors
    assert "b c.txt: missing; listed in manifest.json, SHA256SUMS, MD5SUMS" in errors
    assert "new.txt: not listed" in errors


def test_a_damaged_list_of_hashes_is_told_from_a_damaged_file(folder):
    sums = folder / "SHA256SUMS"
    sums.write_text(sums.read_text().replace(ABC["sha256"], "0" * 64))
    with pytest.raises(CheckFailed, match=r"in SHA256SUMS; MD5SUMS, manifest.json agrees with the file"):
        check_folder(folder).require()


def test_writing_again_does_not_cover_up_damage(folder):
    (folder / "a.bin").write_bytes(b"abd")
    with pytest.raises(CheckFailed, match=r"a.bin: damaged.*\n.*nothing was written; --overwrite"):
        write_hashes(folder)
    assert not check_folder(folder).ok
    write_hashes(folder, overwrite=True)
    assert check_folder(folder).ok


def test_against_a_published_card_its_files_are_compared_and_others_are_no_fault(folder, tmp_path):
    card = tmp_path / "CARD.md"
    card.write_text(f"| Model File | MD5 Value |\n|:-:|:-:|\n| a.bin | {ABC['md5']} |\n")
    assert mft("manifest", "check", folder, "--against", card)[0] == 0
    card.write_text(f"| Model File | MD5 Value |\n|:-:|:-:|\n| a.bin | {ABC['md5'][::-1]} |\n| shard-2.bin | {ABC['md5']} |\n")
    code, _, errors = mft("manifest", "check", folder, "--against", card)
    assert code == 3
    assert "a.bin: damaged: its md5 is" in errors
    assert "shard-2.bin: missing" in errors
    assert "onnx" not in errors


def test_a_name_that_leads_out_of_the_folder_is_not_read(folder, tmp_path):
    (tmp_path / "secret").write_bytes(b"abc")
    card = tmp_path / "CARD.md"
    card.write_text(f"{ABC['md5']}  ../secret\n")
    assert [file.detail for file in check_folder(folder, card).faults] == ["lies outside the folder, so it is not read"]


def test_a_folder_without_hashes_or_files_is_told(tmp_path):
    with pytest.raises(CheckFailed, match="mft manifest write"):
        check_folder(tmp_path)
    with pytest.raises(DataError, match="holds no file"):
        write_hashes(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        check_folder(tmp_path / "absent")
