"""Looking at data: tokens beside rows, of a built and of an encoded folder alike."""

import json

import pytest

from mft.data import build
from mft.errors import DataError
from mft.files import MANIFEST, read_json
from mft.runs.inputs import encode_input
from mft.runs.look import show_input, stats_of

FORMAT, TOKENIZER = "codefuse", "tiny-code-llama"


def line(question, answer, **more):
    return json.dumps({**more, "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]})


@pytest.fixture(scope="module")
def built(tmp_path_factory, tiny_base):
    """Task `long` has few rows of many tokens, `short` many of few; 30 of 40 short rows are asked for, and 9 of 5 long ones."""
    folder = tmp_path_factory.mktemp("look")
    (folder / "short.jsonl").write_text("\n".join(line(f"q {n}", "a", id=f"s{n}") for n in range(60)))
    (folder / "long.jsonl").write_text("\n".join(line(f"q {n}", "return value\n" * 30, id=f"l{n}") for n in range(9)))
    (folder / "r.yaml").write_text("name: r\ntasks:\n  short: {sources: [{type: jsonl, path: short.jsonl}]}\n"
                                   "  long: {sources: [{type: jsonl, path: long.jsonl}]}\n"
                                   "mixture: {type: quotas, quotas: {short: 30, long: 9}}\nsplit: {validation: 0.3, by: id}\n")
    facts = build(folder / "r.yaml", folder / "built").facts
    assert facts["per_task"]["long"] == {"train": 7, "validation": 2}
    return folder / "built"


def encoded(built, folder, context=512):
    encode_input(built, FORMAT, TOKENIZER, context, "auto", out=folder, jsonl=None, overwrite=False)
    return folder


def test_an_encoded_folder_carries_the_mixture_and_says_shares_in_tokens(built, tmp_path):
    facts = stats_of(encoded(built, tmp_path / "out"))
    mixture = facts["mixture"]["tasks"]
    assert (mixture["short"]["requested"], mixture["short"]["realised"]) == (30, 30)
    assert (mixture["long"]["requested"], mixture["long"]["realised"], mixture["long"]["shortfall"]) == (9, 7, 2)
    assert mixture["long"]["requested_share"] == pytest.approx(9 / 39, abs=1e-6)
    assert mixture["long"]["realised_share"] == pytest.approx(7 / 37, abs=1e-6)
    assert mixture["long"]["token_share"] > 2 * mixture["long"]["realised_share"]
    assert mixture["long"]["trained_token_share"] > 0.9
    for key in ("token_share", "trained_token_share"):
        assert sum(task[key] for task in mixture.values()) == pytest.approx(1, abs=1e-5)


def test_shares_are_of_training_samples_and_sizes_of_all(built, tmp_path):
    facts = stats_of(encoded(built, tmp_path / "out"))
    assert facts["parts"]["train"] == 37
    assert facts["samples"] == 37 + facts["parts"]["validation"] == sum(task["samples"] for task in facts["per_task"].values())
    per_row = facts["per_task"]["long"]["tokens"] / facts["per_task"]["long"]["samples"]
    assert facts["mixture"]["tasks"]["long"]["tokens"] == pytest.approx(7 * per_row, rel=0.01)
    assert facts["per_task"]["long"]["samples"] == 9


def test_a_built_folder_counts_the_same_tokens_without_being_encoded(built, tmp_path):
    direct, written = stats_of(built, FORMAT, TOKENIZER, 512), stats_of(encoded(built, tmp_path / "out"))
    for key in ("samples", "tokens", "trained_tokens", "rows", "fill", "mixture", "histogram", "parts"):
        assert direct[key] == written[key], key
    assert {task: numbers["lengths"] for task, numbers in direct["per_task"].items()} == {
        task: numbers["lengths"] for task, numbers in written["per_task"].items()}
    assert direct["per_task"]["short"]["characters"] > 0
    assert direct["building"]["dropped"] == read_json(built / MANIFEST)["dropped"]


def test_longer_samples_than_the_context_are_dropped_and_leave_the_shares(built, tmp_path):
    facts = stats_of(encoded(built, tmp_path / "out", context=64))
    assert facts["dropped"] == {"over_context": 9}
    assert facts["read"] == facts["kept"] + 9
    assert facts["mixture"]["tasks"]["long"]["token_share"] == 0
    assert facts["mixture"]["tasks"]["long"]["realised"] == 7


def test_without_a_context_nothing_is_dropped_and_packing_is_not_claimed(built):
    facts = stats_of(built, FORMAT, TOKENIZER)
    assert (facts["context"], facts["rows"], facts["fill"], facts["dropped"]) == (None, None, None, {})


def test_an_encoded_file_has_no_mixture(tmp_path, tiny_base):
    (tmp_path / "x.jsonl").write_text(line("q", "a") + "\n{broken\n")
    facts = stats_of(encoded(tmp_path / "x.jsonl", tmp_path / "out"))
    assert facts["mixture"] is None
    assert (facts["read"], facts["kept"], facts["dropped"]) == (2, 1, {"broken_json": 1})


@pytest.mark.parametrize(("arguments", "message"), [
    ((None, None, 64), "needs both --format and --tokenizer"),
    ((FORMAT, None, None), "needs both --format and --tokenizer"),
])
def test_half_of_what_counting_needs_is_refused(built, arguments, message):
    with pytest.raises(DataError, match=message):
        stats_of(built, *arguments)


def test_options_that_would_do_nothing_and_other_folders_are_refused(built, tmp_path):
    with pytest.raises(DataError, match="holds tokens already; --format and --tokenizer go with a built folder"):
        stats_of(encoded(built, tmp_path / "out"), FORMAT)
    with pytest.raises(DataError, match="is neither a folder that `mft data build` wrote"):
        stats_of(tmp_path)


def test_samples_of_one_task_are_shown_however_far_behind_they_stand(built):
    shown = show_input(built, FORMAT, TOKENIZER, 4, "auto", "long")
    assert [shown.tasks[sample.task_id] for sample in shown.samples] == ["long"] * 4
    assert len(show_input(built, FORMAT, TOKENIZER, 500, "auto").samples) == len(
        [row for part in ("train", "validation") for row in [None] * sum(
            task[part] for task in read_json(built / MANIFEST)["per_task"].values())])
    with pytest.raises(DataError, match="has no task 'lnog'; its tasks are long, short"):
        show_input(built, FORMAT, TOKENIZER, 1, "auto", "lnog")
