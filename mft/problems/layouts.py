"""The layouts that benchmark files are written in, each turned into a `Problem`.

| layout | told by | files |
|---|---|---|
| completion | `prompt` and `canonical_solution` | HumanEval, HumanEval-X, HumanEvalPack, humaneval_python_cn |
| instruction | as above, and the solution is a whole program (`test` is a list) | mbpp_x_zh |
| instruction | `code`, and `text` or `prompt` | MBPP, sanitized MBPP |
| either | `base_input`, `plus_input` and `canonical_solution`: inputs instead of tests, see mft/problems/evalplus.py | HumanEval+, MBPP+ |
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from mft.errors import DataError
from mft.problems.evalplus import evalplus_problem, is_evalplus
from mft.problems.problem import Language, Problem

LANGUAGES: Final[Mapping[str, Language]] = {
    "humaneval": "python", "mbpp": "python", "mbppeval": "python", "python": "python",
    "cpp": "cpp", "c++": "cpp", "csharp": "csharp", "c#": "csharp", "go": "go", "java": "java",
    "javascript": "javascript", "js": "javascript", "rust": "rust", "typescript": "typescript", "ts": "typescript",
}
"""What stands before the slash of a task id (`CPP/0`), or in a field `language` -> language."""

TEXT_FIELDS = ("text", "docstring", "prompt_text", "prompt_explain", "prompt_text_chinese")
"""Fields that say again what is asked for."""

OTHER_KEYS: Final = "a recipe names those of another layout: {path: ..., columns: {prompt: ..., solution: ...}}"

FUNCTION_NAME: Final[Mapping[str, re.Pattern[str]]] = {
    "python": re.compile(r"^(?:async )?def\s+(\w+)", re.MULTILINE),
    "go": re.compile(r"^func\s+(\w+)", re.MULTILINE),
    "rust": re.compile(r"\bfn\s+(\w+)"),
    "javascript": re.compile(r"\b(?:const|let|var|function)\s+(\w+)\s*(?:=\s*(?:function)?\s*)?\("),
    "java": re.compile(r"\b(?:public|private|static)\s+[\w<>\[\], ]+?\s(\w+)\s*\("),
    "cpp": re.compile(r"^[\w:<>,&* ]+?[ &*](\w+)\s*\([^;{}]*\)\s*\{", re.MULTILINE),
}
"""Where a language names the function; the last one of a prompt is the one to be written."""


def to_problem(record: Any, benchmark: str, where: str) -> Problem:
    """The problem that one JSON object describes. `where` (`file:line`) is for messages.

    Raises:
        DataError: it is no object, fits none of the layouts, or a field is not text.
    """
    if not isinstance(record, dict):
        raise DataError(f"{where}: expected an object, found {type(record).__name__}")
    if "task_id" not in record:
        raise DataError(f"{where}: a problem needs 'task_id'; found {', '.join(record) or 'no key'}; {OTHER_KEYS}")
    if is_evalplus(record):
        return evalplus_problem(record, benchmark, where)
    if "canonical_solution" in record and "prompt" in record:
        style, solution, prompt = "completion", "canonical_solution", "prompt"
        if isinstance(record.get("test"), list):
            style = "instruction"
    elif "code" in record and ("text" in record or "prompt" in record):
        style, solution, prompt = "instruction", "code", "text" if "text" in record else "prompt"
    else:
        raise DataError(f"{where}: no layout of a benchmark fits this row; it needs prompt and canonical_solution (HumanEval), or code and "
                        f"text or prompt (MBPP); its keys are {', '.join(record)}; {OTHER_KEYS}")
    language = _language(record, where)
    asked, answer = _text(record, prompt, where), _text(record, solution, where)
    if style == "completion":
        asked = _with_declaration(asked, _text(record, "declaration", where))
    code = asked if style == "completion" else answer
    wordings = [_text(record, field, where) for field in TEXT_FIELDS if field in record and field != prompt]
    return Problem(
        id=str(record["task_id"]), benchmark=benchmark, language=language, style="completion" if style == "completion" else "instruction",
        prompt=asked, solution=answer, entry_point=_text(record, "entry_point", where) or _entry_point(code, language),
        tests=_tests(record, where), setup=_setup(record, where), texts=_distinct(wordings, asked), imports=_text(record, "import", where))


def _text(record: Mapping[str, Any], field: str, where: str) -> str:
    """A field that must be text; empty where it is missing or null."""
    value = record.get(field)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(f"{where}: '{field}' is {type(value).__name__}; expected text")
    return value.replace("\r\n", "\n").replace("\r", "\n")


def _with_declaration(prompt: str, declaration: str) -> str:
    """HumanEval-X keeps the first line of a Rust function apart from its prompt, which is a comment alone; the solution goes on from it."""
    last = "".join(declaration.strip().rpartition("\n")[2].split())
    return prompt if last in "".join(prompt.split()) else prompt + declaration


def _language(record: Mapping[str, Any], where: str) -> Language:
    prefix, slash, _ = str(record["task_id"]).partition("/")
    name = str(record.get("language") or (prefix if slash else "python"))
    if name.lower() not in LANGUAGES:
        raise DataError(f"{where}: language '{name}' is not known; allowed: {', '.join(sorted(set(LANGUAGES.values())))}")
    return LANGUAGES[name.lower()]


def _entry_point(code: str, language: Language) -> str:
    pattern = FUNCTION_NAME.get(language)
    names = pattern.findall(code) if pattern else []
    return names[-1] if names else ""


def _tests(record: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """`test` (a program or a list), else `test_list`."""
    tests = record.get("test", record.get("test_list", []))
    tests = [tests] if isinstance(tests, str) else tests
    if not isinstance(tests, list) or not all(isinstance(test, str) for test in tests):
        raise DataError(f"{where}: the tests are not text or a list of texts")
    return tuple(tests)


def _setup(record: Mapping[str, Any], where: str) -> str:
    """Imports and code before the tests."""
    imports = record.get("test_imports", [])
    if not isinstance(imports, list) or not all(isinstance(line, str) for line in imports):
        raise DataError(f"{where}: 'test_imports' is not a list of texts")
    parts = [*imports, _text(record, "test_setup", where), _text(record, "test_setup_code", where)]
    return "\n".join(part for part in parts if part)


def _distinct(wordings: Iterable[str], prompt: str) -> tuple[str, ...]:
    """Wordings that say something: not empty, not in the prompt as they are, each once."""
    present = " ".join(prompt.split())
    return tuple(dict.fromkeys(text for text in wordings if text.strip() and " ".join(text.split()) not in present))
