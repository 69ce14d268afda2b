"""`held_out_dedup`: what is held out is text that no training row nearly repeats, of any task and any file."""

import json
import textwrap

import pytest

from mft.data import build, load_recipe
from mft.data.dedup.shingles import Shingler, jaccard
from mft.data.filters.parts import texts_of
from mft.data.split import is_validation

FUNCTION = '''
def price_of({name}, currency, day):
    """Give the price of a basket of goods in a currency on a day, {word} taxes."""
    total = 0
    for item, count in {name}.items():
        rate = rates_of(currency).on(day)
        total += count * item.price * rate
        if item.is_taxed:
            total += item.tax * count * rate
    return round(total, currency.digits)
'''
OTHER = '''
def {name}(path, size):
    """Read the file at a path in blocks of a size and {word} them."""
    with open(path, "rb") as stream:
        while block := stream.read(size):
            yield block.{word}()
            {name}_counter.add(len(block))
    return None
'''
RECIPE = """\
name: tree
tasks:
  text2code: {{sources: [{{type: {type}, path: tree, make: text2code}}]}}
  docstring: {{sources: [{{type: {type}, path: tree, make: docstring}}]}}
  completion: {{sources: [{{type: {type}, path: tree, make: completion}}]}}
steps: [{steps}]
split: {{validation: 0.4, by: file}}
"""
HELD_OUT = "{type: held_out_dedup}"


def names(held_out, count):
    """File names on one side of the split, by its rule alone."""
    candidates = (f"f{n}.py" for n in range(1000))
    return [name for name in candidates if is_validation(name, 0.4) == held_out][:count]


@pytest.fixture
def tree(tmp_path):
    """Two held-out files, two trained: one function stands nearly equal on both sides, every other is its own."""
    held, trained = names(True, 2), names(False, 2)
    (tmp_path / "tree").mkdir()
    texts = {held[0]: FUNCTION.format(name="basket", word="with"), trained[0]: FUNCTION.format(name="basket", word="without"),
             held[1]: OTHER.format(name="hash_blocks", word="hash"), trained[1]: textwrap.dedent("""
                 def words(text, least):
                     \"\"\"Count the words of a text that have at least so many letters.\"\"\"
                     found = {}
                     for word in text.split():
                         if len(word) >= least:
                             found[word] = found.get(word, 0) + 1
                     return found
                 """)}
    for name, text in texts.items():
        (tmp_path / "tree" / name).write_text(text)
    return tmp_path, held, trained


def built(folder, steps=HELD_OUT, kind="python_code", out=None):
    (folder / "r.yaml").write_text(RECIPE.format(type=kind, steps=steps))
    return build(load_recipe(folder / "r.yaml", must_exist=True), out)


def files(rows, task=None):
    return {row.split_key for row in rows if task in (None, row.task)}


@pytest.mark.parametrize("kind", ["python_code", "code"])
def test_a_held_out_function_whose_near_copy_is_trained_goes_from_every_task_and_is_counted(tree, kind):
    folder, held, trained = tree
    result = built(folder, kind=kind)
    assert result.facts["dropped"] == {"like_training": 3}
    assert files(result.rows["validation"]) == {held[1]}
    assert files(result.rows["train"]) == set(trained)
    assert {row.task for row in result.rows["validation"]} == {"text2code", "docstring", "completion"}
    assert result.facts["read"] == result.facts["kept"] + 3


def test_each_row_that_went_is_listed_beside_the_training_row_that_is_most_like_it(tree):
    folder, held, trained = tree
    built(folder, out=folder / "out")
    lines = [json.loads(line) for line in (folder / "out" / "like-training.jsonl").read_text().splitlines()]
    assert {line["row"] for line in lines} == {f"{make}/{held[0]}:2" for make in ("text2code", "docstring", "completion")}
    assert all(line["like"].endswith(f"/{trained[0]}:2") and line["like_task"] == line["task"] for line in lines)
    assert all(0.8 < line["jaccard"] < 1 for line in lines)


def test_without_the_step_the_near_copy_stands_on_both_sides(tree):
    folder, held, trained = tree
    result = built(folder, steps="{type: exact_dedup}")
    assert held[0] in files(result.rows["validation"])
    assert trained[0] in files(result.rows["train"])
    assert result.facts["dropped"] == {}


def test_a_near_copy_is_found_though_another_task_shows_it(tree):
    """The training side has the function as completion alone, the held-out side as docstring alone."""
    folder, held, trained = tree
    recipe = RECIPE.format(type="python_code", steps=HELD_OUT)
    for task, gone in (("docstring", trained[:1]), ("completion", held)):
        recipe = recipe.replace(f"make: {task}}}", f"make: {task}, exclude: {json.dumps(gone)}}}")
    (folder / "r.yaml").write_text(recipe.replace("  text2code: ", "  # text2code: "))
    result = build(load_recipe(folder / "r.yaml", must_exist=True))
    assert result.facts["dropped"] == {"like_training": 1}
    assert files(result.rows["validation"], "docstring") == {held[1]}


def test_rows_of_one_function_on_one_side_are_no_copies_of_each_other(tree):
    folder, _, _ = tree
    rows = built(folder).rows
    assert sorted(row.task for row in rows["train"]) == ["completion"] * 2 + ["docstring"] * 2 + ["text2code"] * 2


def test_no_pair_across_the_split_reaches_the_threshold_in_a_real_package():
    """`email` of the standard library: every held-out row against every trained one, by the shingles themselves."""
    import email
    from pathlib import Path

    from mft.data.config import RecipeConfig

    tree = str(Path(email.__file__).parent)
    tasks = {make: {"sources": [{"type": "python_code", "path": tree, "make": make}]} for make in ("text2code", "docstring", "completion")}
    rows = build(RecipeConfig.model_validate({"name": "email", "tasks": tasks, "steps": [{"type": "held_out_dedup", "threshold": 0.5}],
                                              "split": {"validation": 0.3, "by": "file"}})).rows
    assert len(rows["validation"]) > 20
    assert not files(rows["train"]) & files(rows["validation"])
    shingler = Shingler(5)
    sides = [[shingler(["\n".join(texts_of(row, "all"))]) for row in rows[part]] for part in ("train", "validation")]
    assert max(jaccard(one, other) for one in sides[0] for other in sides[1]) < 0.5


def test_rows_without_text_of_a_shingle_or_without_a_side_are_kept(tmp_path):
    rows = [{"id": str(n), "prompt": "a", "answer": "b"} for n in range(4)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "r.yaml").write_text(f"name: r\ntasks: {{t: {{sources: [{{type: jsonl, path: a.jsonl}}]}}}}\nsteps: [{HELD_OUT}]\n"
                                     "split: {validation: 0, by: id}\n")
    assert build(tmp_path / "r.yaml").facts["kept"] == 4


def test_the_split_by_id_is_the_one_that_the_recipe_names(tmp_path):
    """Equal rows under ids of both sides: those that are held out go, the trained ones stay."""
    held = [n for n in range(60) if is_validation(str(n), 0.4)]
    rows = [{"id": str(n), "prompt": "say the same words as always, please", "answer": "the same words as always"} for n in range(60)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "r.yaml").write_text(f"name: r\ntasks: {{t: {{sources: [{{type: jsonl, path: a.jsonl}}]}}}}\nsteps: [{HELD_OUT}]\n"
                                     "split: {validation: 0.4, by: id}\n")
    facts = build(tmp_path / "r.yaml").facts
    assert facts["dropped"] == {"like_training": len(held)}
    assert facts["per_task"]["t"] == {"train": 60 - len(held), "validation": 0}
