"""The texts of a problem that are looked for: what it asks, its prompt, its solution."""

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from mft.data.decontamination.normalise import View
from mft.problems.problem import Language, Problem

Part = Literal["statement", "prompt", "solution"]

CODE_VIEWS: Final[Mapping[Language, View]] = {"python": "hash_code"}
PROMPT_VIEWS: Final[Mapping[Language, View]] = {"python": "hash_code"}
"""Views of solutions and of prompts in languages that are not C's children."""

COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
DOCSTRING_QUOTES = re.compile(r"""^[rRuUbBfF]*('{3}|"{3}|'|")(.*)\1$""", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Passage:
    """One text of a problem. `statement`: what is asked, in prose; `prompt`: signature and docstring; `solution`: the reference code."""

    problem: str
    part: Part
    view: View
    text: str


def passages_of(problem: Problem) -> list[Passage]:
    """What is looked for of one problem, as it is written in the benchmark."""
    code_view = CODE_VIEWS.get(problem.language, "slash_code")
    statements = [statement_of(problem), *problem.texts]
    out = [Passage(problem.name, "statement", "prose", text) for text in dict.fromkeys(statements) if text.strip()]
    if problem.style == "completion":
        # Where a comment before the function says what is asked, a view without comments would leave the bare signature.
        view = PROMPT_VIEWS.get(problem.language, "prose")
        out.append(Passage(problem.name, "prompt", view, from_function(problem)))
    out.append(Passage(problem.name, "solution", code_view, problem.solution))
    return out


def statement_of(problem: Problem) -> str:
    """What the prompt asks for, as it stands there: the docstring, the comments, or the whole of a prompt in prose."""
    if problem.style == "instruction":
        return problem.prompt
    if problem.language == "python":
        return docstring_source(problem.prompt, problem.entry_point)
    return "\n".join(COMMENT.findall(problem.prompt))


def prose_and_examples(problem: Problem, statement: str) -> tuple[list[str], list[str]]:
    """A statement in runs of lines: prose, which stays when the function gets another name, and examples, which stay in translation.

    An example is a line with a call of the function, or one that begins with `>>>` and what stands below it, up to an empty line.

    >>> from mft.problems.problem import Problem
    >>> add = Problem("1", "b", "python", "completion", "", "", "add", ())
    >>> prose_and_examples(add, "Add two numbers\\nx and y\\n>>> add(2, 3)\\n5\\n\\nof any size.")
    (['Add two numbers\\nx and y', 'of any size.'], ['>>> add(2, 3)\\n5'])
    """
    call = re.compile(rf"\b{re.escape(problem.entry_point)}\s*\(", re.IGNORECASE) if problem.entry_point else None
    prose: list[list[str]] = [[]]
    examples: list[list[str]] = [[]]
    printed = False
    for line in statement.split("\n"):
        bare = line.strip().lstrip("/*# ")
        opened = bare.startswith(">>>")
        printed = opened or (printed and bool(bare))
        is_example = printed or bool(call and call.search(line))
        here, other = (examples, prose) if is_example else (prose, examples)
        if bare:
            here[-1].append(line)
            if other[-1]:
                other.append([])
    return ["\n".join(run) for run in prose if run], ["\n".join(run) for run in examples if run]


def from_function(problem: Problem) -> str:
    """The prompt from the function's own line on (Python), so that imports and helpers before it need not be there; else all of it."""
    if problem.language != "python":
        return problem.prompt
    found = re.search(rf"^[ \t]*(?:async )?def\s+{re.escape(problem.entry_point)}\b", problem.prompt, re.MULTILINE)
    return problem.prompt[found.start():] if found else problem.prompt


def docstring_source(prompt: str, entry_point: str) -> str:
    """The docstring of a function as it is written, escapes unread; the whole prompt where there is none or it does not parse."""
    try:
        tree = ast.parse(prompt)
    except (SyntaxError, ValueError):
        return prompt
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == entry_point and node.body and ast.get_docstring(node, clean=False):
            written = ast.get_source_segment(prompt, node.body[0]) or ""
            quoted = DOCSTRING_QUOTES.match(written)
            return quoted.group(2) if quoted else written
    return prompt
