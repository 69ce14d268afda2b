"""Each layer by itself: what it names, with what score and evidence, and what it leaves alone."""

import pytest
from planted_problems import conversation, in_prose

from mft.data.decontamination.config import DecontaminateStep
from mft.data.decontamination.detector import Detector
from mft.data.decontamination.layer import RowText
from mft.data.decontamination.ngrams import Ngrams
from mft.data.decontamination.passages import passages_of, prose_and_examples, statement_of
from mft.data.decontamination.structure import StructureLayer
from mft.data.decontamination.substring import Substring
from mft.problems.problem import Problem

PROMPT = '''from typing import List


def kth_smallest_gap(numbers: List[int], k: int) -> int:
    """Sort the given numbers, take the gaps between neighbours, and return the k-th smallest of these gaps.
    >>> kth_smallest_gap([1, 4, 9, 16, 25, 36], 2)
    5
    >>> kth_smallest_gap([3, 10, 12, 40], 1)
    2
    """
'''
SOLUTION = '''    ordered = sorted(numbers)
    gaps = []
    for index in range(len(ordered) - 1):
        gaps.append(ordered[index + 1] - ordered[index])
    gaps.sort()
    return gaps[k - 1]
'''
PROBLEM = Problem("HumanEval/900", "HumanEval", "python", "completion", PROMPT, SOLUTION, "kth_smallest_gap", ())
SMALL = Problem("HumanEval/901", "HumanEval", "python", "completion",
                'def add_up(first, second):\n    """Give back the total of both of the given whole numbers."""\n',
                "    return first + second\n", "add_up", ())


def python_problem(name, docstring):
    return Problem(name, name.split("/")[0], "python", "completion", f'def f(x):\n    """{docstring}"""\n', "    return 2 * x\n", "f", ())


def substring(*problems, allow=()):
    return Substring([passage for problem in problems for passage in passages_of(problem)], allow)


def ngrams(*problems, allow=(), drop=0.6, listed=0.2):
    return Ngrams(problems, allow, drop_share=drop, list_share=listed)


def found(layer, row):
    return [(hit.problem, hit.contaminated, round(hit.score, 2)) for hit in layer.find(RowText(row))]


def test_substring_names_the_part_that_it_found():
    layer = substring(PROBLEM)
    for text, part in ((PROMPT, "statement"), (SOLUTION, "solution")):
        hit, = layer.find(RowText(in_prose(text)))
        assert (hit.problem, hit.layer, hit.score, hit.contaminated) == ("HumanEval/900", "substring", 1.0, True)
        assert hit.evidence.startswith(f"{part}: ")
    assert found(layer, in_prose(SOLUTION.replace("k - 1", "k - 2"))) == []


def test_a_system_message_and_the_border_of_two_turns_are_searched_too():
    halves = SOLUTION.split("    for")
    assert found(substring(PROBLEM), conversation(halves[0], "    for" + halves[1])) == [("HumanEval/900", True, 1.0)]


def test_a_passage_that_anybody_could_write_is_not_looked_for_and_said_to_be_unseen():
    layer = substring(SMALL)
    assert found(layer, in_prose(SMALL.solution)) == []
    assert layer.unseen() == []                     # its statement is long enough
    assert substring(python_problem("HumanEval/902", "Double it.")).unseen() == ["HumanEval/902"]


def test_what_stands_in_an_allowed_text_proves_nothing_in_any_layer():
    row = in_prose(f"```python\ndef other(a, b):\n{SOLUTION}```")
    program = PROBLEM.program
    for make in (substring, ngrams, lambda problem, allow: StructureLayer([problem], allow)):
        assert found(make(PROBLEM, allow=()), row) == [("HumanEval/900", True, 1.0)]
        assert found(make(PROBLEM, allow=(f"# known\n{program}",)), row) == []


def test_ngrams_score_the_share_of_a_statement_that_stands_in_the_row():
    """18 words have 11 runs of 8; the first 14 of them have 7."""
    part_of_it = "sort the given numbers take the gaps between neighbours and return the k th"
    whole, part = in_prose(f"{part_of_it} smallest of these gaps"), in_prose(part_of_it)
    assert found(ngrams(PROBLEM), whole) == [("HumanEval/900", True, 1.0)]
    assert found(ngrams(PROBLEM), part) == [("HumanEval/900", True, round(7 / 11, 2))]
    assert found(ngrams(PROBLEM, drop=0.7), part) == [("HumanEval/900", False, round(7 / 11, 2))]
    assert found(ngrams(PROBLEM, drop=0.9, listed=0.8), part) == []


def test_an_ngram_that_several_problems_have_counts_less():
    """Of 11 runs of 8 words the last 4 stand in a second problem too: they weigh a half each."""
    twin = python_problem("HumanEval/903", "Between neighbours, and return the k-th smallest of these gaps, in metres.")
    shared = "between neighbours and return the k th smallest of these gaps"
    scores = {name: score for name, _, score in found(ngrams(PROBLEM, twin), in_prose(shared))}
    assert scores["HumanEval/900"] == round(4 * 0.5 / (7 + 4 * 0.5), 2)


def test_white_space_free_languages_are_compared_by_character():
    chinese = python_problem("cn/1", "检查在给定的数字列表中，是否有任何两个数字比给定的阈值更接近。")
    row = in_prose("请写一个函数，检查在给定的数字列表中是否有任何两个数字比给定的阈值更接近，谢谢")
    assert found(ngrams(chinese), row) == [("cn/1", True, 1.0)]
    assert found(ngrams(chinese), in_prose("请写一个函数，检查在给定的列表中有没有数字")) == []


def test_examples_are_found_in_a_translation():
    german = PROMPT.replace("Sort the given numbers, take the gaps between neighbours, and return the k-th smallest", "Lücken")
    hit, = ngrams(PROBLEM).find(RowText(in_prose(german)))
    assert hit.contaminated
    assert "10-grams of examples" in hit.evidence


def test_a_statement_is_parted_into_prose_and_examples():
    prose, examples = prose_and_examples(PROBLEM, statement_of(PROBLEM))
    assert prose == ["Sort the given numbers, take the gaps between neighbours, and return the k-th smallest of these gaps."]
    assert [line.strip() for line in examples[0].split("\n")] == [
        ">>> kth_smallest_gap([1, 4, 9, 16, 25, 36], 2)", "5", ">>> kth_smallest_gap([3, 10, 12, 40], 1)", "2"]


def test_structure_sees_through_new_names_annotations_comments_and_docstrings():
    disguised = '''
class Tool:
    def other(self, values: list, n: int = 1) -> int:
        """Something else."""
        import math
        a: list = sorted(values)   # sorted
        b = []
        for i in range(len(a) - 1):
            b.append(a[i + 1] - a[i])
        b.sort()
        return b[n - 1]
'''
    hit, = StructureLayer([PROBLEM]).find(RowText(in_prose(disguised)))
    assert (hit.problem, hit.contaminated) == ("HumanEval/900", True)
    assert hit.evidence.startswith("the same body under other names, 44 nodes: ordered = sorted(numbers)")


@pytest.mark.parametrize("change", [("- 1)", "- 2)"), ("sorted(", "list("), (".append(", ".insert("), ("s.sort()", "s.reverse()")])
def test_structure_keeps_constants_builtins_and_methods(change):
    assert found(StructureLayer([PROBLEM]), in_prose(SOLUTION.replace(*change))) == []


def test_a_body_without_its_signature_is_found_in_a_fence_or_indented_or_as_a_whole_answer():
    renamed = SOLUTION.replace("ordered", "a").replace("gaps", "b").replace("index", "c").replace("numbers", "d")
    flush = "\n".join(line[4:] for line in renamed.split("\n"))
    in_answers = [conversation("Do it.", answer) for answer in (flush, f"Body:\n{renamed}\nEnd.")]
    for row in (in_prose(renamed), in_prose(f"```\n{flush}```"), *in_answers):
        assert found(StructureLayer([PROBLEM]), row) == [("HumanEval/900", True, 1.0)]


def test_a_variable_that_is_called_like_a_builtin_is_a_variable():
    """`sorted` as a name that the code binds is a name; as the builtin it is kept."""
    named = SOLUTION.replace("gaps", "list").replace("index", "max")
    assert found(StructureLayer([PROBLEM]), in_prose(f"def f(numbers, k):\n{named}")) == [("HumanEval/900", True, 1.0)]


def test_a_comment_at_the_left_edge_does_not_end_a_function():
    commented = SOLUTION.replace("    gaps.sort()", "# now sort\n    gaps.sort()")
    assert found(StructureLayer([PROBLEM]), in_prose(f"def other(numbers, k):\n{commented}")) == [("HumanEval/900", True, 1.0)]


def test_a_layer_that_is_sure_comes_before_one_that_only_lists():
    detector = Detector([PROBLEM], DecontaminateStep(type="decontaminate", problems=("unused",)))
    statement = "Sort the given numbers, take the gaps between neighbours, and add them."
    body = SOLUTION.replace("ordered", "a").replace("gaps", "b").replace("index", "c").replace("numbers", "d")
    hits = detector.hits(conversation(statement, body))
    assert [(hit.layer, hit.contaminated) for hit in hits] == [("structure", True), ("ngrams", False)]


def test_a_small_body_needs_a_second_key():
    layer = StructureLayer([SMALL])
    assert found(layer, in_prose("def f(a, b):\n    return a + b\n")) == []
    alike = 'def f(a, b):\n    """Give back the total of both given whole numbers."""\n    return a + b\n'
    assert found(layer, in_prose(alike)) == [("HumanEval/901", True, 1.0)]
    other_body = alike.replace("def f(", "def addUp(").replace("a + b", "sum([a, b])").replace("both ", "")
    assert found(layer, in_prose(other_body)) == [("HumanEval/901", True, 0.89)]
    assert found(layer, in_prose(other_body.replace("(a, b)", "(a, b, c)"))) == []


def test_a_telling_name_with_its_arguments_is_listed_and_not_dropped():
    text = "def kth_smallest_gap(numbers, k):\n    return 0\n"
    assert found(StructureLayer([PROBLEM]), in_prose(text)) == [("HumanEval/900", False, 0.1)]
    assert found(StructureLayer([PROBLEM]), in_prose(text.replace("kth_smallest_gap", "gap"))) == []


@pytest.mark.parametrize("text", [
    "def f(:\n    return", "def f(x):\n    return '\x00'", "def f(x):\n    return " + "-" * 3000 + "1",
    "def f():\n    return " + "(" * 999 + ")" * 999,
    "def f():\n    return " + "+".join("a" * 2000), '    return """', "def f():\n\treturn 1\n        return 2", "x = 1\n" * 400,
])
def test_what_is_no_program_breaks_no_layer(text):
    row = RowText(in_prose(text))
    assert [hit for layer in (substring(PROBLEM), ngrams(PROBLEM), StructureLayer([PROBLEM])) for hit in layer.find(row)] == []


def test_problems_that_are_not_python_are_said_to_be_unseen_by_structure():
    rust = Problem("Rust/1", "x", "rust", "completion", "/* What */\nfn f(x: i32) -> i32 {\n", "  x\n}\n", "f", ())
    broken = Problem("HumanEval/904", "HumanEval", "python", "completion", "def f(:\n", "    pass\n", "f", ())
    assert StructureLayer([rust, broken, PROBLEM]).unseen() == ["x/Rust/1", "HumanEval/904"]
