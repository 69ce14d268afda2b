"""`decontaminate` in a recipe: keys, verdicts, report, the list beside the build, and problem files as part of the build's inputs."""

import json
import shutil

import pytest

from mft.data import build, load_recipe
from mft.errors import ConfigError, DataError, OutputError
from mft.files import check_manifest, read_json

STATEMENT = "Sort the given numbers, take the gaps between neighbours, and return the k-th smallest of these gaps."
PROGRAM = f'''def kth_gap(numbers, k):
    """{STATEMENT}"""
    ordered = sorted(numbers)
    gaps = [right - left for left, right in zip(ordered, ordered[1:])]
    gaps.sort()
    return gaps[k - 1]
'''
HALF = " ".join(STATEMENT.split()[:12])
RECIPE = """
name: small
tasks:
  chat: {{sources: [{{type: jsonl, path: rows.jsonl}}]}}
steps:
  - {{type: decontaminate, problems: ["bench/*.jsonl"]{keys}}}
split: {{validation: 0.2, by: id}}
"""


def row(name, user, answer):
    return {"id": name, "messages": [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]}


def problem(name="Bench/0", program=PROGRAM):
    head = program.index("    ordered")
    return {"task_id": f"HumanEval/{name}", "prompt": program[:head], "canonical_solution": program[head:], "entry_point": "kth_gap",
            "test": ""}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "bench.jsonl").write_text(json.dumps(problem()) + "\n")
    rows = [row(f"clean {number}", f"What is {number} squared?", f"It is {number * number}.") for number in range(20)]
    rows += [row("word for word", STATEMENT, "I will."), row("half", f"Please: {HALF}", "No."),
             row("renamed", "Go.", PROGRAM.replace(STATEMENT, "It.").replace("ordered", "a").replace("gaps", "b").replace("kth_gap", "f")),
             row("reworded", STATEMENT.replace("Sort", "Order").replace(",", ";"), "Yes."),
             {"id": "system", "messages": [{"role": "system", "content": STATEMENT}, *row("", "Hello.", "Hello.")["messages"]]}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_recipe(tmp_path)
    return tmp_path


def write_recipe(folder, keys=""):
    (folder / "small.yaml").write_text(RECIPE.format(keys=keys and f", {keys}"))
    return folder / "small.yaml"


def kept_ids(result):
    return {row.id for part in result.rows.values() for row in part if not row.id.startswith("clean")}


def step_of(facts):
    return next(step for step in facts["steps"] if step["step"] == "decontaminate")


def test_rows_are_dropped_by_the_first_layer_that_is_sure_and_the_ledger_adds_up(folder):
    result = build(folder / "small.yaml")
    assert kept_ids(result) == {"half"}
    step = step_of(result.facts)
    assert (step["read"], step["kept"]) == (25, 21)
    assert step["dropped"] == {"contaminated_substring": 2, "contaminated_ngrams": 1, "contaminated_structure": 1}


def test_the_report_names_row_problem_layer_score_and_evidence_of_every_hit(folder):
    report = step_of(build(folder / "small.yaml").facts)["report"]
    assert report["problems"] == {"bench": 1}
    assert report["layers"] == {"substring": {"contaminated": 2, "listed": 0}, "ngrams": {"contaminated": 3, "listed": 1},
                                "structure": {"contaminated": 1, "listed": 0}}
    assert report["by_problem"] == {"bench/HumanEval/Bench/0": 4}
    half, = [hit for hit in report["hits"] if hit["row"] == "half"]
    assert half == {"row": "half", "problem": "bench/HumanEval/Bench/0", "layer": "ngrams", "score": 0.455, "contaminated": False,
                    "evidence": f"45% of its 8-grams of words: {STATEMENT[:100]}..."}


def test_with_action_report_every_row_stays_and_is_noted(folder):
    result = build(write_recipe(folder, "action: report"))
    assert kept_ids(result) == {"half", "word for word", "renamed", "reworded", "system"}
    step = step_of(result.facts)
    assert step["dropped"] == {}
    assert step["noted"] == {"contaminated_substring": 2, "contaminated_ngrams": 1, "contaminated_structure": 1}
    assert len(result.lists["contamination.jsonl"]) == 7


@pytest.mark.parametrize(("keys", "kept"), [
    ("layers: [substring]", {"half", "reworded", "renamed"}), ("layers: [ngrams]", {"half", "renamed"}),
    ("layers: [structure]", {"half", "reworded", "word for word", "system"}), ("drop_share: 0.4", set()),
    (f"allow: ['{STATEMENT}']", {"half", "reworded", "word for word", "system"}),
])
def test_layers_shares_and_allowed_texts_act(folder, keys, kept):
    assert kept_ids(build(write_recipe(folder, keys))) == kept


def test_list_share_says_what_is_listed(folder):
    hits = [hit["row"] for hit in build(write_recipe(folder, "list_share: 0.5")).lists["contamination.jsonl"]]
    assert "half" not in hits
    assert "reworded" in hits


@pytest.mark.parametrize(("keys", "message"), [
    ("layers: []", "layers: expected 1 or more entries"),
    ("layers: [substring, substring]", "layers: each once, found substring, substring"),
    ("layers: [embedding]", "expected 'substring', 'ngrams' or 'structure', found 'embedding'"),
    ("list_share: 0.9", r"list_share is 0\.9, above drop_share \(0\.6\)"), ("drop_share: 0", "more than 0"),
    ("action: delete", "'drop' or 'report'"),
])
def test_mistakes_in_the_keys_are_named(folder, keys, message):
    with pytest.raises(ConfigError, match=message):
        load_recipe(write_recipe(folder, keys))


def test_a_problem_file_that_is_not_there_is_named_with_its_line(folder):
    (folder / "bench" / "bench.jsonl").unlink()
    assert load_recipe(folder / "small.yaml").name == "small"
    with pytest.raises(ConfigError, match=r"small\.yaml:6: steps\.0\.problems: .*bench/\*\.jsonl: no file matches"):
        load_recipe(folder / "small.yaml", must_exist=True)


OWN = "{path: own.jsonl, columns: {prompt: question, solution: answer, id: number}}"
QUESTION = "A farmer has seven brown hens, and each hen lays three eggs every two days; how many eggs are there after ten days?"
ANSWER = "Seven hens times three eggs times five periods make one hundred and five eggs, since ten days hold five periods of two."


def with_own_problems(folder, entry=OWN):
    """The recipe with a problem file of an unknown layout beside the benchmark, and two rows that hold its problem."""
    (folder / "own.jsonl").write_text(json.dumps({"question": QUESTION, "answer": ANSWER, "number": 9}) + "\n")
    with (folder / "rows.jsonl").open("a") as rows:
        rows.write(json.dumps(row("asked", f"So: {QUESTION.upper()}", "105")) + "\n" + json.dumps(row("told", "Go.", ANSWER)) + "\n")
    recipe = write_recipe(folder)
    recipe.write_text(recipe.read_text().replace('"bench/*.jsonl"', f'"bench/*.jsonl", {entry}'))
    return recipe


def test_problems_of_any_layout_are_looked_for_when_their_keys_are_named(folder):
    result = build(with_own_problems(folder))
    assert kept_ids(result) == {"half"}
    hits = {(hit["row"], hit["problem"]) for hit in result.lists["contamination.jsonl"] if hit["problem"].startswith("own/")}
    assert hits == {("asked", "own/9"), ("told", "own/9")}
    assert step_of(result.facts)["report"]["problems"] == {"bench": 1, "own": 1}


def test_without_a_solution_a_problem_is_looked_for_by_its_prompt(folder):
    assert kept_ids(build(with_own_problems(folder, "{path: own.jsonl, columns: {prompt: question}}"))) == {"half", "told"}


def test_other_keys_of_a_problem_file_make_another_build_and_its_recipe_can_be_built_from_anywhere(folder, tmp_path_factory):
    recipe, out = with_own_problems(folder), tmp_path_factory.mktemp("elsewhere") / "out"
    result = build(recipe, out)
    assert build(out / "recipe.yaml").facts == result.facts
    build(recipe, out)                      # found finished
    recipe.write_text(recipe.read_text().replace("solution: answer, ", ""))
    with pytest.raises(OutputError, match="holds another build"):
        build(recipe, out)


@pytest.mark.parametrize(("old", "new", "message"), [
    ("prompt:", "promt:", "promt: not a known key; did you mean 'prompt'"),
    ("own.jsonl", "owl.jsonl", r"steps\.0\.problems: .*owl\.jsonl: no such file"),
    (", columns: {prompt: question, solution: answer, id: number}", "", r"problems\.1\.columns: is required and not given"),
])
def test_mistakes_in_the_keys_of_a_problem_file_are_named(folder, old, new, message):
    with pytest.raises(ConfigError, match=message):
        load_recipe(with_own_problems(folder, OWN.replace(old, new)), must_exist=True)


def test_a_file_of_an_unknown_layout_is_refused_with_the_line_that_would_read_it(folder):
    with pytest.raises(DataError, match=r"own\.jsonl:1: a problem needs 'task_id'; .*columns: \{prompt: \.\.\., solution: \.\.\.\}"):
        build(with_own_problems(folder, "own.jsonl"))


def test_two_files_of_one_name_are_refused(folder):
    (folder / "bench" / "more").mkdir()
    shutil.copy(folder / "bench" / "bench.jsonl", folder / "bench" / "more")
    (folder / "small.yaml").write_text(RECIPE.format(keys="").replace("bench/*.jsonl", "bench/**/*.jsonl"))
    with pytest.raises(DataError, match="two problem files have the name 'bench'"):
        build(folder / "small.yaml")


def test_a_step_of_one_task_marks_its_hits_with_the_task(folder):
    text = RECIPE.format(keys="").replace("steps:\n  - ", "  own:\n    sources: [{type: jsonl, path: rows.jsonl}]\n    steps:\n      - ")
    (folder / "small.yaml").write_text(text)
    result = build(folder / "small.yaml")
    assert {hit["task"] for hit in result.lists["contamination.jsonl"]} == {"own"}
    assert {row.task for part in result.rows.values() for row in part if row.id == "renamed"} == {"chat"}


def test_the_build_folder_lists_every_hit_and_its_recipe_can_be_built_from_anywhere(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("elsewhere") / "out"
    result = build(folder / "small.yaml", out)
    lines = [json.loads(line) for line in (out / "contamination.jsonl").read_text().splitlines()]
    assert lines == result.lists["contamination.jsonl"]
    assert [line["row"] for line in lines][:2] == ["word for word", "word for word"]
    manifest = check_manifest(out)
    assert [entry["step"] for entry in manifest["inputs"] if "step" in entry] == ["decontaminate"]
    again = build(out / "recipe.yaml")
    assert again.facts == result.facts


def test_a_changed_problem_file_makes_another_build_and_a_moved_one_does_not(folder):
    recipe, out = folder / "small.yaml", folder / "out"
    build(recipe, out)
    job = read_json(out / "manifest.json")["job"]
    (folder / "bench").rename(folder / "moved")
    recipe.write_text(recipe.read_text().replace("bench/", "moved/"))
    build(recipe, out)                      # found finished
    assert read_json(out / "manifest.json")["job"] == job
    (folder / "moved" / "bench.jsonl").write_text(json.dumps(problem("Bench/1")) + "\n")
    with pytest.raises(OutputError, match="holds another build"):
        build(recipe, out)
    build(recipe, out, overwrite=True)
    assert read_json(out / "manifest.json")["job"] != job
    assert "Bench/1" in (out / "contamination.jsonl").read_text()
