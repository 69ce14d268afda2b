"""What `mft evaluate` does with a benchmark: score a samples file, check the benchmark itself, generate and score, compare."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from mft.errors import CheckFailed, ConfigError, DataError
from mft.evaluation.completions import Columns, Sample, read_samples
from mft.evaluation.judging import JudgeOptions, Score, file_facts, problem_verdicts, score
from mft.evaluation.mcnemar import compare
from mft.evaluation.programs import canonical, stubbed, user_text
from mft.evaluation.protocol import Protocol
from mft.evaluation.protocols import protocol as find_protocol
from mft.files import claim_folder, write_json, write_text
from mft.hashes import sha256_json
from mft.problems.benchmarks import benchmark, load_benchmark, problem_file
from mft.problems.problem import Problem
from mft.runs.progress import progress_bar

logger = logging.getLogger(__name__)

EVALUATION: Final = "evaluation.json"
ANSWERS: Final = "answers.jsonl"


@dataclass(frozen=True, slots=True)
class Exam:
    """A benchmark under a protocol, and how its programs are run. `limit`: the first so many problems alone, which the score says."""

    name: str
    protocol_name: str
    problems_path: Path | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    judge: JudgeOptions = field(default_factory=JudgeOptions)
    limit: int | None = None

    def load(self) -> "OpenExam":
        """The problems and the protocol.

        Raises:
            DataError, ConfigError: the file or the protocol cannot be used.
        """
        path = problem_file(self.name, self.problems_path)
        problems, left_out = load_benchmark(self.name, path)
        facts = {**file_facts(path), "count": len(problems), **({"left_out": left_out} if left_out else {})}
        if self.limit is not None and self.limit < len(problems):
            problems = problems[:self.limit]
            facts["first"] = self.limit
        return OpenExam(self, problems, find_protocol(self.protocol_name, problems[0].style, self.changes), facts)


@dataclass(frozen=True, slots=True)
class OpenExam:
    """An exam with its problems read."""

    exam: Exam
    problems: list[Problem]
    protocol: Protocol
    problem_facts: dict[str, Any]

    @property
    def plus(self) -> bool:
        return benchmark(self.exam.name).plus

    def judged(self, samples: Sequence[Sample], facts: Mapping[str, Any], *, folder: Path | None = None, own_prompt: bool = False,
               plus: bool | None = None) -> Score:
        """The score of these samples."""
        head = {"benchmark": self.exam.name, "problem_file": self.problem_facts, **facts}
        with progress_bar("judge") as report:
            return score(samples, self.problems, self.protocol, options=self.exam.judge, facts=head, own_prompt=own_prompt,
                         plus=self.plus if plus is None else plus, folder=folder, progress=report)


def score_file(exam: Exam, samples: Path, *, ks: Sequence[int] = (1,), columns: Columns | None = None, own_prompt: bool = False,
               out: Path | None = None, overwrite: bool = False) -> dict[str, Any]:
    """`mft evaluate score`: the result as written to `evaluation.json`.

    Raises:
        DataError: the samples do not fit the problems, or a k is above their number. OutputError: `out` holds something else.
    """
    opened = exam.load()
    found = read_samples(samples, opened.problems, columns)
    _check_ks(ks, len(found) // len(opened.problems), samples)
    facts = {"samples_file": file_facts(samples), "own_prompt": own_prompt, "model": None}
    if out is not None:
        claim_folder(out, sha256_json([opened.problem_facts, opened.protocol.sha256, facts]), overwrite=overwrite)
    result = opened.judged(found, facts, folder=out, own_prompt=own_prompt).to_json(ks)
    return finish(opened, result, found, out)


def finish(opened: OpenExam, result: dict[str, Any], samples: Sequence[Sample], out: Path | None) -> dict[str, Any]:
    """Write `evaluation.json`, with the base score beside the plus score where the benchmark has both."""
    if opened.plus:
        base = opened.judged(samples, {}, folder=out, plus=False)
        facts = base.to_json()
        result["base"] = {key: facts[key] for key in ("passed", "total", "pass@1", "ci95", "correct")}
    if out is not None:
        write_answers(opened, result, samples, out)
        write_json(out / EVALUATION, result)
    return result


def write_answers(opened: OpenExam, result: Mapping[str, Any], samples: Sequence[Sample], out: Path) -> None:
    """`answers.jsonl`, for people: of every problem what was asked, one answer (the first that failed, if one did), its end."""
    failed: dict[str, dict[str, Any]] = {}
    for failure in result["failures"]:
        failed.setdefault(failure["id"], failure)
    shown: dict[str, Sample] = {}
    for sample in samples:
        if sample.number == failed.get(sample.problem, {"sample": 0})["sample"]:
            shown[sample.problem] = sample
    rows = [{"id": problem.id, "prompt": user_text(problem, opened.protocol), "sample": shown[problem.id].number,
             "completion": shown[problem.id].answer, "status": failed.get(problem.id, {}).get("status", "passed"),
             "detail": failed.get(problem.id, {}).get("detail", ""), "passed": result["correct"][problem.id],
             "samples": result["samples"][problem.id]} for problem in opened.problems]
    write_text(out / ANSWERS, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def check_benchmark(exam: Exam) -> dict[str, Any]:
    """`mft evaluate check`: canonical solutions must pass and bodies that do nothing must fail, through the whole protocol.

    Raises:
        CheckFailed: some do not; `result` says which.
    """
    opened = exam.load()
    good = opened.judged([canonical(problem, opened.protocol) for problem in opened.problems], {"samples_file": "canonical solutions"})
    bad = opened.judged([stubbed(problem, opened.protocol) for problem in opened.problems], {"samples_file": "empty bodies"})
    facts = good.to_json()
    passing = [verdict.problem for verdict in bad.verdicts if verdict.passed]
    result = {**facts, "stubs": {"passed": len(passing), "total": len(bad.verdicts), "ids": passing}}
    faults = [f"canonical solution of '{failure['id']}': {failure['status']}: {_last_line(failure['detail'])}"
              for failure in facts["failures"]]
    faults += [f"a body that does nothing passes '{name}'" for name in passing]
    if faults:
        failed = CheckFailed(f"{exam.name} under {opened.protocol.name}: canonical {facts['passed']}/{facts['total']}, empty bodies "
                             f"{len(passing)}/{len(bad.verdicts)}\n" + "\n".join(f"  {fault}" for fault in faults[:40]))
        failed.result = result
        raise failed
    return result


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1][:160]


def _check_ks(ks: Sequence[int], samples: int, where: Path | str) -> None:
    if wrong := [k for k in ks if not 1 <= k <= samples]:
        raise DataError(f"{where}: pass@{wrong[0]} cannot be said without bias from {samples} sample{'s' if samples > 1 else ''} a "
                        f"problem; allowed: k from 1 to {samples}")


def read_score(path: Path) -> dict[str, Any]:
    """An `evaluation.json`, or the one in a folder.

    Raises:
        DataError: there is none, or it is no score.
    """
    file = path / EVALUATION if path.is_dir() else path
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{file}: no such file; give an {EVALUATION}, or the folder of `mft evaluate ... --out`") from error
    except (ValueError, OSError) as error:
        raise DataError(f"{file}: cannot be read: {error}") from error
    if not isinstance(record, dict) or "correct" not in record or "problem_file" not in record:
        raise DataError(f"{file}: is no score of a benchmark")
    return record


def compare_scores(a: Path, b: Path) -> dict[str, Any]:
    """`mft evaluate compare`: B against A, problem by problem.

    Raises:
        DataError: they are of different benchmarks, test files or problems, or have several samples of a problem.
    """
    first, second = read_score(a), read_score(b)
    try:
        return paired(first, second, names=(str(a), str(b)))
    except DataError as error:
        raise DataError(f"{a} and {b}: {error}") from error


def paired(first: Mapping[str, Any], second: Mapping[str, Any], names: tuple[str, str]) -> dict[str, Any]:
    """The comparison of two records; `same_judging` tells whether prompt aside the same rules made the verdicts."""
    for key in ("benchmark", "problem_file"):
        if first[key] != second[key]:
            raise DataError(f"are not scores of the same problems: {key} is {first[key]} and {second[key]}")
    same = first["protocol"]["judging_sha256"] == second["protocol"]["judging_sha256"]
    if not same:
        logger.warning("the two scores were judged by different rules (%s; %s): a difference may be the rules'",
                       first["protocol"]["name"], second["protocol"]["name"])
    found = compare(problem_verdicts(first), problem_verdicts(second))
    return {"a": _head(first, names[0]), "b": _head(second, names[1]), "benchmark": first["benchmark"], "same_judging": same,
            **found.to_json()}


def _head(record: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {"name": name, "passed": record["passed"], "pass@1": record["pass@1"], "ci95": record["ci95"],
            "protocol": record["protocol"]["name"]}


def rules_from(pairs: Sequence[str]) -> dict[str, Any]:
    """`imports=codefuse`, `stops=["\\n#"]`, `temperature=0.8` as changes of a protocol's rules.

    Raises:
        ConfigError: not of the form key=value.
    """
    out: dict[str, Any] = {}
    for pair in pairs:
        key, sign, text = pair.partition("=")
        if not sign:
            raise ConfigError([f"'{pair}': a rule of the protocol is written key=value"])
        try:
            out[key] = json.loads(text) if key not in ("prompt", "prefill", "format") else text
        except ValueError:
            out[key] = text
    return out


