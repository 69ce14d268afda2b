"""Each rule of extraction on answers that are written out."""

import pytest
from evaluation_problems import ADD, ROUND

from mft.evaluation import extract
from mft.evaluation.protocols import protocol


@pytest.mark.parametrize(("answer", "code"), [
    ("    return 1\n", "    return 1\n"),
    ("Sure.\n```python\nx = 1\n```\nDone", "x = 1\n"),
    ("```\nx = 1\n```", "x = 1\n"),
    ("```py\nx = 1\n", "x = 1\n"),
    ("```python\na = 1\n```\n```python\nb = 2\n```", "a = 1\n"),
    ("use `x` here", "use `x` here"),
])
def test_the_first_fence_is_taken_or_the_whole_answer(answer: str, code: str):
    assert extract.first_fence(answer) == code


@pytest.mark.parametrize(("answer", "code"), [
    ("    return 1\n", "    return 1\n"),
    ("    return 1\nThis adds.\n    x = 2\n", "    return 1\n"),
    ("```PYTHON\n    return 1\n```\ntext", "\n    return 1\n"),
    # `import` at the margin: all up to the end of the docstring goes, and the import with it
    ("```python\nimport re\ndef f(x):\n    \"\"\"Doc.\"\"\"\n    return re.x\n```", "\n    return re.x\n"),
    # an indented import is no reason to drop anything
    ("    import re\n    return re.x\n", "    import re\n    return re.x\n"),
    ("    from math import floor\n    return floor(1)\n", "    from math import floor\n    return floor(1)\n"),
    ("def f(x):\n    return x\nprint(f(1))\n", "def f(x):\n    return x\n\n"),
    ("def f(x):\n    return g(x)\n\ndef g(x):\n    return x\nclass A:\n    pass\n",
     "def f(x):\n    return g(x)\n\ndef g(x):\n    return x\nclass A:\n    pass\n\n"),
    ("    return 1<|endoftext|>", "    return 1\n"),
])
def test_codefuse_takes_code_out_as_its_own_evaluation_does(answer: str, code: str):
    assert extract.codefuse(answer) == code


@pytest.mark.parametrize(("answer", "code"), [
    ("### Response:\n```python\ndef f():\n\treturn 1\n```\nbye", "def f():\n    return 1"),
    ("def f():\n    return 1\n\nif __name__ == \"__main__\":\n    f()", "def f():\n    return 1"),
    ("def f():\n    return 1\n# Example usage\nf()", "def f():\n    return 1"),
    ("```python\ndef f():\n    return 1", "def f():\n    return 1"),
])
def test_wizardcoder_takes_the_function_and_strips_it(answer: str, code: str):
    assert extract.wizardcoder(answer) == code


def test_evalplus_keeps_the_longest_span_that_parses_and_what_the_entry_point_reaches():
    answer = ("Here is the code:\nimport math\nLIMIT = 3\nOTHER = 4\ndef helper(x):\n    return min(x, LIMIT)\ndef unused(x):\n    return 1"
              "\ndef add(a, b):\n    return helper(a) + b\nprint(add(1, 2))\nI hope that this helps.")
    assert extract.evalplus(answer, "add") == ("import math\nLIMIT = 3\ndef helper(x):\n    return min(x, LIMIT)\n"
                                               "def add(a, b):\n    return helper(a) + b\n")


def test_evalplus_drops_functions_that_return_nothing_and_keeps_decorators():
    answer = "from functools import cache\ndef log(x):\n    print(x)\n@cache\ndef add(a, b):\n    log(a)\n    return a + b\n"
    assert extract.evalplus(answer, "add") == "from functools import cache\n@cache\ndef add(a, b):\n    log(a)\n    return a + b\n"


def test_evalplus_of_nothing_that_parses_is_nothing():
    assert extract.evalplus("def (:\n  if", "add").strip() == ""


@pytest.mark.parametrize(("language", "answer", "code"), [
    ("cpp", "    return 1;\n}\nint main(){ }\n", "    return 1;\n}\n"),
    ("go", "    return 1\n}\n\nfunc other() {\n}\n", "    return 1\n}\n"),
    ("javascript", "  return 1\n};\nf()\n", "  return 1\n};\n"),
    ("java", "        return 1;\n    }\n}\nclass B {}\n", "        return 1;\n    }\n}\n"),
    ("rust", "    1\n}\nfn main() {}\n", "    1\n}\n"),
])
def test_a_body_in_braces_ends_where_its_function_does(language, answer: str, code: str):
    assert extract.block(answer, language) == code


def test_stops_cut_before_code_is_taken_out():
    rules = protocol("openai")
    assert extract.extract("    return a + b\n\ndef more():\n    pass\n", ADD, rules, ADD.prompt) == "    return a + b\n"
    assert extract.extract("    return a + b\n# done", ADD, rules, ADD.prompt) == "    return a + b"


def test_evalplus_without_a_template_looks_at_prompt_and_completion_as_one():
    rules = protocol("evalplus_base")
    assert extract.extract(ROUND.solution, ROUND, rules, ROUND.prompt) == (
        'import math\ndef up(x):\n    return math.ceil(x)\ndef both(x):\n    """Up and down."""\n    return up(x), math.floor(x)\n')
