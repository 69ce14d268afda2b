"""On public instruction data, which shares no text with HumanEval beyond common code: every hit is written down with its reason."""

import importlib.util
from pathlib import Path

import pytest

from mft.data.decontamination.config import DecontaminateStep
from mft.data.decontamination.detector import Detector
from mft.data.decontamination.layer import RowText
from mft.problems.read import read_problems

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "decontamination_report.py"

SAMPLE_HITS = {
    ("alpaca_en_0_29999.jsonl.gz:11512", "HumanEval/71", "ngrams"),       # Heron's formula; no test of the triangle, no rounding
    ("alpaca_en_0_29999.jsonl.gz:16435", "HumanEval/143", "structure"),   # words_in_sentence(sentence), which here counts words
    ("new_codealpaca_0_3599.jsonl.gz:2426", "HumanEval/94", "ngrams"),    # the prime test that stands inside the solution
    ("new_codealpaca_0_3599.jsonl.gz:2792", "HumanEval/66", "ngrams"),    # "a function that takes a string as input and returns the"
    ("new_codealpaca_0_3599.jsonl.gz:3053", "HumanEval/59", "structure"),  # largest_prime_factor(n), solved in another way
    ("code_completion.jsonl.gz:552", "HumanEval/94", "ngrams"),           # the prime test again
}
"""All that is listed among 10,000 rows of instruct/ and mft/; none of it is dropped."""

DROPPED = {
    ("alpaca_en_0_29999.jsonl.gz:27637", "HumanEval/96", "ngrams"),       # primes up to n: the same task in the same steps
    ("unit_test_gen.jsonl.gz:360", "HumanEval/55", "structure"),          # MBPP's recursive Fibonacci is HumanEval/55's solution
}
"""All that is dropped among the 89,217 rows of both folders."""


@pytest.fixture(scope="module")
def report():
    """scripts/decontamination_report.py as a module."""
    spec = importlib.util.spec_from_file_location("decontamination_report", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def detector(shared_data):
    problems = read_problems(shared_data / "humaneval" / "HumanEval.jsonl.gz")
    return Detector(problems, DecontaminateStep(type="decontaminate", problems=("unused.jsonl",)))


@pytest.fixture(scope="module")
def rows(report, shared_data):
    files = [*sorted((shared_data / "instruct").glob("*.gz")), *sorted((shared_data / "mft").glob("*.gz"))]
    return {path.name: report.read_file(path) for path in files}


def test_of_ten_thousand_clean_rows_none_is_dropped_and_every_listed_one_is_explained(report, detector, rows):
    sample = [row for part in report.sampled(rows, 10_000).values() for row in part]
    assert len(sample) == 10_000
    hits = [(row.id, hit) for row in sample for hit in detector.hits(row)]
    assert {(row, hit.problem, hit.layer) for row, hit in hits} == SAMPLE_HITS
    assert not any(hit.contaminated for _, hit in hits)


@pytest.mark.slow
def test_of_all_rows_two_are_dropped(detector, rows):
    everything = [row for part in rows.values() for row in part]
    assert len(everything) == 89_217
    assert {(row.id, hit.problem, hit.layer) for row in everything for hit in detector.hits(row) if hit.contaminated} == DROPPED


def test_the_prime_test_inside_a_solution_is_common_code(detector, rows):
    """Fifteen of 1,966 rows have it: a quarter of the solution of HumanEval/94. They are listed and stay."""
    layer = detector.layers["ngrams"]
    hits = [hit for row in rows["evol_instruct_code_1.jsonl.gz"] for hit in layer.find(RowText(row)) if hit.problem == "HumanEval/94"]
    assert [(round(hit.score, 2), hit.contaminated) for hit in hits] == [(0.26, False)] * 15


def test_the_training_part_of_mbpp_is_recognised_in_unit_test_rows(shared_data, rows):
    """374 rows were made of MBPP 601 to 974; the others hold a function of one formula, without the sentence that asks for it."""
    problems = read_problems(shared_data / "mbpp" / "mbpp.jsonl.gz")
    detector = Detector(problems, DecontaminateStep(type="decontaminate", problems=("unused.jsonl",)))
    found = [row.id for row in rows["unit_test_gen.jsonl.gz"] if any(hit.contaminated for hit in detector.hits(row))]
    assert len(found) == 350


def test_the_report_prints_a_line_for_each_file(report, shared_data, monkeypatch, capsys):
    problems, data = shared_data / "humaneval" / "HumanEval.jsonl.gz", shared_data / "instruct" / "identity.jsonl.gz"
    monkeypatch.setattr("sys.argv", ["report", "--problems", str(problems), "--hits", "all", "--", str(data)])
    report.main()
    first, _, line, total = capsys.readouterr().out.splitlines()
    assert first == "164 problems; ngrams cannot name 3"
    assert line.split()[:3] == ["identity.jsonl.gz", "91", "0"]
    assert total.split()[:3] == ["all", "91", "0"]
