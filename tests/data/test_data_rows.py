"""Rows on disk."""

from dataclasses import replace

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mft.conversation import Conversation, Message
from mft.data.rows import StoredRows, content_hash, read_rows, write_rows
from mft.errors import DataError

ROWS = [
    Conversation("1", "t", (Message("system", ""), Message("user", "\u4f60\x00\r\n  \u00e9"), Message("assistant", " a\n", train=False),
                            Message("user", "</s>"), Message("assistant", "\U0001f600"[:1]))),
    Conversation("x~2", "u", (Message("user", "q"), Message("assistant", "a")), "a.py:1 f", "a.py"),
]


@pytest.mark.parametrize("rows", [ROWS, [], ROWS * 10_001])
def test_rows_come_back_as_they_were(tmp_path, rows):
    write_rows(tmp_path / "a.parquet", rows)
    assert list(read_rows(tmp_path / "a.parquet")) == rows


def test_stored_rows_are_a_sequence_over_files(tmp_path):
    many = [replace(ROWS[n % 2], id=str(n)) for n in range(25)]
    paths = [tmp_path / name for name in ("a.parquet", "b.parquet", "c.parquet")]
    for path, part in zip(paths, (many[:12], [], many[12:]), strict=True):
        write_rows(path, part, rows_per_group=5)
    stored = StoredRows(paths)
    assert len(stored) == 25
    assert list(stored) == many
    assert [stored[0], stored[11], stored[12], stored[-1]] == [many[0], many[11], many[12], many[24]]
    assert stored[3:20:4] == many[3:20:4]
    assert stored[::-1] == many[::-1]
    assert stored == many
    assert many == stored
    assert stored != many[::-1]
    assert stored != many[:24]
    with pytest.raises(IndexError):
        stored[25]


def test_datasets_opens_the_file(tmp_path):
    write_rows(tmp_path / "a.parquet", ROWS)
    table = datasets.load_dataset("parquet", data_files=str(tmp_path / "a.parquet"), split="train", cache_dir=str(tmp_path / "cache"))
    assert table.column_names == ["id", "task", "origin", "split_key", "messages"]
    assert len(table) == 2
    plain = {"train": True, "untrained": [], "input_start": None}
    assert table[1]["messages"] == [{"role": "user", "content": "q", **plain}, {"role": "assistant", "content": "a", **plain}]


def test_the_hash_is_of_the_rows_their_order_and_part():
    one = content_hash({"train": ROWS, "validation": []})
    assert one == content_hash({"train": list(ROWS), "validation": []})
    assert one != content_hash({"train": ROWS[::-1], "validation": []})
    assert one != content_hash({"train": [], "validation": ROWS})
    assert content_hash({"train": ROWS[1:]}) == "bbf5296eb96f46bf56a3338a1b86aaa0ec93405c5db997b9f1471515a785d8b5"


def test_a_file_that_is_not_ours_is_a_clear_error(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        list(read_rows(tmp_path / "a.parquet"))
    (tmp_path / "a.parquet").write_text("hello")
    with pytest.raises(DataError, match="not a Parquet file"):
        list(read_rows(tmp_path / "a.parquet"))
    pq.write_table(pa.table({"id": ["1"], "text": ["x"]}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match="has no column messages, origin, split_key, task"):
        list(read_rows(tmp_path / "b.parquet"))


def test_a_damaged_file_is_one_message_also_when_its_rows_are_counted(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no")
    for use in (len, lambda rows: rows[0], list):
        with pytest.raises(DataError, match=r"a\.parquet: not a Parquet file"):
            use(StoredRows([tmp_path / "a.parquet"]))
