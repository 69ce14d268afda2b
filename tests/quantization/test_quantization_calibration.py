"""Calibration rows: chosen by seed and ids alone, whole, rendered with the end mark, apart from the held-out ones, free of benchmarks."""

import gzip
import json

import pytest

from mft.data import build
from mft.errors import DataError
from mft.quantization.calibration import choose, text_windows
from mft.quantization.config import CalibrationOptions, QualityOptions
from mft.tokenization.compatibility import format_for
from mft.tokenization.load import load_tokenizer


@pytest.fixture(scope="module")
def tools(small_llama):
    tokenizer = load_tokenizer(small_llama)
    return format_for("codefuse", tokenizer), tokenizer


def options(**given):
    return CalibrationOptions.model_validate({"decontaminate": [], "held_out_rows": 16, **given})


def base_ids(rows):
    return {row.id.split("#")[0] for row in rows}


def test_rows_are_whole_and_end_with_the_end_mark(rows_file, tools):
    chosen = choose(rows_file, *tools, options())
    assert (len(chosen.rows), len(chosen.held_out)) == (128, 16)
    assert {row.input_ids[-1] for row in chosen.rows} == {tools[1].eos_id}
    assert {row.labels[-1] for row in chosen.held_out} == {tools[1].eos_id}
    assert tools[1].decode(chosen.rows[0].input_ids).startswith("<|role_start|>human<|role_end|>write a function that adds ")


def test_the_same_rows_every_time_and_others_for_another_seed(rows_file, tools):
    one, again, other = (choose(rows_file, *tools, options(seed=seed)) for seed in (1, 1, 2))
    assert one.sha256 == again.sha256
    assert [row.id for row in one.rows] == [row.id for row in again.rows]
    assert one.sha256 != other.sha256


def test_which_rows_are_taken_does_not_depend_on_their_order_in_the_file(rows_file, tools, tmp_path):
    (tmp_path / "turned").mkdir()
    turned = tmp_path / "turned" / rows_file.name
    turned.write_text("\n".join(reversed(rows_file.read_text().splitlines())) + "\n")
    assert choose(turned, *tools, options()).sha256 == choose(rows_file, *tools, options()).sha256


def test_no_conversation_is_on_both_sides(rows_file, tools):
    chosen = choose(rows_file, *tools, options(held_out_rows=100))
    assert base_ids(chosen.rows) & base_ids(chosen.held_out) == set()
    assert {row.input_ids for row in chosen.rows} & {row.input_ids for row in chosen.held_out} == set()
    assert len(chosen.rows) == len({row.input_ids for row in chosen.rows})


def test_rows_with_equal_tokens_count_once(tools, tmp_path):
    path = tmp_path / "rows.jsonl"
    row = [{"role": "human", "content": "q"}, {"role": "bot", "content": "a"}]
    path.write_text("".join(json.dumps({"id": str(n), "chat_rounds": row}) + "\n" for n in range(300)))
    with pytest.raises(DataError, match=r"gives 1 calibration rows .* where 128 are needed \(left out: 299 duplicate\)"):
        choose(path, *tools, options())


def test_a_long_row_is_left_out_whole_and_counted(rows_file, tools):
    lengths = sorted(len(row.input_ids) for row in choose(rows_file, *tools, options(held_out_rows=90)).rows)
    limit = lengths[-1] - 1
    chosen = choose(rows_file, *tools, options(max_tokens=limit))
    assert max(len(row.input_ids) for row in chosen.rows) <= limit
    assert chosen.facts["left_out"]["over_max_tokens"] >= 1


def test_too_few_rows_are_a_message(rows_file, tools):
    with pytest.raises(DataError, match=r"rows.jsonl: gives \d+ calibration rows of at most 4096 tokens where 400 are needed"):
        choose(rows_file, *tools, options(rows=400))
    left = len(choose(rows_file, *tools, options(held_out_rows=999)).held_out)
    with pytest.raises(DataError, match="no row is left to be held out once"):
        choose(rows_file, *tools, options(rows=128 + left))


def test_a_built_folder_gives_its_validation_part_as_held_out(rows_file, tools, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"name: r\ntasks: {{t: {{sources: [{{type: jsonl, path: {rows_file}, converter: chat_rounds}}]}}}}\n"
                      "split: {validation: 0.2, by: id}\n")
    built = build(recipe, tmp_path / "built")
    held_out = {row.id for row in built.rows["validation"]}
    chosen = choose(tmp_path / "built", *tools, options(held_out_rows=999))
    assert base_ids(chosen.held_out) == held_out
    assert base_ids(chosen.rows) <= {row.id for row in built.rows["train"]}


def test_a_problem_of_a_benchmark_is_not_among_the_rows(rows_file, tools, tmp_path):
    asked = 'def keep_even(numbers):\n    """Return only the even numbers of the list, in their order."""\n'
    problem = {"task_id": "Python/0", "prompt": asked,
               "canonical_solution": "    return [number for number in numbers if number % 2 == 0]\n", "entry_point": "keep_even",
               "test": "def check(candidate):\n    assert candidate([1, 2]) == [2]\n"}
    with gzip.open(tmp_path / "bench.jsonl.gz", "wt") as stream:
        stream.write(json.dumps(problem) + "\n")
    planted = {"id": "planted", "chat_rounds": [{"role": "human", "content": "keep the even numbers"},
                                                {"role": "bot", "content": problem["prompt"] + problem["canonical_solution"]}]}
    path = tmp_path / "rows.jsonl"
    path.write_text(rows_file.read_text() + json.dumps(planted) + "\n")
    everything = options(rows=128, held_out_rows=999)
    assert "planted" in base_ids(choose(path, *tools, everything).rows + choose(path, *tools, everything).held_out)
    clean = choose(path, *tools, options(held_out_rows=999, decontaminate=["bench.jsonl.gz"]), beside=tmp_path)
    assert "planted" not in base_ids(clean.rows + clean.held_out)
    assert clean.facts["left_out"]["contaminated"] == 1


def test_what_is_stored_names_every_row_and_its_hash(rows_file, tools, tmp_path):
    chosen = choose(rows_file, *tools, options())
    file = chosen.write(tmp_path)
    facts = json.loads((tmp_path / "calibration.json").read_text())
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["id"] for line in lines] == facts["ids"]
    assert [tuple(line["input_ids"]) for line in lines] == [row.input_ids for row in chosen.rows]
    assert (facts["rows"], facts["held_out_rows"], facts["sha256"]) == (128, 16, chosen.sha256)


def test_a_text_is_cut_into_windows_whose_first_token_alone_is_not_predicted(tools, tmp_path):
    (tmp_path / "a.txt").write_text("def f(x):\n    return x\n" * 200)
    (windows,) = text_windows(QualityOptions(texts={"t": str(tmp_path / "a.txt")}, windows=3, window_tokens=32), tools[1], 512).values()
    assert [len(window.input_ids) for window in windows] == [32, 32, 32]
    assert all(window.labels == (-100, *window.input_ids[1:]) for window in windows)
    whole = tools[1].encode_text("def f(x):\n    return x\n" * 200)
    assert [token for window in windows for token in window.input_ids] == whole[:96]


def test_a_missing_text_and_one_too_short_are_messages(tools, tmp_path):
    (tmp_path / "short.txt").write_text("a b")
    with pytest.raises(DataError, match="no such text"):
        text_windows(QualityOptions(texts={"t": str(tmp_path / "none.txt")}), tools[1], 512)
    with pytest.raises(DataError, match="less than one window of 512"):
        text_windows(QualityOptions(texts={"t": str(tmp_path / "short.txt")}), tools[1], 512)
