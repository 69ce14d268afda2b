"""Ids of problems in files of other makers: `Python/5` and `HumanEval/5` are one problem, `Mbpp/5` is another."""

from collections.abc import Mapping, Sequence
from typing import Final

from mft.problems.problem import Problem

SAME: Final = ({"humaneval", "python", ""}, {"mbpp", "mbppeval", "python", ""}, {"javascript", "js"}, {"cpp", "c++"})
"""Names before the slash that files use for one and the same benchmark."""


def split_id(name: str) -> tuple[str, str]:
    """`HumanEval/5` -> (`humaneval`, `5`); `11` -> (``, `11`)."""
    benchmark, _, number = name.rpartition("/")
    return benchmark.lower(), number


class ProblemIds:
    """Finds the problem that a sample's id means."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.exact: Mapping[str, Problem] = {problem.id: problem for problem in problems}
        self._by_number = {split_id(problem.id)[1]: problem for problem in problems}
        self._prefixes = {split_id(problem.id)[0] for problem in problems}

    def find(self, name: str) -> Problem | None:
        """The problem of this id, also where its benchmark has another name there; None where there is none."""
        if name in self.exact:
            return self.exact[name]
        prefix, number = split_id(name)
        problem = self._by_number.get(number)
        if problem is None:
            return None
        own = split_id(problem.id)[0]
        return problem if any(prefix in names and own in names for names in self._groups()) else None

    def _groups(self) -> list[set[str]]:
        """Of the groups that a file's ids may be of: MBPP's and HumanEval's share `python`, so the file's own benchmark decides."""
        benchmarks = {problem.benchmark.lower() for problem in self.exact.values()}
        mbpp = any("mbpp" in name for name in benchmarks | self._prefixes)
        return [group for group in SAME if not (("humaneval" in group and mbpp) or ("mbpp" in group and not mbpp))]
