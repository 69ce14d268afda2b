"""Judge samples of a benchmark under a protocol: what `mft evaluate score` and every generated evaluation end in."""

import logging
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import mft
from mft.errors import DataError
from mft.evaluation.completions import Sample
from mft.evaluation.passk import Interval, interval, mean_pass_at_k
from mft.evaluation.programs import check_protocol, program
from mft.evaluation.protocol import Protocol
from mft.hashes import hash_file, sha256_json
from mft.journal import Journal
from mft.problems.problem import Problem
from mft.sandbox.isolation import Isolation
from mft.sandbox.judge import facts as judge_facts
from mft.sandbox.judge import judge
from mft.sandbox.program import Limits, Program

logger = logging.getLogger(__name__)

VERDICTS: Final = "verdicts.jsonl"
DETAIL_CHARACTERS: Final = 2000


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one sample. `judged`: `separate` (the tests in a process of their own) or `inside`, with the reason."""

    problem: str
    number: int
    passed: bool
    status: str
    detail: str
    seconds: float
    judged: str
    why_inside: str = ""


@dataclass(frozen=True, slots=True)
class JudgeOptions:
    """How programs are run; part of a score."""

    workers: int | None = None
    isolation: Isolation = "auto"
    mode: Literal["separate", "inside"] = "separate"
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class Score:
    """A score and everything that it depends on. `facts`: benchmark, problem file, samples, model, as the caller knows them."""

    verdicts: tuple[Verdict, ...]
    protocol: Protocol
    judged_by: Mapping[str, Any]
    facts: Mapping[str, Any]
    seconds: float

    @property
    def counts(self) -> tuple[dict[str, int], dict[str, int]]:
        """(correct, samples) by problem."""
        samples: dict[str, int] = {}
        correct: dict[str, int] = {}
        for verdict in self.verdicts:
            samples[verdict.problem] = samples.get(verdict.problem, 0) + 1
            correct[verdict.problem] = correct.get(verdict.problem, 0) + verdict.passed
        return correct, samples

    def pass_at(self, k: int) -> float:
        """Mean unbiased pass@k over the problems."""
        correct, samples = self.counts
        return mean_pass_at_k(correct, samples, k)

    def interval_at(self, k: int) -> Interval:
        """The 95% interval of pass@k."""
        correct, samples = self.counts
        return interval(correct, samples, k)

    def to_json(self, ks: Sequence[int] = (1,)) -> dict[str, Any]:
        """As written to `evaluation.json`; `ks` besides 1 add `pass@k` and `ci95@k`.

        Raises:
            DataError: a k is above the number of samples.
        """
        correct, samples = self.counts
        first = self.interval_at(1)
        out: dict[str, Any] = {
            **self.facts, "passed": sum(correct.values()), "total": len(self.verdicts), "problems": len(samples),
            "samples_per_problem": max(samples.values()), "pass@1": round(self.pass_at(1), 6), "ci95": [first.low, first.high],
            "ci95_method": first.method}
        for k in (k for k in ks if k != 1):
            found = self.interval_at(k)
            out |= {f"pass@{k}": round(self.pass_at(k), 6), f"ci95@{k}": [found.low, found.high]}
        inside: dict[str, list[str]] = {}
        for verdict in self.verdicts:
            if verdict.judged != "separate":
                inside.setdefault(verdict.why_inside or "asked for", []).append(f"{verdict.problem}#{verdict.number}")
        protocol = {**self.protocol.to_json(), "sha256": self.protocol.sha256, "judging_sha256": self.protocol.judging_sha256}
        return {**out, "protocol": protocol,
                "judge": {**self.judged_by, "judged_inside": inside}, "correct": correct, "samples": samples,
                "failures": [_failure(verdict) for verdict in self.verdicts if not verdict.passed],
                "versions": {"mft": mft.__version__, "python": platform.python_version()}, "seconds": round(self.seconds, 3)}


def _failure(verdict: Verdict) -> dict[str, Any]:
    return {"id": verdict.problem, "sample": verdict.number, "status": verdict.status, "detail": verdict.detail}


def score(samples: Sequence[Sample], problems: Sequence[Problem], protocol: Protocol, *, options: JudgeOptions | None = None,
          facts: Mapping[str, Any] | None = None, own_prompt: bool = False, plus: bool = False, folder: Path | None = None,
          progress: Callable[[int, int], None] | None = None) -> Score:
    """Judge the samples.

    Args:
        facts: what the score is of; put at the head of its JSON.
        own_prompt: join each completion with the prompt that its row carries.
        plus: judge by `plus_tests` as well.
        folder: verdicts are written into `verdicts.jsonl` there as they come; those that it holds of the same program are not made again.
        progress: called as `progress(done, total)`.

    Raises:
        ConfigError: the protocol is not for these problems. DataError: there is no sample, or of a problem that is not among `problems`.
    """
    options = options or JudgeOptions()
    by_id = {problem.id: problem for problem in problems}
    if not samples:
        raise DataError("there is no sample to judge")
    if strangers := [sample.problem for sample in samples if sample.problem not in by_id]:
        raise DataError(f"'{strangers[0]}' is no problem of this benchmark")
    check_protocol(problems, protocol)
    started = time.perf_counter()
    programs = {sample.id: program(sample, by_id[sample.problem], protocol, own_prompt=own_prompt, plus=plus) for sample in samples}
    journal = Journal(folder / VERDICTS) if folder else None
    verdicts: dict[str, Verdict] = {}
    for verdict in _verdicts(samples, programs, options, journal):
        verdicts[f"{verdict.problem}#{verdict.number}"] = verdict
        if progress:
            progress(len(verdicts), len(samples))
    judged_by = {**judge_facts(options.isolation, options.limits), "mode": options.mode}
    done = Score(tuple(verdicts[sample.id] for sample in samples), protocol, judged_by, facts or {}, time.perf_counter() - started)
    logger.info("%s: %d of %d samples passed", protocol.name, sum(verdict.passed for verdict in done.verdicts), len(samples))
    return done


def _verdicts(samples: Sequence[Sample], programs: Mapping[str, Program], options: JudgeOptions,
              journal: Journal | None) -> Iterator[Verdict]:
    """Those of the journal first, then the others as the judge gives them."""
    hashes = {name: sha256_json([asdict(each), _options(options)]) for name, each in programs.items()}
    known = {row["program"]: row for row in journal.rows} if journal else {}
    left = []
    for sample in samples:
        if row := known.get(hashes[sample.id]):
            yield Verdict(sample.problem, sample.number, **{key: row[key] for key in KEPT})
        else:
            left.append(sample)
    by_id = {sample.id: sample for sample in left}
    results = judge([programs[sample.id] for sample in left], limits=options.limits, workers=options.workers,
                    isolation=options.isolation, mode=options.mode) if left else iter(())
    for result in results:
        sample = by_id[result.id]
        verdict = Verdict(sample.problem, sample.number, result.status == "passed", result.status, result.detail[:DETAIL_CHARACTERS],
                          round(result.seconds, 4), result.judged, result.why_inside or "")
        if journal:
            journal.append([{"program": hashes[sample.id], "id": sample.id, **{key: getattr(verdict, key) for key in KEPT}}])
        yield verdict


KEPT: Final = ("passed", "status", "detail", "seconds", "judged", "why_inside")


def _options(options: JudgeOptions) -> dict[str, Any]:
    """What of the options can change a verdict; the number of workers cannot."""
    return {"isolation": options.isolation, "mode": options.mode, "limits": asdict(options.limits)}


def file_facts(path: Path) -> dict[str, Any]:
    """`{"file", "sha256"}` of a file that a score depends on."""
    return {"file": path.name, "sha256": hash_file(path)["sha256"]}


def problem_verdicts(record: Mapping[str, Any]) -> dict[str, bool]:
    """Problem -> solved, of an `evaluation.json` with one sample a problem.

    Raises:
        DataError: the record is no score, or has several samples of a problem.
    """
    if not isinstance(record.get("correct"), dict):
        raise DataError("is no score: it has no 'correct'")
    if any(number != 1 for number in record["samples"].values()):
        raise DataError("has several samples of a problem; a paired comparison needs one of each")
    return {name: bool(number) for name, number in record["correct"].items()}


