"""The flat files of a token store: what is added is read, a damaged folder is refused, large offsets hold."""

import json

import numpy as np
import pytest

from mft.errors import CheckFailed
from mft.tokenization.collate import gather
from mft.tokenization.encode import IdRow
from mft.tokenization.token_store import RECORD, StoreBuilder, TokenStore, open_store, write_store

IDS = np.dtype("<u2")


def row(name, ids, *spans):
    return IdRow(np.array(ids, IDS).tobytes(), tuple(spans), len(ids), name, ())


def built():
    builder = StoreBuilder(IDS)
    builder.add([row("a", [1, 7, 8, 2], (1, 2), (3, 4))], 0)
    builder.add([], 1)
    builder.add([row("b#1", [1, 9, 2], (1, 3)), row("b#2", [1, 5, 6, 4, 2], (2, 5))], 1)
    return builder.store()


def test_samples_are_what_was_added():
    store = built()
    assert [(sample.id, sample.task_id, sample.input_ids, sample.labels) for sample in store] == [
        ("a", 0, (1, 7, 8, 2), (-100, 7, -100, 2)), ("b#1", 1, (1, 9, 2), (-100, 9, 2)),
        ("b#2", 1, (1, 5, 6, 4, 2), (-100, -100, 6, 4, 2))]
    assert store.records["trained"].tolist() == [2, 2, 3]
    assert store.records["conversation"].tolist() == [0, 2, 2]


def test_a_batch_has_the_labels_of_the_spans_of_its_own_samples():
    batch = gather(built(), [2, 0])
    assert {name: value.tolist()[0] for name, value in batch.items()} == {
        "input_ids": [1, 5, 6, 4, 2, 1, 7, 8, 2], "labels": [-100, -100, 6, 4, 2, -100, 7, -100, 2],
        "position_ids": [0, 1, 2, 3, 4, 0, 1, 2, 3], "task_ids": [1, 1, 1, 1, 1, 0, 0, 0, 0], "sample_ids": [0, 0, 0, 0, 0, 1, 1, 1, 1]}


def test_a_conversation_goes_whole_when_one_of_its_samples_is_too_long():
    fitting, gone = built().within(4)
    assert ([sample.id for sample in fitting], gone) == (["a"], 1)
    assert [len(built().within(context)[0]) for context in (2, 3, 4, 5)] == [0, 0, 1, 3]


@pytest.mark.parametrize("empty", [True, False])
def test_a_store_is_read_back_also_without_a_sample(tmp_path, empty):
    store = StoreBuilder(IDS).store() if empty else built()
    write_store(tmp_path / "s", store, {})
    opened, manifest = open_store(tmp_path / "s", verify=True)
    assert opened == store
    assert (len(opened), manifest["samples"]) == ((0, 0) if empty else (3, 3))


def test_a_selection_is_written_in_its_order(tmp_path):
    write_store(tmp_path / "s", built().select(np.array([2, 0])), {})
    assert [sample.id for sample in open_store(tmp_path / "s")[0]] == ["b#2", "a"]


def test_offsets_beyond_two_and_four_thousand_million_tokens_hold(tmp_path):
    """A sparse file: ids of 5,000,000,004 tokens, of which the last four were written."""
    far = 5_000_000_000
    with (tmp_path / "ids.bin").open("wb") as stream:
        stream.seek(2 * far)
        stream.write(np.array([1, 7, 8, 2], IDS).tobytes())
    records = np.zeros(1, RECORD)
    records[0] = (far, 0, 0, 4, 2, 1, 1, 3, 0)
    store = TokenStore(np.asarray(np.memmap(tmp_path / "ids.bin", IDS, "r")), np.array([[2, 4]], "<i4"), np.frombuffer(b"x", "u1"), records)
    assert (store[0].input_ids, store[0].labels, store[0].task_id) == ((1, 7, 8, 2), (-100, -100, 8, 2), 3)
    assert gather(store, [0])["labels"].tolist() == [[-100, -100, 8, 2]]


@pytest.mark.parametrize(("change", "message"), [
    ({"id_type": None}, "is damaged, or not that of a token store"),
    ({"layout": None}, "is damaged, or not that of a token store"),
    ({"id_type": "<f8"}, "holds tokens in layout 1 of type <f8; this mft reads layout 1 of type <u2 or <u4: encode the data again"),
    ({"layout": 2}, "holds tokens in layout 2 of type <u2; this mft reads layout 1"),
    ({"samples": 4}, "holds 3 samples; the manifest says 4"),
    ({"files": []}, "is damaged, or not that of a token store"),
])
@pytest.mark.parametrize("verify", [False, True])
def test_a_manifest_that_does_not_fit_is_a_failed_check(tmp_path, change, message, verify):
    write_store(tmp_path / "s", built(), {})
    path = tmp_path / "s" / "manifest.json"
    manifest = json.loads(path.read_text()) | change
    path.write_text(json.dumps({key: value for key, value in manifest.items() if value is not None}))
    with pytest.raises(CheckFailed, match=message):
        open_store(tmp_path / "s", verify=verify)


@pytest.mark.parametrize("name", ["ids.bin", "spans.bin", "samples.bin", "names.bin"])
@pytest.mark.parametrize("damage", ["cut", "longer", "gone"])
def test_a_file_of_another_size_is_named_when_the_store_is_opened(tmp_path, name, damage):
    write_store(tmp_path / "s", built(), {})
    path = tmp_path / "s" / name
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(data[:-1] if damage == "cut" else data + b"\0")
    with pytest.raises(CheckFailed, match=f"{name}: (has|is missing)"):
        open_store(tmp_path / "s")
