"""From an answer to the program that is judged, and from a problem to the answers that must pass and must fail."""

import ast
import re
from collections.abc import Sequence
from typing import Final

from mft.errors import ConfigError
from mft.evaluation.completions import Sample
from mft.evaluation.extract import extract
from mft.evaluation.other_languages import assembled, stub
from mft.evaluation.protocol import HEADERS, Protocol
from mft.problems.problem import Language, Problem
from mft.problems.spider import SOLUTION
from mft.sandbox.program import Program

LANGUAGE_COMMENTS: Final[dict[Language, str]] = {
    "python": "# language: Python", "cpp": "// language: C++", "go": "// language: Go", "java": "// language: Java",
    "javascript": "// language: JavaScript", "rust": "// language: Rust", "csharp": "// language: C#",
    "typescript": "// language: TypeScript", "sql": "-- language: SQL"}
"""Source: CodeGeeX and codefuse-evaluation, the tag before a problem's prompt."""

NUMPY: Final = re.compile(r"\b(?:numpy|np)\b")
CALLS_CHECK: Final = re.compile(r"^check\(", re.MULTILINE)


def user_text(problem: Problem, protocol: Protocol) -> str:
    """What the protocol puts into the user's message (format `raw`: the text that is continued)."""
    values = {
        "prompt": problem.prompt, "prompt_stripped": problem.prompt.strip(), "prompt_with_tabs": problem.prompt.replace("    ", "\t"),
        "language_comment": LANGUAGE_COMMENTS[problem.language], "tests": "\n".join(problem.tests),
        "first_test": problem.tests[0] if problem.tests else ""}
    return re.sub(r"\{(\w+)\}", lambda found: values[found[1]], protocol.prompt)


def check_protocol(problems: Sequence[Problem], protocol: Protocol) -> None:
    """Raise where a protocol is not for these problems.

    Raises:
        ConfigError: a problem's language or style is not one of the protocol's.
    """
    for problem in problems:
        if problem.style != protocol.style:
            raise ConfigError([f"protocol '{protocol.name}' is for {protocol.style} problems; '{problem.id}' is one of {problem.style}"])
        if problem.language not in protocol.languages:
            raise ConfigError([f"protocol '{protocol.name}' is for {', '.join(protocol.languages)}; '{problem.id}' is {problem.language}"])


def program(sample: Sample, problem: Problem, protocol: Protocol, *, own_prompt: bool = False, plus: bool = False) -> Program:
    """The program of one sample. `own_prompt`: join with the prompt that its row carries; `plus`: judged by `plus_tests` too."""
    prompt = sample.prompt if own_prompt and sample.prompt is not None else problem.prompt
    code = sample.answer if sample.whole else extract(sample.answer, problem, protocol, prompt)
    joined = code if sample.whole or _alone(code, problem, protocol) else join(prompt, code)
    name, tests = sample.id, "\n".join([*problem.tests, *(problem.plus_tests if plus else ())])
    if problem.language == "sql":
        return Program(id=name, solution=SOLUTION.format(query=joined), tests=tests, entry_point=problem.entry_point,
                       call=f"check({problem.entry_point})", timeout_s=protocol.timeout_s)
    if problem.language != "python":
        return Program(id=name, solution=assembled(problem, prompt, joined), tests="", entry_point=problem.entry_point,
                       language=problem.language, timeout_s=protocol.timeout_s)
    header = _header(protocol, joined, tests)
    prefix = header + (helpers(problem.prompt) if problem.style == "completion" else "")
    call = f"check({problem.entry_point})" if problem.style == "completion" or "def check(" in tests else ""
    return Program(id=name, solution=header + joined, tests="\n".join(filter(None, [problem.setup, tests])),
                   entry_point=entry_point(problem), call="" if CALLS_CHECK.search(tests) else call, trusted_prefix=prefix,
                   language="python", timeout_s=protocol.timeout_s)


def join(prompt: str, code: str) -> str:
    """The prompt with the code below it, a newline between them only where neither has one.

    >>> join("def f():", "    pass"), join("def f():\\n", "    pass")
    ('def f():\\n    pass', 'def f():\\n    pass')
    """
    return prompt + ("" if prompt.endswith("\n") or code.startswith("\n") else "\n") + code


def _alone(code: str, problem: Problem, protocol: Protocol) -> bool:
    if protocol.style == "instruction" or protocol.joining == "completion" or protocol.extraction == "evalplus":
        return True
    if protocol.joining == "prompt_unless_def":
        return code.startswith("def")
    return protocol.joining == "prompt_if_body" and defines(code, problem.entry_point)


def defines(code: str, name: str) -> bool:
    """True where the code defines a function of this name at the margin."""
    return re.search(rf"^(?:async )?def\s+{re.escape(name)}\b", code, re.MULTILINE) is not None


def _header(protocol: Protocol, *programs: str) -> str:
    """The protocol's imports; those of numpy only where it is named, as they cost a tenth of a second and nothing else sees them."""
    header = HEADERS[protocol.imports]
    if header and not any(NUMPY.search(text) for text in programs):
        header = "".join(line for line in header.splitlines(keepends=True) if "numpy" not in line)
    return header


def helpers(prompt: str) -> str:
    """What a prompt defines above the function that is to be written: its imports, and functions that tests may call (HumanEval/38).

    >>> helpers("import math\\n\\ndef poly(x):\\n    return x\\n\\ndef find_zero(xs):\\n    '''Doc.'''\\n")
    'import math\\ndef poly(x):\\n    return x\\n'
    """
    for body in ("    pass\n", ""):
        try:
            tree = ast.parse(prompt + ("" if prompt.endswith("\n") else "\n") + body)
        except SyntaxError:
            continue
        return "".join(f"{ast.get_source_segment(prompt, node)}\n" for node in tree.body[:-1])
    return ""


def entry_point(problem: Problem) -> str:
    """The function that the tests call: of MBPP's solution, the one that its tests name."""
    if problem.style == "completion" or not problem.tests:
        return problem.entry_point
    defined = re.findall(r"^(?:async )?def\s+(\w+)", problem.solution, re.MULTILINE)
    called = [name for name in defined if re.search(rf"\b{name}\s*\(", "\n".join(problem.tests))]
    return called[0] if called else problem.entry_point


def canonical(problem: Problem, protocol: Protocol) -> Sample:
    """The answer that the protocol awaits from a model which writes the reference solution."""
    if problem.style == "completion" and _takes_body(protocol):
        return Sample(problem.id, 0, problem.solution)
    return Sample(problem.id, 0, _fenced(problem.program, protocol))


def stubbed(problem: Problem, protocol: Protocol) -> Sample:
    """The answer whose body does nothing; it must fail."""
    if problem.language == "sql":
        return Sample(problem.id, 0, "SELECT NULL")
    if problem.language != "python":
        return Sample(problem.id, 0, stub(problem))
    if problem.style == "instruction":
        return Sample(problem.id, 0, _fenced(f"def {entry_point(problem)}(*args, **kwargs):\n    pass\n", protocol))
    if _takes_body(protocol):
        return Sample(problem.id, 0, "    pass\n")
    return Sample(problem.id, 0, _fenced(join(problem.prompt, "    pass\n"), protocol))


def _takes_body(protocol: Protocol) -> bool:
    """True where an answer goes on from the prompt instead of restating it."""
    return protocol.extraction in ("none", "codefuse", "block") or (
        protocol.extraction == "evalplus" and protocol.joining == "prompt_completion")


def _fenced(code: str, protocol: Protocol) -> str:
    """A whole function as a chat model writes it; where the prefill has opened the fence, what stands in it."""
    if protocol.extraction in ("none", "block") or "```" in protocol.prefill:
        return code
    end = "" if code.endswith("\n") else "\n"
    return f"```python\n{code}{end}```\n"
