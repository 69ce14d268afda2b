"""Does a piece of code parse? Python by `ast` of the running interpreter, nine other languages by tree-sitter.

Code in an answer is often a fragment: a method without its class, statements without their function. It passes when it parses as
it stands or inside one of the frames of its language. tree-sitter grammars are more lenient than compilers: what they accept may
not compile, what they refuse is broken, or uses macros of C that only its preprocessor understands.
"""

import ast
import doctest
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Final

from tree_sitter import Language, Parser

from mft.data.filters.config import CodeLanguage

TAGS: Final[Mapping[str, CodeLanguage]] = {
    "python": "python", "py": "python", "python3": "python", "py3": "python", "pycon": "python",
    "java": "java",
    "javascript": "javascript", "js": "javascript", "jsx": "javascript", "node": "javascript", "nodejs": "javascript",
    "typescript": "typescript", "ts": "typescript", "tsx": "typescript",
    "go": "go", "golang": "go",
    "c": "c", "h": "c",
    "cpp": "cpp", "c++": "cpp", "cc": "cpp", "cxx": "cpp", "hpp": "cpp",
    "rust": "rust", "rs": "rust",
    "csharp": "csharp", "c#": "csharp", "cs": "csharp",
    "bash": "bash", "sh": "bash",
}
"""Tags of fences that are judged. `shell`, `console` and `zsh` hold sessions or other shells, so they are not."""

WHOLE: Final = ("", "")


@dataclass(frozen=True, slots=True)
class Grammar:
    """The tree-sitter grammars of a language (module and function each), and the frames that its fragments may stand in."""

    sources: Sequence[tuple[str, str]]
    frames: Sequence[tuple[str, str]]
    head: re.Pattern[str] | None = None
    """Lines that stay outside a frame: imports."""


def _grammar(module: str, *frames: tuple[str, str], head: str = "") -> Grammar:
    return Grammar([(f"tree_sitter_{module}", "language")], [WHOLE, *frames], re.compile(head, re.M) if head else None)


SCRIPT_FRAMES: Final = [WHOLE, ("class A {\n", "\n}"), ("x = {\n", "\n}"), ("async function f() {\n", "\n}"), ("x = \n", "\n")]
GRAMMARS: Final[Mapping[CodeLanguage, Grammar]] = {
    "java": _grammar("java", ("class A {\n", "\n}"), ("class A { void f() {\n", "\n}}"), ("class A { void f() {\n", "\n;}}"),
                     ("class A { Object x = \n", "\n;}"), head=r"^[ \t]*(?:import|package)\b.*;[ \t]*$"),
    "csharp": _grammar("c_sharp", ("class A {\n", "\n}"), ("class A { void F() {\n", "\n}}"), ("class A { void F() {\n", "\n;}}"),
                       ("class A { object x = \n", "\n;}"), head=r"^[ \t]*using[ \t]+[\w.= \t]+;[ \t]*$"),
    "go": _grammar("go", ("package p\n", "\n"), ("package p\nfunc f() {\n", "\n}"), ("package p\nvar x = \n", "\n"),
                   head=r"^[ \t]*(?:package\b.*|import\s+\"[^\"]*\"|import\s*\([^)]*\))[ \t]*$"),
    "c": _grammar("c", ("void f(void) {\n", "\n}"), ("void f(void) {\n", "\n;}"), head=r"^[ \t]*#[ \t]*include\b.*$"),
    "cpp": _grammar("cpp", ("class A {\n", "\n};"), ("void f() {\n", "\n}"), ("void f() {\n", "\n;}"), head=r"^[ \t]*#[ \t]*include\b.*$"),
    "rust": _grammar("rust", ("impl A {\n", "\n}"), ("fn f() {\n", "\n}"), head=r"^[ \t]*(?:pub\s+)?use\b.*;[ \t]*$"),
    "bash": _grammar("bash"),
    "javascript": Grammar([("tree_sitter_javascript", "language")], SCRIPT_FRAMES),
    "typescript": Grammar([("tree_sitter_typescript", "language_typescript"), ("tree_sitter_typescript", "language_tsx")], SCRIPT_FRAMES),
}

BASH_PLACEHOLDER: Final = re.compile(r"<[A-Za-z][\w .:/|-]*>")
"""`git clone <url>`: a word that the reader fills in, which the shell would take for a redirection."""


ELISION: Final = re.compile(r"(?m)^[ \t]*(?:\.\.\.|\u2026)[ \t]*$")
"""A line of three dots: code that the answer leaves out on purpose. In Python it parses."""


def parses(code: str, language: CodeLanguage) -> bool:
    """True when the code, whole or as a fragment, is without a syntax error. Code without anything but white space parses."""
    if not code.strip():
        return True
    return python_parses(code) if language == "python" else _tree_parses(code, language)


def python_parses(code: str) -> bool:
    """`ast.parse`, as it stands, indented as a whole, or without the `!` and `%` lines of notebooks.

    Of a doctest session the examples' code is judged; one that doctest cannot read does not parse. Python 2 does not parse.
    """
    if code.lstrip().startswith(">>>"):
        try:
            code = "".join(example.source for example in doctest.DocTestParser().get_examples(code))
        except ValueError:
            return False
    bare = re.sub(r"(?m)^([ \t]*)[!%].*$", r"\1pass", code)
    indented = f"if 1:\n{code}"
    return _python_body(code) is not None or _python_body(indented) == 1 or (bare != code and _python_body(bare) is not None)


def _python_body(code: str) -> int | None:
    """The number of top-level statements, or None for what does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")   # invalid escapes in other people's strings
            return len(ast.parse(code).body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _tree_parses(code: str, language: CodeLanguage) -> bool:
    grammar = GRAMMARS[language]
    code = ELISION.sub("", code)
    if language == "bash":
        code = BASH_PLACEHOLDER.sub("PLACEHOLDER", code)
    body = grammar.head.sub("", code) if grammar.head else code
    texts = [code, *(before + body + after for before, after in grammar.frames[1:])]
    return any(not parser.parse(text.encode("utf-8", "surrogatepass")).root_node.has_error
               for text in texts for parser in map(load_parser, grammar.sources))


@cache
def load_parser(source: tuple[str, str]) -> Parser:
    """One parser a grammar. `has_error` of its trees is true for ERROR and for MISSING nodes."""
    module, function = source
    return Parser(Language(getattr(import_module(module), function)()))
