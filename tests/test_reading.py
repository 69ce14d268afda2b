"""Files that others may have written: what is wrong with one is one message."""

import gzip

import pytest

from mft.errors import DataError
from mft.reading import read_lines, read_object


def test_lines_end_at_newlines_alone_and_a_mark_at_the_start_is_none(tmp_path):
    text = "\ufeffone\u2028still one\ntwo\r\n\nfour"
    (tmp_path / "a.txt").write_bytes(text.encode())
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(text.encode()))
    for name in ("a.txt", "a.txt.gz"):
        assert read_lines(tmp_path / name) == ["one\u2028still one", "two\r", "", "four"]


@pytest.mark.parametrize(("name", "content", "message"), [
    ("absent", None, "absent: no such file"),
    ("latin", b"caf\xe9", "latin: not UTF-8 at byte 3"),
    ("plain.gz", b"plain", "plain.gz: cannot be read: "),
    ("short.gz", gzip.compress(b"a" * 1000)[:-9], "short.gz: cannot be read: "),
    ("torn.gz", gzip.compress(bytes(range(256)) * 40)[:40] + b"\xff" * 200, "torn.gz: cannot be read: "),
])
def test_a_damaged_file_is_one_message(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as raised:
        read_lines(tmp_path / name)
    assert str(raised.value).startswith(f"{tmp_path}/{message}")


@pytest.mark.parametrize(("content", "message"), [("{", "is not JSON: "), ("[1]", "holds list, expected a JSON object")])
def test_what_is_no_json_object_is_one_message(tmp_path, content, message):
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        read_object(path)


def test_a_file_that_may_be_missing_is_an_empty_object(tmp_path):
    assert read_object(tmp_path / "absent.json", missing_ok=True) == {}
