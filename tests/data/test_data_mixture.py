"""Split, join, weights, order: stable on every machine."""

import logging

import pytest

from mft.conversation import Conversation, Message
from mft.data.config import RecipeConfig, SplitConfig
from mft.data.ledger import BuildLedger
from mft.data.mixture.emit import emit_rows
from mft.data.mixture.join import join_small_tasks
from mft.data.split import hash_fraction, rows_per_task, split_rows
from mft.errors import DataError


def row(task, name, key=""):
    return Conversation(name, task, (Message("user", f"q {task} {name}"), Message("assistant", "a")), f"{key}:1 f", key)


def recipe(weights, join=None, **split):
    tasks = {task: {"weight": weight, "sources": [{"type": "python_code", "path": "stdlib", "make": "usage"}]}
             for task, weight in weights.items()}
    for task, rule in (join or {}).items():
        tasks[task]["sources"][0]["join_below"] = rule
    return RecipeConfig.model_validate({"name": "r", "seed": 7, "tasks": tasks, "split": split})


def emit(config, parts):
    ledger = BuildLedger()
    out = emit_rows(config, parts, ledger).parts
    return out, ledger.steps[-1]


def test_the_split_is_the_one_the_base_model_was_trained_with():
    names = ["argparse.py", "ast.py", "json/decoder.py", "json/encoder.py", "pprint.py", "subprocess.py", "typing.py"]
    parts = split_rows([row("t", name, name) for name in names], SplitConfig(validation=0.05, by="file"))
    assert [r.split_key for r in parts["validation"]] == ["argparse.py", "json/decoder.py", "pprint.py", "subprocess.py"]


def test_no_file_is_on_both_sides_when_split_by_file():
    rows = [row("t", f"{file}-{number}", f"pkg/{file}.py") for file in range(200) for number in range(5)]
    parts = split_rows(rows, SplitConfig(validation=0.2, by="file"))
    train, validation = ({r.split_key for r in part} for part in parts.values())
    assert not train & validation
    assert len(train | validation) == 200
    assert 25 <= len(validation) <= 55
    assert {len([r for r in rows if r.split_key == key]) for key in validation} == {5}


def test_splitting_by_id_uses_the_id_and_says_so():
    rows = [row("t", str(number), "one.jsonl") for number in range(1000)]
    parts = split_rows(rows, SplitConfig(validation=0.1, by="id"))
    assert 70 <= len(parts["validation"]) <= 130
    assert all(r.split_key == r.id for part in parts.values() for r in part)
    assert all((hash_fraction(r.id) < 0.1) == (name == "validation") for name, part in parts.items() for r in part)


def test_a_row_stays_where_it_is_when_others_are_added():
    few = split_rows([row("t", str(n)) for n in range(100)], SplitConfig(validation=0.3, by="id"))
    many = split_rows([row("t", str(n)) for n in range(1000)], SplitConfig(validation=0.3, by="id"))
    assert {r.id for r in few["validation"]} == {r.id for r in many["validation"]} & {str(n) for n in range(100)}


def test_without_weights_every_row_is_emitted_once():
    parts = {"train": [row("a", str(n)) for n in range(50)], "validation": [row("a", "v")]}
    out, ledger = emit(recipe({"a": 1.0}), parts)
    assert sorted(r.id for r in out["train"]) == sorted(r.id for r in parts["train"])
    assert out["validation"] == parts["validation"]
    assert (ledger.read, ledger.kept, dict(ledger.dropped)) == (51, 51, {})


def test_a_whole_weight_copies_training_rows_and_no_validation_row():
    out, ledger = emit(recipe({"a": 3}), {"train": [row("a", "x")], "validation": [row("a", "v")]})
    assert sorted(r.id for r in out["train"]) == ["x", "x~2", "x~3"]
    assert len({r.messages for r in out["train"]}) == 1
    assert [r.id for r in out["validation"]] == ["v"]
    assert (ledger.read, ledger.kept) == (2, 2)


def test_a_fractional_weight_gives_a_share_of_the_rows_one_more_copy():
    rows = [row("a", str(n)) for n in range(1000)]
    out, ledger = emit(recipe({"a": 2.25}), {"train": rows, "validation": []})
    third = {r.id.removesuffix("~3") for r in out["train"] if r.id.endswith("~3")}
    assert len(out["train"]) == 2000 + len(third)
    assert 200 <= len(third) <= 300
    assert ledger.kept == 1000


def test_a_weight_below_one_leaves_rows_out_and_counts_them():
    rows = [row("a", str(n)) for n in range(1000)] + [row("b", str(n)) for n in range(10)]
    parts = {"train": rows, "validation": [row("a", "v")]}
    out, ledger = emit(recipe({"a": 0.3, "b": 1}), parts)
    kept = sum(r.task == "a" for r in out["train"])
    assert 250 <= kept <= 350
    assert sum(r.task == "b" for r in out["train"]) == 10
    assert len(out["validation"]) == 1
    assert (ledger.read, ledger.kept, dict(ledger.dropped)) == (1011, kept + 11, {"sampled_out": 1000 - kept})


@pytest.mark.parametrize("weight", [0.5, 1.5])
def test_a_fraction_takes_the_same_rows_when_another_source_has_their_bare_ids(weight):
    def taken(names):
        rows = [Conversation(name, "a", (Message("user", f"q {n}"), Message("assistant", "a")), f"a.jsonl:{n}", "") for n, name in names]
        out = emit(recipe({"a": weight}), {"train": rows, "validation": []})[0]["train"]
        return sorted(r.messages[0].content for r in out)

    alone = taken([(n, str(n) if n < 20 else f"{n % 20}@a.jsonl:{n}") for n in range(100)])
    assert taken([(n, f"{n % 20}@a.jsonl:{n}") for n in range(100)]) == alone
    assert 100 * weight - 20 < len(alone) < 100 * weight + 20   # rows of one id are drawn apart


def test_which_rows_a_fraction_takes_depends_on_the_seed_alone():
    parts = {"train": [row("a", str(n)) for n in range(300)], "validation": []}
    first, again = (emit(recipe({"a": 0.5}), parts)[0]["train"] for _ in range(2))
    other = emit(recipe({"a": 0.5}).model_copy(update={"seed": 8}), parts)[0]["train"]
    assert first == again
    assert {r.id for r in first} != {r.id for r in other}


def test_a_copy_never_takes_the_id_of_another_row():
    out, _ = emit(recipe({"a": 2}), {"train": [row("a", "x"), row("a", "x~2")], "validation": [row("a", "x~3")]})
    assert sorted(r.id for r in out["train"]) == ["x", "x~2", "x~2~2", "x~4"]


def test_rows_are_shuffled_by_seed_task_and_id_whatever_order_they_came_in():
    rows = [row(task, str(n)) for task in ("a", "b") for n in range(4)]
    config = recipe({"a": 1, "b": 1})
    forward, backward = (emit(config, {"train": part, "validation": []})[0]["train"] for part in (rows, rows[::-1]))
    assert forward == backward
    assert [(r.task, r.id) for r in forward] == [
        ("b", "3"), ("b", "2"), ("a", "0"), ("a", "3"), ("a", "1"), ("b", "0"), ("b", "1"), ("a", "2")]


JOIN = {"rows": 3, "files": 2, "task": "big"}


def joined(held_out):
    """Tasks after the join, for a `small` task with these held-out files (argparse.py, pprint.py are held out)."""
    rows = [row("big", "b", "ast.py"), row("small", "s", "ast.py"), *(row("small", f"v{n}", key) for n, key in enumerate(held_out))]
    return join_small_tasks(recipe({"small": 1, "big": 1}, {"small": JOIN}), rows)


@pytest.mark.parametrize("held_out", [[], ["argparse.py"] * 3, ["argparse.py", "pprint.py"]])
def test_a_task_too_small_to_measure_joins_another_with_all_its_rows(held_out):
    rows, facts = joined(held_out)
    assert [r.task for r in rows] == ["big"] * (2 + len(held_out))
    assert facts == {"small": {"into": "big", "rows": 1 + len(held_out), "validation_rows": len(held_out),
                               "validation_files": len(set(held_out))}}


def test_a_task_that_is_large_enough_stays_alone():
    rows, facts = joined(["argparse.py", "argparse.py", "pprint.py"])
    assert [r.task for r in rows] == ["big"] + ["small"] * 4
    assert facts == {}


def test_joined_rows_take_the_weight_of_the_task_they_join():
    config = recipe({"small": 1, "big": 2}, {"small": JOIN})
    rows, _ = join_small_tasks(config, [row("big", "b", "ast.py"), row("small", "s", "ast.py")])
    out, _ = emit(config, split_rows(rows, config.split))
    assert rows_per_task(out) == {"big": {"train": 4, "validation": 0}}


def test_a_joined_row_does_not_take_the_id_of_another():
    rows, _ = join_small_tasks(recipe({"small": 1, "big": 1}, {"small": JOIN}), [row("big", "x", "ast.py"), row("small", "x", "ast.py")])
    assert [r.id for r in rows] == ["x", "x@ast.py:1"]


def test_a_task_without_a_training_row_is_an_error():
    with pytest.raises(DataError, match="task 'a' has no training row: 1 rows are held out by file"):
        emit(recipe({"a": 1, "b": 1}), {"train": [row("b", "x")], "validation": [row("a", "v")]})


def test_a_task_that_a_weight_leaves_nothing_of_is_an_error():
    with pytest.raises(DataError, match="task 'a' has no training row: 0 rows are held out by file, the weight is 1e-06"):
        emit(recipe({"a": 0.000001, "b": 1}), {"train": [row("b", "x"), row("a", "y")], "validation": []})


def test_a_task_without_a_validation_row_is_a_warning(caplog):
    with caplog.at_level(logging.WARNING, "mft"):
        emit(recipe({"a": 1}), {"train": [row("a", "x")], "validation": []})
    assert caplog.messages == ["task 'a' has no validation row: none of its keys falls into the held-out 5% (split.by: file)"]
