"""The funnel of Ziya's second stage on 2,000 real instructions: each step drops what it must, and what is kept is exactly right."""

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest
from model_by_rules import ModelByRules
from ziya_funnel import REASONS, ZiyaModel

from mft.data.filters.language import language_of
from mft.synthesis.config import SynthesizeOptions
from mft.synthesis.run import SynthesisResult, synthesize

ROWS = 2000
SOURCES = ("evol_instruct_code_1", "new_codealpaca_0_3599")


def real_instructions(shared_data: Path) -> list[str]:
    """Distinct English instructions that are no longer than 1,000 characters, in order."""
    texts: dict[str, None] = {}
    for name in SOURCES:
        with gzip.open(shared_data / "instruct" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as stream:
            for line in stream:
                row = json.loads(line)
                text = "\n".join(filter(None, [row["instruction"].strip(), row.get("input", "").strip()]))
                if 60 < len(text) < 1000 and language_of(text, 0.1) == "en" and "\r" not in text:
                    texts.setdefault(text)
    return list(texts)[:ROWS]


def options_of(shared_data: Path) -> SynthesizeOptions:
    problems = str(shared_data / "humaneval" / "HumanEval.jsonl.gz")
    return SynthesizeOptions.model_validate({"steps": [
        {"type": "evolve", "keep_parents": False}, {"type": "answer", "temperature": 0}, {"type": "compile"}, {"type": "unit_tests"},
        {"type": "tests_bite"}, {"type": "tests_pass"}, {"type": "exact_dedup"},
        {"type": "decontaminate", "layers": ["substring"], "problems": [problems]}]})


@pytest.fixture(scope="module")
def run(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[ZiyaModel, SynthesisResult]:
    folder = tmp_path_factory.mktemp("funnel")
    texts = real_instructions(shared_data)
    assert len(texts) == ROWS
    seeds = folder / "seeds.jsonl"
    seeds.write_text("".join(json.dumps({"id": f"seed-{number}", "instruction": text}) + "\n" for number, text in enumerate(texts)))
    model = ZiyaModel(shared_data, texts)
    return model, synthesize(seeds, folder / "out", options_of(shared_data), client=ModelByRules(model))


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def number_of(name: str) -> int:
    return int(name.partition("/")[0].removeprefix("seed-"))


def test_the_kept_rows_are_exactly_the_good_ones(run: tuple[ZiyaModel, SynthesisResult]):
    model, result = run
    kept = {number_of(row["id"]) for row in lines(result.folder / "rows.jsonl")}
    assert kept == {number for number, fate in enumerate(model.plan) if fate == "good"}
    assert result.kept == len(kept) == 460


def test_every_other_row_is_dropped_where_it_must_be_and_for_its_own_reason(run: tuple[ZiyaModel, SynthesisResult]):
    model, result = run
    found = {number_of(row["id"]): (row["step"], row["reason"]) for row in lines(result.folder / "dropped.jsonl")}
    expected = {number: REASONS[fate] for number, fate in enumerate(model.plan) if fate != "good"}
    assert {number: reason for number, reason in found.items() if expected.get(number) != reason} == {}
    assert found == expected


def test_the_funnel_narrows_by_the_shares_that_were_put_in(run: tuple[ZiyaModel, SynthesisResult]):
    _, result = run
    assert [(entry["step"], entry["read"], entry["made"], entry["kept"]) for entry in result.funnel] == [
        ("read", 2000, 0, 2000), ("evolve", 2000, 2000, 1780), ("answer", 1780, 0, 1680), ("compile", 1680, 0, 1480),
        ("unit_tests", 1480, 0, 1280), ("tests_bite", 1280, 0, 860), ("tests_pass", 860, 0, 600), ("exact_dedup", 600, 0, 520),
        ("decontaminate", 520, 0, 460)]
    for entry in result.funnel:
        assert entry["read"] + entry["made"] == entry["kept"] + entry["replaced"] + sum(entry["dropped"].values())
    assert result.made == 2000
    assert result.dropped == dict(sorted(Counter(reason for _, reason in (
        REASONS[fate] for fate in run[0].plan if fate != "good")).items()))


def test_a_kept_row_carries_its_lineage_its_tests_and_what_was_measured(run: tuple[ZiyaModel, SynthesisResult]):
    model, result = run
    for row in lines(result.folder / "rows.jsonl"):
        number = number_of(row["id"])
        code, tests = model.problem(number)
        assert row["instruction"] == model.evolved(number)
        assert code in row["output"]
        assert tests[0] in row["tests"]
        assert (row["lineage"]["seed"], row["lineage"]["parent"], row["lineage"]["round"]) == (f"seed-{number}", f"seed-{number}", 1)
        assert (row["measured"]["pass_share"], row["measured"]["checked_by"]) == (1.0, "python")
