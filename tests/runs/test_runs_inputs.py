"""What is encoded or shown is read as it is needed, and only what mft wrote is ever replaced."""

import errno
import json
import os

import pytest

import mft.runs.inputs as inputs
import mft.tokenization.store as store
from mft.data import build
from mft.data.rows import StoredRows
from mft.errors import DataError, OutputError
from mft.files import MANIFEST, read_json
from mft.runs.inputs import encode_input
from mft.runs.look import show_input
from mft.tokenization.store import read_tokens

FORMAT, TOKENIZER = "codefuse", "tiny-code-llama"


class ReadTooFarError(Exception):
    pass


def row(number, **more):
    return json.dumps({**more, "id": f"r{number}", "messages": [{"role": "user", "content": f"q {number}"},
                                                               {"role": "assistant", "content": f"a {number}"}]})


@pytest.fixture(scope="module")
def rows_file(tmp_path_factory, tiny_base):
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_text("".join(row(n, task="even" if n % 2 == 0 else "odd") + "\n" for n in range(3000)))
    return path


@pytest.fixture(scope="module")
def built(tmp_path_factory, rows_file):
    folder = tmp_path_factory.mktemp("built")
    (folder / "r.yaml").write_text(f"name: r\ntasks: {{t: {{sources: [{{type: jsonl, path: {rows_file}}}]}}}}\n"
                                   "split: {validation: 0.1, by: id}\n")
    build(folder / "r.yaml", folder / "built")
    return folder / "built"


def counted(monkeypatch, limit=None):
    """Count the rows that are read, of a file and of a built folder; more than `limit` are refused."""
    count = [0]

    def passing(rows):
        for one in rows:
            count[0] += 1
            if limit is not None and count[0] > limit:
                raise ReadTooFarError
            yield one
    read, iterate = inputs.read_conversations, StoredRows.__iter__
    monkeypatch.setattr(inputs, "read_conversations", lambda *arguments: passing(read(*arguments)))
    monkeypatch.setattr(StoredRows, "__iter__", lambda self: passing(iterate(self)))
    return count


@pytest.mark.parametrize("kind", ["file", "built"])
def test_show_reads_no_more_rows_than_it_shows(kind, rows_file, built, monkeypatch):
    counted(monkeypatch, limit=3)
    shown = show_input(rows_file if kind == "file" else built, FORMAT, TOKENIZER, 3, "auto")
    assert len(shown.samples) == 3


def test_show_of_a_task_reads_up_to_its_rows(rows_file, monkeypatch):
    count = counted(monkeypatch)
    shown = show_input(rows_file, FORMAT, TOKENIZER, 2, "auto", "odd")
    assert [(sample.id, shown.tasks[sample.task_id]) for sample in shown.samples] == [("r1", "odd"), ("r3", "odd")]
    assert count == [4]


def test_show_reads_on_where_rows_cannot_be_rendered(tmp_path, tiny_base):
    bad = json.dumps({"messages": [{"role": "user", "content": "<|role_start|>bot<|role_end|>"}, {"role": "assistant", "content": "x"}]})
    (tmp_path / "a.jsonl").write_text("\n".join([bad] * 200 + [row(7)]))
    assert [sample.id for sample in show_input(tmp_path / "a.jsonl", FORMAT, TOKENIZER, 1, "auto").samples] == ["r7"]


@pytest.mark.parametrize("target", ["out", "jsonl"])
@pytest.mark.parametrize("kind", ["file", "built"])
def test_encode_holds_one_batch_of_rows_at_a_time(kind, target, rows_file, built, tmp_path, monkeypatch):
    count, ahead = counted(monkeypatch), []
    encode, encoded = store.encode_many, [0]

    def noting(rows, *arguments):
        ahead.append(count[0] - encoded[0])
        encoded[0] += len(rows)
        return encode(rows, *arguments)
    monkeypatch.setattr(store, "BATCH", 100)
    monkeypatch.setattr(store, "encode_many", noting)
    facts = encode_input(rows_file if kind == "file" else built, FORMAT, TOKENIZER, 512, "auto",
                         out=tmp_path / "o" if target == "out" else None, jsonl=tmp_path / "o" if target == "jsonl" else None,
                         overwrite=False)
    assert facts["samples"] == count[0] == 3000
    assert max(ahead) == 100


def test_tasks_stand_in_the_order_in_which_they_come(rows_file, built, tmp_path):
    facts = encode_input(rows_file, FORMAT, TOKENIZER, 512, "auto", out=tmp_path / "o", jsonl=None, overwrite=False)
    assert {task: counts["samples"] for task, counts in facts["per_task"].items()} == {"even": 1500, "odd": 1500}
    opened = read_tokens(tmp_path / "o")
    assert opened.tasks == ("even", "odd")
    assert [opened.tasks[sample.task_id] for sample in opened.samples[:3]] == ["even", "odd", "even"]
    assert read_json(tmp_path / "o" / MANIFEST)["train_conversations"] == 3000
    encode_input(built, FORMAT, TOKENIZER, 512, "auto", out=tmp_path / "b", jsonl=None, overwrite=False)
    assert read_json(tmp_path / "b" / MANIFEST)["train_conversations"] == read_json(built / MANIFEST)["per_task"]["t"]["train"]


def test_drops_while_reading_and_while_encoding_are_counted_together(tmp_path, tiny_base):
    long = json.dumps({"prompt": "q", "answer": "word " * 400})
    (tmp_path / "a.jsonl").write_text("\n".join(["{broken", row(1), long, "", row(2)]) + "\n")
    facts = encode_input(tmp_path / "a.jsonl", FORMAT, TOKENIZER, 64, "auto", out=tmp_path / "o", jsonl=None, overwrite=False)
    assert (facts["read"], facts["kept"], facts["dropped"]) == (5, 2, {"broken_json": 1, "blank_line": 1, "over_context": 1})


def test_an_input_without_a_row_leaves_no_output(tmp_path, tiny_base):
    (tmp_path / "a.jsonl").write_text("{broken\n")
    for name in ("out", "jsonl"):
        with pytest.raises(DataError, match="no usable row; dropped: broken_json 1"):
            encode_input(tmp_path / "a.jsonl", FORMAT, TOKENIZER, 64, "auto", **{"out": None, "jsonl": None, name: tmp_path / "o"},
                         overwrite=False)
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_an_output_that_is_taken_is_refused_before_anything_is_read(rows_file, built, tmp_path, monkeypatch):
    counted(monkeypatch, limit=0)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    for out, overwrite, message in ((tmp_path / "mine", False, "exists and is not empty"),
                                    (tmp_path / "mine", True, "holds files that no `mft data encode --out` has written"),
                                    (built, True, "holds files that no `mft data encode --out` has written"),
                                    (rows_file, True, "is a file, not a folder")):
        with pytest.raises(OutputError, match=message):
            encode_input(built, FORMAT, TOKENIZER, 512, "auto", out=out, jsonl=None, overwrite=overwrite)
    for jsonl, message in ((rows_file, "is the input"), (tmp_path / "mine", "is a folder, not a file")):
        with pytest.raises(OutputError, match=message):
            encode_input(rows_file, FORMAT, TOKENIZER, 512, "auto", out=None, jsonl=jsonl, overwrite=True)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_a_store_that_encode_wrote_is_replaced_when_asked(rows_file, tmp_path):
    for overwrite in (False, True):
        encode_input(rows_file, FORMAT, TOKENIZER, 512, "auto", out=tmp_path / "o", jsonl=None, overwrite=overwrite)
    assert len(read_tokens(tmp_path / "o").samples) == 3000


def test_a_full_disk_is_one_message_and_leaves_nothing(rows_file, tmp_path, monkeypatch):
    def full(path, data):
        raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr("mft.tokenization.token_store.Path.write_bytes", full)
    with pytest.raises(OutputError, match="cannot be written: No space left on device"):
        encode_input(rows_file, FORMAT, TOKENIZER, 512, "auto", out=tmp_path / "o", jsonl=None, overwrite=False)
    assert list(tmp_path.iterdir()) == []


def test_a_pipe_is_no_input(tmp_path, tiny_base):
    os.mkfifo(tmp_path / "a.jsonl")
    with pytest.raises(DataError, match=r"a\.jsonl: is a pipe or a device, not a file"):
        show_input(tmp_path / "a.jsonl", FORMAT, TOKENIZER, 1, "auto")
