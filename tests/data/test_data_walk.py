"""Files by name: sorted, labelled alike on every machine."""

from pathlib import Path

import pytest

from mft.data.walk import named_files, source_files, standard_library, tree_folder
from mft.errors import DataError


@pytest.fixture
def tree(tmp_path):
    for name in ("chat/b.jsonl", "chat/a.jsonl", "chat/a.txt", "chat/en/c.jsonl", "x[1].jsonl", "src/a.py", "src/test/b.py",
                 "src/.venv/c.py", "src/p/site-packages/d.py", "src/p/e.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    return tmp_path


@pytest.mark.parametrize(("pattern", "labels"), [
    ("chat/a.jsonl", ["a.jsonl"]),
    ("chat/*.jsonl", ["a.jsonl", "b.jsonl"]),
    ("chat/**/*.jsonl", ["a.jsonl", "b.jsonl", "en/c.jsonl"]),
    ("*/a.jsonl", ["chat/a.jsonl"]),
    ("x[1].jsonl", ["x[1].jsonl"]),
])
def test_labels_begin_at_the_last_folder_before_a_wildcard(tree, pattern, labels):
    for folder, path in ((tree, pattern), (Path("elsewhere"), str(tree / pattern)), (tree / "src", f"../{pattern}")):
        found = named_files(folder, path)
        assert [label for label, _ in found] == labels
        assert all(path.read_text() == "x" for _, path in found)


@pytest.mark.parametrize(("pattern", "message"), [
    ("nope.jsonl", "no such file"), ("chat/*.json", "no file matches"),
    ("chat", r"is a folder; name its files, for example 'chat/\*\.jsonl'")])
def test_a_pattern_that_names_no_file_is_an_error(tree, pattern, message):
    with pytest.raises(DataError, match=message):
        named_files(tree, pattern)


def test_other_peoples_code_and_excluded_files_are_not_walked(tree):
    assert [relative for relative, _ in source_files(tree / "src", ".py", ["**/test*/**"])] == ["a.py", "p/e.py"]


def test_a_tree_is_the_standard_library_or_a_folder(tree):
    assert tree_folder(tree, "stdlib") == standard_library()
    assert tree_folder(tree, "src") == tree / "src"
    with pytest.raises(DataError, match="no such folder"):
        tree_folder(tree, "nope")
    with pytest.raises(DataError, match="is a file"):
        tree_folder(tree, "src/a.py")


@pytest.mark.parametrize("find", [named_files, tree_folder])
@pytest.mark.parametrize(("path", "message"), [("é" * 200, "cannot be read: File name too long"), ("a\0b", r"a\\x00b': is no path")])
def test_a_path_that_cannot_be_one_is_an_error_of_the_recipe(tree, find, path, message):
    with pytest.raises(DataError, match=message):
        find(tree, path)


@pytest.mark.parametrize("find", [named_files, tree_folder])
def test_a_path_behind_a_closed_door_is_an_error_of_the_recipe(tree, find, monkeypatch):
    def closed(path, **_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", closed)
    with pytest.raises(DataError, match=r"a\.py: cannot be read: Permission denied"):
        find(tree, "src/a.py")
