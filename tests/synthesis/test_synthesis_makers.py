"""What makers take from a model and what they eliminate, each by its reason."""

import pytest
from model_by_rules import asked, reasons, row_of, tools_of

from mft.synthesis.client.request import Answer, Unanswered
from mft.synthesis.makers.answer import answer
from mft.synthesis.makers.backtranslate import backtranslate
from mft.synthesis.makers.config import OPERATIONS, AnswerStep, BacktranslateStep, EvolveStep, TranslateStep, UnitTestsStep
from mft.synthesis.makers.evolve import evolve, operation_of
from mft.synthesis.makers.translate import translate_instruction
from mft.synthesis.makers.unit_tests import unit_tests
from mft.synthesis.makers.wording import BACKTRANSLATE, EVOLVE, HOW, TRANSLATE
from mft.synthesis.row import Lineage, Row, Solution

SEED = "Write a function that sorts a list of names by their length."
HARDER = "Write a function that sorts a list of names by their length, in place, and leaves names of one length in their order."

EVOLUTIONS = {
    HARDER: None,
    "I'm sorry, but I cannot make this exercise any harder than it is.": "refused",
    "As an AI language model I would rather not rewrite the exercise you gave.": "refused",
    "对不起，我无法改写这道练习，请换一道题目再试一次。": "refused",
    SEED: "unchanged",
    "write a FUNCTION that sorts a list of names by their length!": "unchanged",
    SEED + " Please.": "copied",
    "Sort names.": "too_short",
    "It must still be solvable and complete in itself, and ask for code in Python. Sort names by length.": "prompt_leaked",
    "请编写一个函数，把一个名字列表按照长度排序，长度相同的名字保持原来的先后次序，并且不能使用额外的内存。": "other_language",
    "": "answer_empty",
}


@pytest.mark.parametrize("text", EVOLUTIONS)
def test_an_evolution_is_kept_or_eliminated_by_its_reason(text: str):
    tally = evolve([row_of("a", SEED)], EvolveStep(type="evolve", operations=["constraint"]), tools_of(lambda request: text))
    found = reasons(tally)
    assert found == ({"a/constraint-1": EVOLUTIONS[text]} if EVOLUTIONS[text] else {})
    assert [row.id for row in tally.kept] == (["a"] if EVOLUTIONS[text] else ["a", "a/constraint-1"])
    assert (tally.read, tally.made) == (1, 1)


def test_lineage_leads_from_each_evolution_to_its_seed():
    def rule(request):
        return asked(request).rpartition("Exercise:\n")[2] + " And then count how many of them begin with a capital letter as well."

    tally = evolve([row_of("a", SEED)], EvolveStep(type="evolve", rounds=3, operations=["rarer"], keep_parents=False), tools_of(rule))
    assert reasons(tally) == {}
    assert (tally.read, tally.made, tally.replaced) == (1, 3, 1)
    assert [(row.id, row.lineage) for row in tally.kept] == [
        ("a/rarer-1", Lineage("a", "a", "rarer", 1)), ("a/rarer-1/rarer-2", Lineage("a", "a/rarer-1", "rarer", 2)),
        ("a/rarer-1/rarer-2/rarer-3", Lineage("a", "a/rarer-1/rarer-2", "rarer", 3))]


def test_after_an_elimination_the_parent_is_tried_again_in_the_next_round():
    answers = iter(["", HARDER])
    tally = evolve([row_of("a", SEED)], EvolveStep(type="evolve", rounds=2, operations=["rarer"]), tools_of(lambda request: next(answers)))
    assert reasons(tally) == {"a/rarer-1": "answer_empty"}
    assert [row.id for row in tally.kept] == ["a", "a/rarer-2"]


def test_the_operation_depends_on_seed_row_and_round_alone():
    config, tools = EvolveStep(type="evolve"), tools_of()
    drawn = [operation_of(row_of(f"r{number}"), 1, config, tools) for number in range(500)]
    assert drawn == [operation_of(row_of(f"r{number}"), 1, config, tools_of()) for number in range(500)]
    assert {name: drawn.count(name) > 70 for name in OPERATIONS} == dict.fromkeys(OPERATIONS, True)
    assert drawn != [operation_of(row_of(f"r{number}"), 2, config, tools) for number in range(500)]
    assert drawn != [operation_of(row_of(f"r{number}"), 1, config, tools_of(seed=2)) for number in range(500)]


def test_a_chinese_row_is_asked_in_chinese():
    prompts = []
    evolve([row_of("a", "编写一个函数，返回列表中最大的数。")], EvolveStep(type="evolve", operations=["rarer"]),
           tools_of(lambda request: prompts.append(asked(request)) or ""))
    assert "编写一个函数，返回列表中最大的数。" in prompts[0]
    assert HOW["zh"]["rarer"] in prompts[0]


@pytest.mark.parametrize(("said", "reason"), [
    (Unanswered("given_up"), "unanswered_given_up"), (Unanswered("refused"), "unanswered_refused"),
    (Unanswered("budget_spent"), "unanswered_budget_spent"), (Answer("def f", True, 1, 1), "answer_cut")])
def test_what_the_client_could_not_get_is_a_reason(said, reason: str):
    assert reasons(answer([row_of("a")], AnswerStep(type="answer"), tools_of(lambda request: said))) == {"a": reason}


CODE = """def running_mean(values, width):
    total = sum(values[:width])
    means = [total / width]
    for old, new in zip(values, values[width:]):
        total += new - old
        means.append(total / width)
    return means
"""
ASKED = "Write `running_mean(values, width)`, which returns the mean of each window of `width` numbers of a list, in order."

INSTRUCTIONS = {
    ASKED: None,
    f"```\n{ASKED}\n```": None,
    f"{ASKED}\n```python\n{CODE}```": "code_in_instruction",
    ASKED + " Begin with means = [total / width] and use for old, new in zip(values, values[width:]): to go on.": "code_in_instruction",
    "Sorry, I can't.": "refused",
    "Mean of windows.": "too_short",
    "编写函数 running_mean(values, width)，依次返回列表中每个长度为 width 的窗口的平均值。": "other_language",
    "Describe the behaviour, edge cases included, but quote no line of the code.": "prompt_leaked",
}


@pytest.mark.parametrize("text", INSTRUCTIONS)
def test_a_back_translation_asks_for_the_code_without_showing_it(text: str):
    row = Row("a", "task", Lineage("a"), solutions=(Solution(CODE, CODE),))
    tally = backtranslate([row], BacktranslateStep(type="backtranslate"), tools_of(lambda request: text))
    assert reasons(tally) == ({"a": INSTRUCTIONS[text]} if INSTRUCTIONS[text] else {})
    if not INSTRUCTIONS[text]:
        assert (tally.kept[0].instruction, tally.kept[0].code, tally.kept[0].lineage.operation) == (ASKED, CODE, "backtranslate")


def test_back_translation_leaves_instructions_alone_and_broken_code_out():
    rows = [row_of("has", ASKED, answer=CODE), Row("broken", "task", Lineage("broken"), solutions=(Solution("def (", "def ("),)),
            Row("empty", "task", Lineage("empty"))]
    tools = tools_of(lambda request: "must not be asked")
    tally = backtranslate(rows, BacktranslateStep(type="backtranslate"), tools)
    assert reasons(tally) == {"broken": "code_does_not_parse", "empty": "no_code"}
    assert tally.kept == rows[:1]
    assert tools.client.requests == []


def test_mixed_back_translation_gives_the_share_of_chinese_that_was_asked_for():
    rows = [Row(f"r{number}", "task", Lineage("a"), solutions=(Solution(CODE, CODE),)) for number in range(1000)]
    chinese_text = "编写一个函数，依次返回列表中每个窗口的平均值，窗口长度是参数。"
    tools = tools_of(lambda request: chinese_text if "代码" in asked(request) else ASKED)
    tally = backtranslate(rows, BacktranslateStep(type="backtranslate", language="mixed"), tools)
    chinese = sum(row.natural_language == "zh" for row in tally.kept)
    assert (len(tally.kept), 190 < chinese < 250) == (1000, True)


def test_samples_without_code_are_noted_and_a_row_without_any_is_dropped():
    answers = {0: "It cannot be done.", 1: "```python\nprint(1)\n```", 2: "I'm sorry, I cannot help."}
    config = AnswerStep(type="answer", samples=3)
    tally = answer([row_of("a")], config, tools_of(lambda request: answers[request.sample]))
    assert (reasons(tally), [row.code for row in tally.kept]) == ({}, ["print(1)\n"])
    assert dict(tally.noted) == {"sample_answer_without_code": 1, "sample_refused": 1}
    tally = answer([row_of("a")], config, tools_of(lambda request: "I'm sorry, I cannot help." if request.sample else "No."))
    assert reasons(tally) == {"a": "answer_without_code"}


def test_an_answer_that_is_there_is_kept_unless_it_is_to_be_replaced():
    row = row_of("a", answer="```python\nprint(1)\n```", tests="assert True")
    kept = answer([row], AnswerStep(type="answer"), tools_of()).kept[0]
    made = answer([row], AnswerStep(type="answer", replace=True), tools_of(lambda request: "```python\nprint(2)\n```")).kept[0]
    assert (kept, made.code, made.tests) == (row, "print(2)\n", "")


TESTS = {
    "```python\nfrom solution import f\n\ndef test_f():\n    assert f(1) == 2\n```": None,
    "No tests today.": "tests_without_code",
    "```python\ndef test_f(:\n    assert f(1) == 2\n```": "tests_do_not_parse",
    "```python\ndef test_one():\n    assert 1 + 1 == 2\n```": "tests_ignore_solution",
    "```python\nimport pytest\n\ndef test_f():\n    assert f(1) == 2\n```": "tests_need_packages",
}


@pytest.mark.parametrize("text", TESTS)
def test_tests_must_parse_and_use_the_solution(text: str):
    row = row_of("a", answer="```python\ndef f(x):\n    return x + 1\n```")
    tally = unit_tests([row], UnitTestsStep(type="unit_tests"), tools_of(lambda request: text))
    assert reasons(tally) == ({"a": TESTS[text]} if TESTS[text] else {})


def test_tests_are_asked_for_without_the_solution_where_it_is_not_to_be_seen():
    prompts = []
    row = row_of("a", answer='```python\nLIMIT = 7\n\ndef f(x):\n    """Add one."""\n    return x + 1\n```')
    tools = tools_of(lambda request: prompts.append(asked(request)) or "")
    unit_tests([row], UnitTestsStep(type="unit_tests", sees_solution=False), tools)
    assert 'def f(x):\n    """Add one."""\n    ...\n```' in prompts[0]
    assert "x + 1" not in prompts[0]


CODE_TASK = "What does `len(x)` give?\n```python\nx = [1]\n```\nExplain it."

TRANSLATIONS = {
    "`len(x)` 的结果是什么？\n```python\nx = [1]\n```\n请说明。": None,
    "`len(x)` 的结果是什么？\n```python\nx = [2]\n```\n请说明。": "code_changed",
    "`长度(x)` 的结果是什么？\n```python\nx = [1]\n```\n请说明。": "code_changed",
    CODE_TASK: "other_language",
}


@pytest.mark.parametrize("text", TRANSLATIONS)
def test_a_translation_copies_the_code(text: str):
    row = row_of("a", CODE_TASK, answer="```python\nprint(1)\n```")
    tally = translate_instruction([row], TranslateStep(type="translate_instruction", to="zh"), tools_of(lambda request: text))
    assert reasons(tally) == ({"a/to_zh-0": TRANSLATIONS[text]} if TRANSLATIONS[text] else {})
    assert [(each.id, each.instruction, each.code) for each in tally.kept] == (
        [] if TRANSLATIONS[text] else [("a/to_zh-0", text, "print(1)\n")])


def test_rows_in_the_wanted_language_are_not_translated():
    tools = tools_of()
    tally = translate_instruction([row_of("a", "编写一个函数。")], TranslateStep(type="translate_instruction", to="zh"), tools)
    assert (reasons(tally), len(tally.kept), tools.client.requests) == ({}, 1, [])


def test_every_prompt_is_there_in_both_languages_and_has_its_holes():
    for templates, holes in ((BACKTRANSLATE, ("{code}", "{language}")), (EVOLVE, ("{how}", "{instruction}", "{language}")),
                             (TRANSLATE, ("{instruction}",))):
        assert all(hole in templates[language] for language in ("en", "zh") for hole in holes)
    assert set(HOW["en"]) == set(HOW["zh"]) == set(OPERATIONS)
