"""One problem of a benchmark."""

from dataclasses import dataclass
from typing import Literal

Language = Literal["python", "cpp", "csharp", "go", "java", "javascript", "rust", "sql", "typescript"]


@dataclass(frozen=True, slots=True)
class Problem:
    """A task with its reference solution and its tests.

    A `completion` prompt is code that the solution goes on from (HumanEval); an `instruction` is prose, and the solution stands by
    itself (MBPP).
    """

    id: str
    """As the benchmark writes it: `HumanEval/0`, `Python/0`, `11`."""

    benchmark: str
    """The name of the file that it was read from, without `.jsonl` and `.gz`: `HumanEval`, `humanevalx_cpp`, `mbpp`."""

    language: Language

    style: Literal["completion", "instruction"]

    prompt: str
    """What a model is given."""

    solution: str
    """The canonical solution."""

    entry_point: str
    """The function that the tests call; empty where the file does not say and the code does not show it."""

    tests: tuple[str, ...]
    """Code that judges a solution: one program of assertions, or one assertion each."""

    setup: str = ""
    """Code that the tests need before them."""

    plus_tests: tuple[str, ...] = ()
    """Further tests, judged beside `tests` (evalplus' `plus_input`); empty where the benchmark has none."""

    imports: str = ""
    """Imports at the head of the prompt that the test's own file repeats (HumanEval-X, Go)."""

    texts: tuple[str, ...] = ()
    """What is asked for, in other words or another language than in the prompt; no wording stands twice."""

    @property
    def name(self) -> str:
        """One name among all benchmarks: `HumanEval/0`, `humanevalx_cpp/CPP/0`, `mbpp/11`."""
        return self.id if self.id.startswith(f"{self.benchmark}/") else f"{self.benchmark}/{self.id}"

    @property
    def program(self) -> str:
        """The code that the tests are run against: the prompt with its solution below it, or the solution alone."""
        if self.style == "instruction":
            return self.solution
        joint = "" if self.prompt.endswith("\n") or self.solution.startswith("\n") else "\n"
        return self.prompt + joint + self.solution
