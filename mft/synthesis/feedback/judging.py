"""Verdicts of the sandbox, each made once: what a run that was killed had judged is not judged again."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from mft.hashes import sha256_json
from mft.journal import Journal
from mft.sandbox.isolation import Isolation
from mft.sandbox.judge import Mode, judge
from mft.sandbox.program import Limits, Program

VERDICTS: Final = "verdicts.jsonl"

BATCH: Final = 2000
"""Programs that are handed to the sandbox at one time; their texts are in memory."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a program ended (`mft.sandbox.program.Status`), and in one line why it did not pass."""

    status: str
    detail: str

    @property
    def passed(self) -> bool:
        """All tests held."""
        return self.status == "passed"


class Judging:
    """Judges programs in the sandbox; with a folder its verdicts are kept in `verdicts.jsonl` there until `forget`."""

    def __init__(self, isolation: Isolation = "auto", workers: int | None = None, folder: Path | None = None) -> None:
        self.isolation = isolation
        self.workers = workers
        self._journal = Journal(folder / VERDICTS) if folder else None
        rows = self._journal.rows if self._journal else []
        self._known = {row["program"]: Verdict(row["status"], row["detail"]) for row in rows}

    def verdicts(self, programs: Sequence[Program], *, modes: Sequence[Mode] | None = None, limits: Limits | None = None,
                 again: bool = True, run: int = 0, told: Callable[[int, int], None] | None = None) -> list[Verdict]:
        """One verdict a program, in their order. Equal programs are judged once, in each `run`.

        `modes`: where the tests of each run, by default in a process of their own. `again`: a program that ran out of time is run once
        more, alone, before that counts.
        """
        limits = limits or Limits()
        modes = modes or ["separate"] * len(programs)
        hashes = [sha256_json([asdict(program) | {"id": ""}, mode, asdict(limits), self.isolation, run])
                  for program, mode in zip(programs, modes, strict=True)]
        waiting: dict[Mode, dict[str, Program]] = {"separate": {}, "inside": {}}
        for name, program, mode in zip(hashes, programs, modes, strict=True):
            if name not in self._known:
                waiting[mode][name] = replace(program, id=name)
        done, total = 0, sum(map(len, waiting.values()))
        for mode, group in waiting.items():
            queue = list(group.values())
            for start in range(0, len(queue), BATCH):
                for result in judge(queue[start:start + BATCH], limits=limits, workers=self.workers, isolation=self.isolation, mode=mode,
                                    again=again):
                    self._remember(result.id, Verdict(result.status, result.detail))
                    done += 1
                    if told:
                        told(done, total)
        return [self._known[name] for name in hashes]

    def _remember(self, name: str, verdict: Verdict) -> None:
        self._known[name] = verdict
        if self._journal:
            self._journal.append([{"program": name, "status": verdict.status, "detail": verdict.detail}])

    def forget(self) -> None:
        """Remove the file: the order of its lines is the order in which programs ended, which no output may depend on."""
        if self._journal:
            self._journal.path.unlink(missing_ok=True)
