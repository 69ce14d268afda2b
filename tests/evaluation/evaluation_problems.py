"""Small problems, and samples files of them."""

import json
from pathlib import Path
from typing import Any

from mft.problems.problem import Problem

ADD = Problem("HumanEval/0", "HumanEval", "python", "completion", 'def add(a, b):\n    """Sum."""\n', "    return a + b\n", "add",
              ("def check(candidate):\n    assert candidate(1, 2) == 3\n",))
ROUND = Problem("HumanEval/1", "HumanEval", "python", "completion",
                'import math\n\n\ndef up(x):\n    return math.ceil(x)\n\n\ndef both(x):\n    """Up and down."""\n',
                "    return up(x), math.floor(x)\n", "both", ("def check(candidate):\n    assert candidate(1.5) == (up(1.5), 1)\n",))
PROSE = Problem("11", "mbpp", "python", "instruction", "Write a function to add.", "def helper(a):\n    return a\n\ndef add(a, b):\n"
                "    return helper(a) + b\n", "add", ("assert add(1, 2) == 3", "assert add(0, 0) == 0"))


def write_lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8")
    return path


def humaneval_rows(problems: list[Problem]) -> list[dict[str, str]]:
    return [{"task_id": problem.id, "prompt": problem.prompt, "canonical_solution": problem.solution, "entry_point": problem.entry_point,
             "test": problem.tests[0]} for problem in problems]
