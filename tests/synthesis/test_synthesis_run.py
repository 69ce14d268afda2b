"""The folder of a synthesis: whole or not at all, the same after an interruption, and without a word of what was said in the logs."""

import gzip
import json
import logging
from pathlib import Path

import pytest
from model_by_rules import ModelByRules, asked

from mft.data.ledger import Ledger
from mft.data.pipeline import build
from mft.data.readers.conversations import read_conversations
from mft.errors import ConfigError, DataError, OutputError
from mft.synthesis.config import SynthesizeOptions, load_options
from mft.synthesis.run import synthesize
from mft.synthesis.seeds import read_seeds

STEPS = [{"type": "evolve", "keep_parents": False}, {"type": "answer"}, {"type": "unit_tests"}, {"type": "tests_bite", "mutants": 2},
         {"type": "tests_pass", "runs": 1}]
SECRET = "the-secret-of-the-prompt"
CODE = "def twice(x):\n    return 2 * x\n"


def options(steps: list | None = None, **more) -> SynthesizeOptions:
    return SynthesizeOptions.model_validate({"steps": steps or STEPS, **more})


def write_seeds(path: Path, number: int = 6) -> Path:
    rows = [{"id": f"s{each}", "instruction": f"Write number {each}, {SECRET}."} for each in range(number)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rule(request) -> str:
    text = asked(request)
    if request.purpose == "evolve":
        number = text.rpartition("number ")[2][0]
        return "No." if number == "3" else f"Write a function twice(x) that doubles x, also a negative x; number {number}, {SECRET}."
    if request.purpose == "answer":
        return f"```python\n{CODE}```\n{SECRET}"
    tests = f"def test_twice():\n    assert twice(2) == 4, '{SECRET}'\n    assert twice(-3) == -6\n"
    return f"```python\nfrom solution import twice\n\n{tests}```"


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_the_same_synthesis_is_not_made_twice_and_another_is_refused(tmp_path: Path):
    seeds, model = write_seeds(tmp_path / "seeds.jsonl"), ModelByRules(rule)
    first = synthesize(seeds, tmp_path / "out", options(), client=model)
    number = len(model.requests)
    assert (first.kept, first.made, first.dropped) == (5, 6, {"too_short": 1})
    assert synthesize(seeds, tmp_path / "out", options(), client=model) == first
    assert len(model.requests) == number
    with pytest.raises(OutputError, match="holds another synthesis"):
        synthesize(seeds, tmp_path / "out", options(seed=5), client=model)
    assert synthesize(seeds, tmp_path / "out", options(seed=5), client=model, overwrite=True).kept == 5
    (tmp_path / "out" / "rows.jsonl").write_text("")
    with pytest.raises(OutputError, match="not as it was written"):
        synthesize(seeds, tmp_path / "out", options(seed=5), client=model)


def until(step: str):
    """The rule, interrupted when it is asked by this step."""
    def interrupted(request) -> str:
        if request.purpose == step:
            raise KeyboardInterrupt
        return rule(request)

    return interrupted


def stop_at(step: str):
    """Interrupts at the first word of this step."""
    def told(name: str, done: int, total: int) -> None:
        if name == step:
            raise KeyboardInterrupt

    return told


def test_interrupted_in_any_step_and_run_again_gives_the_same_bytes(tmp_path: Path):
    seeds = write_seeds(tmp_path / "seeds.jsonl")
    synthesize(seeds, tmp_path / "whole", options(), client=ModelByRules(rule))
    for step in ("answer", "unit_tests", "tests_bite", "tests_pass"):
        out = tmp_path / step
        with pytest.raises(KeyboardInterrupt):
            synthesize(seeds, out, options(), client=ModelByRules(until(step)), told=stop_at(step))
        assert not out.exists()
        synthesize(seeds, out, options(), client=ModelByRules(rule))
        assert files(out) == files(tmp_path / "whole")
        assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_verdicts_of_a_run_that_was_stopped_are_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import mft.synthesis.feedback.judging as judging

    judged: list[str] = []
    real = judging.judge

    def counting(programs, **options):
        for result in real(programs, **options):
            judged.append(result.id)
            yield result

    monkeypatch.setattr(judging, "judge", counting)

    seeds = write_seeds(tmp_path / "seeds.jsonl")
    with pytest.raises(KeyboardInterrupt):
        synthesize(seeds, tmp_path / "out", options(), client=ModelByRules(rule), told=stop_at("tests_pass"))
    synthesize(seeds, tmp_path / "out", options(), client=ModelByRules(rule))
    assert len(judged) == len(set(judged)) > 0


def test_nothing_that_was_asked_or_answered_is_logged_or_listed(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG, logger="mft")
    result = synthesize(write_seeds(tmp_path / "seeds.jsonl"), tmp_path / "out", options(), client=ModelByRules(rule))
    assert SECRET not in caplog.text
    assert "evolve: 6 rows in, 6 made, 5 kept, 1 dropped (too_short 1)" in caplog.text
    for name in ("dropped.jsonl", "funnel.json", "manifest.json"):
        assert SECRET not in (result.folder / name).read_text()
    assert SECRET not in json.dumps(result.to_json())
    assert SECRET in (result.folder / "rows.jsonl").read_text()


def test_texts_of_dropped_rows_are_written_where_they_are_asked_for(tmp_path: Path):
    asks_for_texts = options(keep_dropped_texts=True)
    result = synthesize(write_seeds(tmp_path / "seeds.jsonl"), tmp_path / "out", asks_for_texts, client=ModelByRules(rule))
    dropped = [json.loads(line) for line in (result.folder / "dropped.jsonl").read_text().splitlines()]
    assert [(row["reason"], row["row"]["instruction"]) for row in dropped] == [("too_short", "No.")]


def test_a_recipe_reads_the_rows(tmp_path: Path):
    synthesize(write_seeds(tmp_path / "seeds.jsonl"), tmp_path / "out", options(task="evolved"), client=ModelByRules(rule))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("name: r\ntasks:\n  evolved:\n    sources: [{type: jsonl, path: out/rows.jsonl, converter: alpaca}]\n"
                      "steps: [{type: syntax}]\nsplit: {validation: 0}\n")
    rows = list(build(recipe).rows["train"])
    assert sorted(row.id.partition("/")[0] for row in rows) == ["s0", "s1", "s2", "s4", "s5"]
    assert rows[0].messages[1].content == f"```python\n{CODE}```\n{SECRET}"
    assert len(list(read_conversations(tmp_path / "out" / "rows.jsonl"))) == 5


def test_a_synthesis_goes_on_from_another_one(tmp_path: Path):
    synthesize(write_seeds(tmp_path / "seeds.jsonl"), tmp_path / "first", options(STEPS[:3]), client=ModelByRules(rule))
    second = synthesize(tmp_path / "first", tmp_path / "second", options(STEPS[3:]))
    whole = synthesize(tmp_path / "seeds.jsonl", tmp_path / "whole", options(), client=ModelByRules(rule))
    assert (second.folder / "rows.jsonl").read_bytes() == (whole.folder / "rows.jsonl").read_bytes()


SEEDS = [
    ({"id": "a", "code": "def f():\n    return 1\n"}, ("", "def f():\n    return 1\n", "python")),
    ({"id": "b", "code": "func f() int { return 1 }", "language": "go"}, ("", "func f() int { return 1 }", "go")),
    ({"id": "c", "instruction": "Do it.", "input": "1 2", "output": "```rust\nfn f() {}\n```", "tests": ""},
     ("Do it.\n1 2", "fn f() {}\n", "rust")),
    ({"id": "d", "code": "", "instruction": " "}, "nothing_there"), ({"id": "e", "code": "x", "language": "cobol"}, "unknown_language"),
    ({"id": "f", "code": 7}, "wrong_type"), ([1], "not_an_object"),
]


def test_seeds_of_its_own_layout_are_read_and_what_is_none_is_counted(tmp_path: Path):
    path = tmp_path / "seeds.jsonl.gz"
    with gzip.open(path, "wt") as stream:
        stream.write("".join(json.dumps(row) + "\n" for row, _ in SEEDS))
    ledger = Ledger("read")
    rows = read_seeds(path, options(), ledger)
    ledger.close()
    assert [(row.instruction, row.code, row.language) for row in rows] == [found for _, found in SEEDS if isinstance(found, tuple)]
    assert ledger.counts() == {"read": 7, "kept": 3,
                               "dropped": {"nothing_there": 1, "not_an_object": 1, "unknown_language": 1, "wrong_type": 1}}


def test_seeds_of_any_layout_and_of_a_built_folder_are_read(tmp_path: Path):
    path = tmp_path / "chat.jsonl"
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "```c\nint x;\n```"}]
    path.write_text("".join(json.dumps({"id": "same", "messages": each}) + "\n" for each in (messages, messages + messages, messages)))
    ledger = Ledger("read")
    rows = read_seeds(path, options(task="t"), ledger)
    assert [(row.id, row.task, row.instruction, row.code, row.language) for row in rows] == [
        ("same", "t", "Hi", "int x;\n", "c"), ("same@chat.jsonl:3", "t", "Hi", "int x;\n", "c")]
    assert ledger.counts() == {"read": 3, "kept": 2, "dropped": {"not_one_turn": 1}}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("name: r\ntasks: {t: {sources: [{type: jsonl, path: chat.jsonl}]}}\nsplit: {validation: 0}\n")
    build(recipe, tmp_path / "built")
    assert len(read_seeds(tmp_path / "built", options(), Ledger("read"))) == 2


def test_mistakes_are_messages(tmp_path: Path):
    seeds = write_seeds(tmp_path / "seeds.jsonl")
    with pytest.raises(ConfigError, match="evolve, answer, unit_tests: a language model must answer"):
        synthesize(seeds, tmp_path / "out", options())
    with pytest.raises(DataError, match="is no file of rows"):
        synthesize(tmp_path / "nothing", tmp_path / "out", options([{"type": "compile"}]))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(OutputError, match="which --overwrite does not remove"):
        synthesize(seeds, tmp_path / "mine", options([{"type": "compile"}]), overwrite=True)
    path = tmp_path / "o.yaml"
    path.write_text("steps:\n  - {type: tests_bite, mutnts: 3}\nsed: 1\n")
    with pytest.raises(ConfigError) as caught:
        load_options(path)
    assert f"{path}:2: steps.0.mutnts: not a known key; did you mean 'mutants'?" in str(caught.value)
    assert f"{path}:3: sed: not a known key; did you mean 'seed'?" in str(caught.value)
