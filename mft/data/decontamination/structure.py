"""Layer `structure`: Python code of the row does what a solution does, in the same steps, under other names.

Three keys: the alpha-renamed tree of the body, the name and the arguments of the function, the words of its docstring.

| found | verdict |
|---|---|
| equal body of `TELLING_NODES` nodes or more | contaminated |
| equal body (any size), or equal name and number of arguments, and docstrings alike (`ALIKE`) | contaminated |
| equal body of `LISTED_NODES` nodes or more; equal name of three words or more, and equal argument names | listed, not contaminated |
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mft.data.decontamination.alpha_renaming import argument_names, structure_of
from mft.data.decontamination.layer import Hit, Layer, RowText, excerpt
from mft.data.decontamination.normalise import clean, is_cjk, is_word, tokenize
from mft.data.decontamination.passages import statement_of
from mft.data.decontamination.python_fragments import Fragment, fragments, parse
from mft.problems.problem import Problem

TELLING_NODES = 20
LISTED_NODES = 13
WORD_OF_NAME = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+")
ALIKE = 0.6
"""Share of the words of two docstrings, each word once, that both have (Jaccard)."""


@dataclass(frozen=True, slots=True)
class Solution:
    """The function that a problem asks for."""

    problem: str
    name: str
    arguments: tuple[str, ...]
    words: frozenset[str]
    nodes: int
    code: str


class StructureLayer(Layer):
    """The functions of a row against the canonical solutions of Python problems."""

    def __init__(self, problems: Iterable[Problem], allowed: Sequence[str] = ()) -> None:
        self._by_key: defaultdict[str, list[Solution]] = defaultdict(list)
        self._by_name: defaultdict[str, list[Solution]] = defaultdict(list)
        self._unseen: list[str] = []
        trivial = {structure_of(fragment.body, _arguments(fragment)).key for text in allowed for fragment in fragments(text, [text])}
        for problem in problems:
            self._add(problem, trivial)

    def unseen(self) -> list[str]:
        return self._unseen

    def _add(self, problem: Problem, trivial: set[str]) -> None:
        tree = parse(problem.program) if problem.language == "python" else None
        nodes = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == problem.entry_point] if tree else []
        if not nodes:
            self._unseen.append(problem.name)
            return
        function = nodes[-1]
        arguments = tuple(argument_names(function))
        with_signature, alone = structure_of(function.body, arguments), structure_of(function.body)
        words = _words(statement_of(problem))
        solution = Solution(problem.name, _folded(function.name), arguments, words, with_signature.nodes, problem.solution)
        for key in dict.fromkeys((with_signature.key, alone.key)):
            if key not in trivial:
                self._by_key[key].append(solution)
        self._by_name[solution.name].append(solution)

    def find(self, row: RowText) -> Sequence[Hit]:
        found: dict[str, Hit] = {}
        for fragment in fragments(row.text, row.messages):
            try:
                hits = list(self._compare(fragment))
            except RecursionError:      # an expression of hundreds of levels, which no solution has
                continue
            for hit in hits:
                known = found.get(hit.problem)
                if known is None or (hit.contaminated, hit.score) > (known.contaminated, known.score):
                    found[hit.problem] = hit
        return list(found.values())

    def _compare(self, fragment: Fragment) -> Iterable[Hit]:
        structure = structure_of(fragment.body, _arguments(fragment))
        words = _docstring_words(fragment)
        for solution in self._by_key.get(structure.key, ()):
            alike = _jaccard(words, solution.words)
            contaminated = structure.nodes >= TELLING_NODES or alike >= ALIKE
            if contaminated or structure.nodes >= LISTED_NODES:
                evidence = f"the same body under other names, {structure.nodes} nodes: {excerpt(solution.code)}"
                yield Hit(solution.problem, "structure", evidence, 1.0, contaminated)
        if fragment.function is None:
            return
        arguments = tuple(argument_names(fragment.function))
        for solution in self._by_name.get(_folded(fragment.function.name), ()):
            alike = _jaccard(words, solution.words)
            contaminated = alike >= ALIKE and len(arguments) == len(solution.arguments)
            if contaminated or (arguments == solution.arguments and is_distinctive(fragment.function.name)):
                signature = f"{fragment.function.name}({', '.join(arguments)})"
                evidence = f"a function of this name, {alike:.0%} of the docstrings' words: {signature}"
                yield Hit(solution.problem, "structure", evidence, max(alike, 0.1), contaminated)


def is_distinctive(name: str) -> bool:
    """True for a name of three words or more: `largest_prime_factor`, not `is_prime`.

    >>> is_distinctive("hasCloseElements"), is_distinctive("sort_array")
    (True, False)
    """
    return len([word for word in WORD_OF_NAME.findall(name) if word]) >= 3


def _arguments(fragment: Fragment) -> list[str]:
    return argument_names(fragment.function) if fragment.function else []


def _docstring_words(fragment: Fragment) -> frozenset[str]:
    return _words(ast.get_docstring(fragment.function, clean=False) or "") if fragment.function else frozenset()


def _words(text: str) -> frozenset[str]:
    return frozenset(token for token in tokenize(clean(text), "prose") if is_word(token) or is_cjk(token))


def _jaccard(first: frozenset[str], second: frozenset[str]) -> float:
    return len(first & second) / len(first | second) if first and second else 0.0


def _folded(name: str) -> str:
    """`hasCloseElements` and `has_close_elements` are one name."""
    return name.replace("_", "").casefold()
