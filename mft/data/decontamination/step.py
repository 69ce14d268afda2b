"""`decontaminate`: drop the rows that hold a benchmark's problem, and say of each which problem, how it was found and on what evidence."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from mft.conversation import Conversation
from mft.data.decontamination.config import DecontaminateStep, problem_files
from mft.data.decontamination.detector import Detector
from mft.data.decontamination.layer import Hit
from mft.data.verdict import KEEP, GroupStep, RowName, Verdict, drop
from mft.errors import DataError
from mft.problems.problem import Problem
from mft.problems.read import read_problems

LISTED = 100
"""Hits that the manifest repeats; `HITS_FILE` has them all."""

HITS_FILE = "contamination.jsonl"


class Decontaminate(GroupStep):
    """`contaminated_substring`, `contaminated_ngrams`, `contaminated_structure`: by the first layer, in this order, that is sure."""

    def __init__(self, config: DecontaminateStep) -> None:
        self.config = config
        self.problems = load_problems(config)
        self.detector = Detector(self.problems, config)
        self._hits: list[tuple[str, Hit]] = []

    def key(self, row: Conversation) -> bytes:
        """The hits as JSON; nothing for most rows."""
        hits = self.detector.hits(row)
        return json.dumps([asdict(hit) for hit in hits]).encode() if hits else b""

    def judge_keys(self, keys: Sequence[bytes], names: Sequence[RowName]) -> Sequence[Verdict]:
        verdicts = []
        for key, name in zip(keys, names, strict=True):
            hits = [Hit(**hit) for hit in json.loads(key)] if key else []
            self._hits += [(name.id, hit) for hit in hits]
            verdicts.append(self._verdict(hits))
        return verdicts

    def _verdict(self, hits: Sequence[Hit]) -> Verdict:
        if not hits or not hits[0].contaminated:
            return KEEP
        verdict = _contaminated(hits[0])
        return verdict if self.config.action == "drop" else Verdict(keep=True, note=verdict.reason)

    def report(self) -> dict[str, Any]:
        """`problems` {benchmark: n}, `layers` {layer: {contaminated, listed}}, `by_problem` {problem: rows}, `not_looked_for`, `hits`."""
        layers = {name: {"contaminated": 0, "listed": 0} for name in self.detector.layers}
        for _, hit in self._hits:
            layers[hit.layer][("listed", "contaminated")[hit.contaminated]] += 1
        rows_of = Counter(problem for problem, _ in {(hit.problem, row) for row, hit in self._hits if hit.contaminated})
        return {"problems": dict(Counter(problem.benchmark for problem in self.problems)), "layers": layers,
                "by_problem": dict(sorted(rows_of.items(), key=lambda entry: (-entry[1], entry[0]))),
                "not_looked_for": self.detector.not_looked_for(),
                "hits": [hit.to_json(row) for row, hit in self._hits[:LISTED]]}

    def lists(self) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """Every hit, as `{row, problem, layer, evidence, score, contaminated}`."""
        return {HITS_FILE: [hit.to_json(row) for row, hit in self._hits]}


def _contaminated(hit: Hit) -> Verdict:
    detail = f"{hit.problem}, {hit.evidence}"
    if hit.layer == "substring":
        return drop("contaminated_substring", detail)
    if hit.layer == "ngrams":
        return drop("contaminated_ngrams", detail)
    return drop("contaminated_structure", detail)


def load_problems(config: DecontaminateStep) -> list[Problem]:
    """The problems of all files of a step.

    Raises:
        DataError: a file is missing or is no benchmark; two files have one name, so that a hit would not say which is meant.
    """
    files = problem_files(config.folder, config.problems)
    problems = [problem for file in files for problem in read_problems(file.path, file.columns)]
    twice = sorted(name for name, times in Counter(problem.name for problem in problems).items() if times > 1)
    if twice:
        raise DataError(f"decontaminate: two problem files have the name '{twice[0].split('/')[0]}' and the problem '{twice[0]}'; "
                        f"the files are {', '.join(str(file.path) for file in files)}; rename one, or leave one out")
    return problems
