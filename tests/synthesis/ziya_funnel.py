"""A model that answers 2,000 real instructions in known ways, so that what each step must drop is known before it runs.

What is right is real: solutions and tests are MBPP's. Each row has a fate, drawn by its number; a number travels in the evolved
instruction, so that later requests about the row are answered by the same fate.
"""

import ast
import gzip
import json
import random
import re
from pathlib import Path

from model_by_rules import asked

from mft.synthesis.client.request import Answer, Request, Unanswered

SHARES = {
    "refused": 5, "unchanged": 4, "too_short": 1, "unanswered": 1, "no_code": 5, "does_not_compile": 10, "no_function": 2,
    "no_tests": 3, "ignores": 5, "no_assertions": 4, "assert_true": 4, "quiet": 5, "type_alone": 4, "weak": 4, "wrong": 10,
    "wrong_tests": 3, "duplicate": 4, "contaminated": 3, "good": 23}
"""Of each hundred rows."""

REASONS = {
    "refused": ("evolve", "refused"), "unchanged": ("evolve", "unchanged"), "too_short": ("evolve", "too_short"),
    "unanswered": ("evolve", "unanswered_given_up"), "no_code": ("answer", "answer_without_code"),
    "does_not_compile": ("compile", "does_not_compile"), "no_function": ("unit_tests", "nothing_to_test"),
    "no_tests": ("unit_tests", "tests_without_code"), "ignores": ("unit_tests", "tests_ignore_solution"),
    "no_assertions": ("tests_bite", "no_assertions"), "assert_true": ("tests_bite", "constant_assertions"),
    "quiet": ("tests_bite", "passes_empty_body"), "type_alone": ("tests_bite", "passes_constant_body"),
    "weak": ("tests_bite", "passes_mutants"), "wrong": ("tests_pass", "tests_fail"), "wrong_tests": ("tests_pass", "tests_fail"),
    "duplicate": ("exact_dedup", "duplicate"), "contaminated": ("decontaminate", "contaminated_substring")}
"""Where each fate but `good` must end, and by which reason."""

STRONG = ("603", "604", "619", "625", "629", "632", "634", "655")
"""Problems of MBPP whose three tests notice most mutants of their solution."""
WEAK = ("101", "113", "150", "159")
"""Problems whose three tests notice fewer than half of the mutants, which is a fact of MBPP."""

NUMBER = re.compile(r"Case number (\d+)\.")


def fates(number: int) -> list[str]:
    """The fate of each row; a duplicate comes after the good row that it repeats."""
    plan = [fate for fate, share in SHARES.items() for _ in range(share * number // 100)]
    random.Random(7).shuffle(plan)
    first_good, first_twin = plan.index("good"), plan.index("duplicate")
    if first_twin < first_good:
        plan[first_good], plan[first_twin] = plan[first_twin], plan[first_good]
    return plan


class ZiyaModel:
    """The rule of a ModelByRules."""

    def __init__(self, shared_data: Path, seeds: list[str]) -> None:
        self.plan = fates(len(seeds))
        self.number_of = {text: number for number, text in enumerate(seeds)}
        self.mbpp = _problems(shared_data / "mbpp" / "mbpp.jsonl.gz")
        with gzip.open(shared_data / "humaneval" / "HumanEval.jsonl.gz", "rt", encoding="utf-8") as stream:
            self.humaneval = sorted((json.loads(line)["prompt"] for line in stream), key=len)[-40:]

    def twin(self, number: int) -> int:
        """The last good row before a duplicate."""
        return max(other for other in range(number) if self.plan[other] == "good")

    def __call__(self, request: Request) -> str | Answer | Unanswered:
        if request.purpose == "evolve":
            return self.evolved(self.number_of[asked(request).rpartition("Exercise:\n")[2]])
        number = int(NUMBER.findall(asked(request))[0])
        return self.answered(number) if request.purpose == "answer" else self.tested(number)

    def evolved(self, number: int) -> str | Unanswered:
        fate = self.plan[number]
        seed = next(text for text, place in self.number_of.items() if place == number)
        if fate == "unanswered":
            return Unanswered("given_up")
        if fate in ("refused", "unchanged", "too_short"):
            return {"refused": "I'm sorry, but I cannot do that.", "unchanged": f"{seed}\n", "too_short": "Case: sort."}[fate]
        if fate == "duplicate":
            return str(self.evolved(self.twin(number)))
        more = f"\n{self.humaneval[number % 40]}" if fate == "contaminated" else ""
        return f"{seed}\n\nThe result must also hold for empty input. Case number {number}.{more}"

    def answered(self, number: int) -> str:
        fate, (code, tests) = self.plan[number], self.problem(number)
        if fate == "no_code":
            return "This task is best solved with a loop over all elements."
        if fate == "does_not_compile":
            code = code.replace(":", "", 1)
        if fate == "no_function":
            code = "print('hello')\n"
        if fate == "wrong":
            name = tests[0].partition("(")[0].removeprefix("assert ").strip()
            code += f"\n_real = {name}\n\ndef {name}(*arguments):\n    return ['wrong', _real(*arguments)]\n"
        return f"Here it is:\n```python\n{code}```\nIt takes one pass over the input."

    def tested(self, number: int) -> str:
        fate, (_, tests) = self.plan[number], self.problem(number)
        calls = [ast.unparse(ast.parse(line).body[0].test.left) for line in tests]
        texts = {
            "ignores": "assert 1 + 1 == 2", "no_assertions": "\n".join(calls), "assert_true": f"{calls[0]}\nassert True",
            "quiet": "try:\n    " + "\n    ".join(tests) + "\nexcept AssertionError:\n    pass",
            "type_alone": f"assert type({calls[0]}) in (int, str, list, bool)", "wrong_tests": f"{tests[0]}\nassert {calls[1]} == 'never'"}
        if fate == "no_tests":
            return "The function is simple enough to need none."
        body = texts.get(fate, "\n".join(tests)).replace("\n", "\n    ")
        name = calls[0].partition("(")[0]
        return f"```python\nfrom solution import {name}\n\ndef test_all():\n    {body}\n```"

    def problem(self, number: int) -> tuple[str, list[str]]:
        """(solution, tests) of a row."""
        return self.mbpp[WEAK[number % len(WEAK)] if self.plan[number] == "weak" else STRONG[number % len(STRONG)]]


def _problems(path: Path) -> dict[str, tuple[str, list[str]]]:
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        rows = [json.loads(line) for line in stream]
    return {str(row["task_id"]): (row["code"].replace("\r\n", "\n") + "\n", row["test_list"]) for row in rows}
