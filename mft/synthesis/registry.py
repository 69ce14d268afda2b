"""Type of a step -> the code behind it, imported when it is used."""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, Final

from mft.synthesis.data_steps import run_data_step
from mft.synthesis.row import Row
from mft.synthesis.tally import Tally
from mft.synthesis.tools import Tools

STEPS: Final[Mapping[str, tuple[str, str]]] = {
    "backtranslate": ("mft.synthesis.makers.backtranslate", "backtranslate"),
    "evolve": ("mft.synthesis.makers.evolve", "evolve"),
    "answer": ("mft.synthesis.makers.answer", "answer"),
    "unit_tests": ("mft.synthesis.makers.unit_tests", "unit_tests"),
    "translate_instruction": ("mft.synthesis.makers.translate", "translate_instruction"),
    "compile": ("mft.synthesis.feedback.compile", "compile_solutions"),
    "tests_pass": ("mft.synthesis.feedback.tests_pass", "tests_pass"),
    "tests_bite": ("mft.synthesis.feedback.tests_bite", "tests_bite"),
    "agreement": ("mft.synthesis.feedback.agreement", "agreement"),
    "difficulty": ("mft.synthesis.feedback.difficulty", "difficulty"),
}


def run_step(rows: Sequence[Row], config: Any, tools: Tools) -> Tally:
    """One step over all rows."""
    if config.type not in STEPS:
        return run_data_step(rows, config, tools)
    module, name = STEPS[config.type]
    run: Callable[[Sequence[Row], Any, Tools], Tally] = getattr(import_module(module), name)
    return run(rows, config, tools)
