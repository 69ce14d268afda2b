"""How code is taken out of an answer, one function a rule. `extract` is the only caller that a score has."""

import ast
import re
from collections.abc import Callable, Iterator
from typing import Final

from mft.evaluation.protocol import Extraction, Protocol
from mft.problems.problem import Language, Problem

PYTHON_FENCE: Final = re.compile(r"```python(.*?)```", re.DOTALL | re.IGNORECASE)
ANY_FENCE: Final = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)
MOST_SPANS: Final = 60_000
"""Spans of lines that `longest_parsing` tries before it gives up on ever longer junk and keeps the best so far."""


def extract(answer: str, problem: Problem, protocol: Protocol, prompt: str) -> str:
    """The code of a completion: cut at the first of the protocol's stops, then by its rule of extraction.

    With joining `prompt_completion`, the rule `evalplus` looks at the prompt and the completion as one text, as evalplus does.
    """
    cuts = [found for stop in protocol.stops if (found := answer.find(stop)) >= 0]
    text = answer[:min(cuts)] if cuts else answer
    if protocol.extraction == "evalplus" and protocol.style == "completion" and protocol.joining == "prompt_completion":
        text = prompt + text
    return RULES[protocol.extraction](text, problem)


def first_fence(answer: str) -> str:
    """The inside of the first fence, closed or not; the whole answer where there is none.

    >>> first_fence("Sure:\\n```python\\nreturn 1\\n```\\nDone.")
    'return 1\\n'
    """
    found = ANY_FENCE.search(answer)
    return found[1] if found else answer


def codefuse(answer: str, language: Language = "python") -> str:
    """The rule of codefuse-evaluation: `_post_process_mkcode`, then `_process_generation`, then what its judge drops.

    The first Python fence; where the text has `import` but not `  import`, all up to the end of the first docstring is dropped, so that
    imports are lost; cut at the first line that is not indented; before running, lines at the margin that are neither `def` nor `class`
    are dropped. Code that begins with `def` is run without the prompt, so it is not cut to nothing here, as upstream's first step would.

    >>> codefuse("```python\\nimport re\\n\\ndef f(x):\\n    '''Doc.'''\\n    return x\\n```")
    '\\n    return x\\n'
    """
    fence = PYTHON_FENCE.search(answer)
    text = fence[1] if fence else answer
    if language != "python":
        return block(text, language)
    text = _after_docstring(text) if "import" in text and "  import" not in text else text
    text = text.replace("<|endoftext|>", "")
    lines = text.lstrip("\n").split("\n")
    if lines[0].startswith("def"):
        return "\n".join(_indented_or_definition(lines)) + "\n"
    kept = []
    for line in text.split("\n"):
        if line and line[0] not in " \t":
            break
        kept.append(line)
    return "\n".join(_indented_or_definition(kept)).rstrip("\n") + "\n"


def _after_docstring(text: str) -> str:
    for quotes in ('"""', "'''"):
        start = text.find(quotes)
        if start >= 0:
            end = text.find(quotes, start + 3)
            return text[end + 3:] if end >= 0 else text[start + 3:]
    return text


def _indented_or_definition(lines: list[str]) -> Iterator[str]:
    for line in lines:
        if not line.strip() or line[0] in " \t" or line.startswith("def ") or (line.startswith("class") and line.strip().endswith(":")):
            yield line


def wizardcoder(answer: str) -> str:
    """The rule of WizardCoder's `process_humaneval.py`.

    >>> wizardcoder("### Response:\\n```python\\ndef f():\\n\\treturn 1\\n```\\nHope it helps")
    'def f():\\n    return 1'
    """
    text = answer.partition("### Response:")[2] or answer
    text = text.replace("\t", "    ")
    if "```python" in text:
        text = text[text.index("```python") + len("```python"):]
        text = text[:text.index("```")] if "```" in text else text
    for end in ('if __name__ == "__main__":', "# Example usage"):
        text = text.partition(end)[0]
    return text.strip()


def evalplus(answer: str, entry_point: str) -> str:
    """The rule of evalplus' `sanitize.py`: the longest span of lines that parses, and of it only what the entry point reaches.

    All imports stay. Functions without a `return` go, and of two definitions of one name the second. Where the entry point is not
    defined, nothing but the imports is left.
    """
    code = longest_parsing(answer)
    tree = _parsed(code)
    if tree is None:
        return ""
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    definitions: dict[str, ast.stmt] = {}
    for node in tree.body:
        if (name := _defined_name(node)) is not None:
            definitions.setdefault(name, node)
    reached, queue = {entry_point}, [entry_point]
    while queue:
        name = queue.pop()
        used = {child.id for child in ast.walk(definitions[name]) if isinstance(child, ast.Name)} if name in definitions else set()
        queue += used - reached
        reached |= used
    kept = [*imports, *(node for name, node in definitions.items() if name in reached)]
    return "\n".join(_source(code, node) for node in kept) + "\n"


def longest_parsing(text: str) -> str:
    """The span of lines with the most lines that say something, of those that parse as Python; the earliest of several.

    >>> longest_parsing("Here it is:\\nx = 1\\ny = 2\\nGood luck with it!")
    'x = 1\\ny = 2'
    """
    lines = text.split("\n")
    filled = [0]
    for line in lines:
        filled.append(filled[-1] + bool(line.strip()))
    spans = sorted(((filled[end + 1] - filled[start], start, end) for start in range(len(lines)) for end in range(start, len(lines))),
                   key=lambda span: (-span[0], span[1], span[2]))
    for number, (_, start, end) in enumerate(spans):
        if _parsed("\n".join(lines[start:end + 1])) is not None:
            return "\n".join(lines[start:end + 1])
        if number >= MOST_SPANS:
            break
    return ""


def _parsed(code: str) -> ast.Module | None:
    try:
        return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _defined_name(node: ast.stmt) -> str | None:
    if isinstance(node, ast.FunctionDef):
        return node.name if any(isinstance(child, ast.Return) for child in ast.walk(node)) else None
    if isinstance(node, ast.ClassDef):
        return node.name
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id
    return node.target.id if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) else None


def _source(code: str, node: ast.stmt) -> str:
    decorators = getattr(node, "decorator_list", [])
    first = min([node.lineno, *(each.lineno for each in decorators)])
    return "\n".join(code.split("\n")[first - 1:node.end_lineno])


def block(answer: str, language: Language) -> str:
    """A function's body up to its end, in a language with braces, by the rule of CodeGeeX and codefuse-evaluation.

    C++: up to a line that begins with `int main`; others: up to and with the first line `}` or `};`.
    """
    kept = []
    for line in answer.split("\n"):
        if language == "cpp" and line.startswith("int main"):
            break
        kept.append(line)
        if language != "cpp" and line in ("}", "};"):
            break
    return "\n".join(kept) + "\n"


def sql(answer: str) -> str:
    """One query: of the first fence or the whole answer, from its SELECT or WITH to the first semicolon.

    >>> sql("The query is:\\n```sql\\nSELECT count(*) FROM singer;\\n```")
    'SELECT count(*) FROM singer'
    """
    text = first_fence(answer)
    start = re.search(r"\b(?:select|with)\b", text, re.IGNORECASE)
    return text[start.start() if start else 0:].partition(";")[0].strip()


RULES: Final[dict[Extraction, Callable[[str, Problem], str]]] = {
    "none": lambda answer, problem: answer,
    "fence": lambda answer, problem: first_fence(answer),
    "codefuse": lambda answer, problem: codefuse(answer, problem.language),
    "wizardcoder": lambda answer, problem: wizardcoder(answer),
    "evalplus": lambda answer, problem: evalplus(answer, problem.entry_point),
    "sql": lambda answer, problem: sql(answer),
    "block": lambda answer, problem: block(answer, problem.language),
}
