"""configs/my-repository-taught.yaml over a small tree: functions, a teacher, the sandbox, the data; no key, no held-out file trained."""

import json
from pathlib import Path

import pytest
from fake_endpoint import FakeEndpoint
from taught_tree import GO_HELD_OUT, GO_TRAINED, HELD_OUT, MADE_UP, PLANTED, TRAINED, plant, teacher

from mft.cli.main import main
from mft.conversation import Conversation
from mft.data.pipeline import read_built
from mft.data.split import is_validation

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs" / "my-repository-taught.yaml"
RECIPE = ROOT / "data_recipes" / "my-repository-taught.yaml"


def smaller(folder: Path) -> Path:
    """The shipped recipe for a code base of fourteen files."""
    text = RECIPE.read_text(encoding="utf-8")
    for old, new in (("validation: 0.05", "validation: 0.2"), ("rows: 20, files: 3", "rows: 2, files: 2")):
        assert text.count(old) == 1
        text = text.replace(old, new)
    path = folder / RECIPE.name
    path.write_text(text, encoding="utf-8")
    return path


def run(out: Path, tree: Path, url: str, recipe: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, dict]:
    """The shipped project; what each stage says, up to the data that is trained on."""
    place = f"tree: {{path: {tree}}}"
    client = f"{{type: endpoint, urls: ['{url}'], model: teacher}}"
    with pytest.raises(SystemExit) as ended:
        main(["-q", "--json", "run", str(CONFIG), "--out", str(out), "--until", "data", f"stages.functions.parameters={{{place}}}",
              f"stages.data.parameters={{{place}, described: {{stage: described}}, tested: {{stage: tested}}}}",
              f"stages.data.recipe={recipe}", f"stages.described.client={client}", f"stages.tested.client={client}"])
    said = capsys.readouterr()
    assert ended.value.code == 0, said.err
    return {stage["name"]: stage["result"] for stage in json.loads(said.out)["stages"]}


def text_of(row: Conversation) -> str:
    return "\n".join(message.content for message in row.messages)


def words_in(rows: list[Conversation]) -> set[str]:
    """Which words of the tree stand in these rows."""
    texts = "\n".join(map(text_of, rows)).lower()
    return {word for word in TRAINED + HELD_OUT + GO_TRAINED + GO_HELD_OUT if word in texts}


@pytest.mark.slow
def test_what_a_teacher_writes_of_a_function_is_trained_where_its_file_is_and_no_key_is_seen(tmp_path: Path, capsys):
    sides = {True: (HELD_OUT, GO_HELD_OUT), False: (TRAINED, GO_TRAINED)}
    assert all(is_validation(f"{word}.{end}", 0.2) == side for side, words in sides.items()
               for end, names in zip(("py", "go"), words, strict=True) for word in names)
    with FakeEndpoint(teacher) as fake:
        results = run(tmp_path / "out", plant(tmp_path / "tree"), fake.url, smaller(tmp_path), capsys)
        seen = json.dumps(fake.asked)

    # 11 files of a function and a method, 3 of Go; two functions more hold the planted key, what is said of a third a key made up
    assert (results["functions"]["kept"], results["functions"]["dropped"]) == (25, {"secret": 2})
    assert (results["described"]["kept"], results["described"]["dropped"]) == (24, {"secret": 1})
    assert (results["tested"]["kept"], results["tested"]["dropped"]) == (10, {"not_python": 3, "tests_fail": 11})
    assert results["data"]["per_task"] == {
        **{task: {"train": 18, "validation": 7} for task in ("text2code", "docstring", "completion")},
        "tested": {"train": 7, "validation": 3}, "unit_tests": {"train": 6, "validation": 3}, "described": {"train": 10, "validation": 4}}
    assert results["data"]["dropped"]["duplicate"] == 10      # what is in `tested` is not once more in `described`
    assert results["data"]["dropped"]["secret"] == 5          # two functions of three lines in two tasks, and a test with a key

    rows = {part: list(read) for part, read in read_built(tmp_path / "out" / "data").items()}
    assert words_in(rows["train"]) == {*TRAINED, *GO_TRAINED}          # no word of a held-out file in any trained row
    assert words_in(rows["validation"]) == {*HELD_OUT, *GO_HELD_OUT}
    assert all(looks_right(row) for part in rows.values() for row in part)

    assert PLANTED not in seen
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file() and PLANTED.encode() in path.read_bytes()]
    assert not [row.id for part in rows.values() for row in part if MADE_UP in text_of(row)]


def test_a_tree_without_python_has_nothing_tested_and_builds_all_the_same(tmp_path: Path, capsys):
    tree = plant(tmp_path / "tree")
    for path in tree.glob("*.py"):
        path.unlink()
    with FakeEndpoint(teacher) as fake:
        results = run(tmp_path / "out", tree, fake.url, smaller(tmp_path), capsys)
    assert (results["tested"]["kept"], results["tested"]["dropped"]) == (0, {"not_python": 3})
    assert results["data"]["per_task"]["described"] == {"train": 2, "validation": 1}
    assert results["data"]["joined"]["unit_tests"]["into"] == results["data"]["joined"]["tested"]["into"] == "described"


def looks_right(row: Conversation) -> bool:
    """The question and the answer of a row are those of its task; of the four tasks that are cut, other tests know."""
    question, answer = (message.content for message in row.messages)
    if row.task == "unit_tests":
        asked = "Write unit tests for this Python function. It is in a module named `solution`.\n```python\ndef sum_"
        return question.startswith(asked) and answer.startswith("```python\nfrom solution import sum_") and answer.endswith("\n```")
    if row.task in ("described", "tested"):
        heads = ("```python\ndef sum_",) if row.task == "tested" else ("```python\ndef take_", "```go\n// Count")
        return question.startswith("Our ") and answer.startswith(heads)
    return True
