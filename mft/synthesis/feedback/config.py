"""What a person writes of the steps that judge."""

from typing import Literal

from pydantic import Field, model_validator

from mft.config.model import StrictModel


class CompileStep(StrictModel):
    """Drop solutions that do not compile; a row goes when none of its solutions is left.

    Real compilers in the sandbox: Python, C, C++, Java, JavaScript, Go, Rust, where they are installed; else tree-sitter's grammar, which
    is more lenient. Each row says which (`measured.checked_by`). Nothing is run.
    """

    type: Literal["compile"]

    timeout_s: float = Field(60.0, gt=0)
    """For one compiler."""

    without_compiler: Literal["parse", "drop"] = "parse"
    """A language whose compiler is not installed: let tree-sitter judge, or drop the row as `no_compiler`."""

    fragments: Literal["drop", "parse"] = "parse"
    """Code of a language with declarations that is no whole file (a Java method, Go without `package`): refuse it as the compiler does,
    or let tree-sitter judge it."""


class PythonTests(StrictModel):
    """What the steps that run tests have in common."""

    timeout_s: float = Field(3.0, gt=0)
    """For one run of a suite, with the solution."""

    other_languages: Literal["drop", "keep"] = "drop"
    """Rows whose code is not Python: dropped as `not_python`, or kept untested and counted."""


class TestsPassStep(PythonTests):
    """Run the tests; a solution that fails them is dropped, and its row with the last one. Measures `pass_share`, of all its solutions."""

    __test__ = False

    type: Literal["tests_pass"]

    runs: int = Field(2, ge=1, le=10)
    """Runs that must all pass; tests that pass once and fail once are dropped as `tests_unstable`."""


class TestsBiteStep(PythonTests):
    """Throw away rows whose tests would pass anything: checked on the text, then against broken versions of the solution."""

    __test__ = False

    type: Literal["tests_bite"]

    mutants: int = Field(8, ge=0, le=100)
    """Versions of the solution with one small mistake each: another operator, bound, constant, a negated condition, a line less."""

    min_killed: float = Field(0.5, ge=0, le=1)
    """Share of the mutants that the tests must fail. Below 1, since some mutants do what the solution does."""

    mutant_timeout_s: float = Field(1.0, gt=0)
    """A broken version that runs longer counts as noticed."""


class AgreementStep(PythonTests):
    """Keep rows whose samples give the same outputs, and of their samples those that the most agree with."""

    type: Literal["agreement"]

    min_share: float = Field(0.5, gt=0, le=1)
    """Share of all samples that must agree. Compared are outputs for the calls in the row's tests whose arguments are literals."""


class DifficultyStep(StrictModel):
    """Keep a band of difficulty, measured as the share of samples that pass the tests: so after `tests_pass`, over several samples.

    With the default bounds rows go that every sample solves: a model learns least from those.
    """

    type: Literal["difficulty"]

    min_pass_share: float = Field(0.0, ge=0, le=1)
    """Lower pass shares are dropped as `too_hard`. Rows that no sample solves have gone in `tests_pass`."""

    max_pass_share: float = Field(0.99, ge=0, le=1)
    """Higher pass shares are dropped as `too_easy`."""

    @model_validator(mode="after")
    def _in_order(self) -> "DifficultyStep":
        if self.min_pass_share > self.max_pass_share:
            raise ValueError(f"min_pass_share is {self.min_pass_share}, above max_pass_share ({self.max_pass_share}); no row would be left")
        return self


FeedbackStep = CompileStep | TestsPassStep | TestsBiteStep | AgreementStep | DifficultyStep
"""The steps that judge by compiling and running."""
