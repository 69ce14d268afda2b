"""What the model is asked, in English and in Chinese. `{...}` is filled in; what is filled in is never looked into for more braces."""

import re
from collections.abc import Mapping
from typing import Final

from mft.synthesis.makers.config import Operation, ProseLanguage

BACKTRANSLATE: Final[Mapping[ProseLanguage, str]] = {
    "en": "Below is {language} code. Write the request of a person who has no code yet and to whom exactly this code would be the right "
          "answer.\nName the function, its arguments and what it returns wherever a reader could not guess them. Describe the behaviour, "
          "edge cases included, but quote no line of the code and do not say how it is written inside.\n"
          "Answer in English with the request alone, without a heading.\n\n```{language}\n{code}\n```",
    "zh": "下面是一段 {language} 代码。假设有人手里还没有代码，请写出他会提出的需求，使这段代码恰好是正确的回答。\n"
          "凡是读者猜不到的函数名、参数和返回值都要写明。说明代码的行为，包括边界情况，但不要引用任何一行代码，也不要透露内部的写法。\n"
          "只用中文写出需求本身，不要标题。\n\n```{language}\n{code}\n```"}

EVOLVE: Final[Mapping[ProseLanguage, str]] = {
    "en": "You make programming exercises harder for people who find the present ones easy. Rewrite the exercise at the end.\n"
          "How: {how}\n"
          "It must still be solvable and complete in itself, and ask for code in {language}. Add no more than about sixty words of prose. "
          "Do not solve it. Answer in English with the rewritten exercise alone: no heading, no remark about what was changed.\n\n"
          "Exercise:\n{instruction}",
    "zh": "你的工作是把编程练习改得更难，供觉得现有练习太简单的人使用。请改写最后给出的练习。\n"
          "改法：{how}\n"
          "改写后的练习必须仍然可解、自成一体，并要求用 {language} 编写代码。增加的文字不超过一百字左右。不要给出解答。"
          "只用中文写出改写后的练习本身：不要标题，也不要说明改了什么。\n\n练习：\n{instruction}"}

HOW: Final[Mapping[ProseLanguage, Mapping[Operation, str]]] = {
    "en": {"constraint": "give it one further requirement that changes what a correct program must do.",
           "rarer": "take one requirement that everybody has met before and put a specific one in its place that few have met.",
           "reasoning": "change it so that the answer follows only after several steps that build on each other, where one was enough.",
           "misdirection": "add a short program that looks like a solution but is wrong, as a reference to start from; do not say where "
                           "it is wrong.",
           "complexity": "demand a bound on time or memory that the obvious program does not keep, and say how large the input gets."},
    "zh": {"constraint": "再加一项要求，使正确的程序必须做得不一样。",
           "rarer": "选一项人人都见过的要求，换成一项具体的、少有人见过的要求。",
           "reasoning": "改成需要几个前后相接的步骤才能得出答案，而不是一步就够。",
           "misdirection": "附上一小段看似解答、实际有错的程序作为参考起点；不要指出错在哪里。",
           "complexity": "对时间或内存提出直接写法达不到的上限，并说明输入规模有多大。"}}

ANSWER: Final[Mapping[ProseLanguage, str]] = {
    "en": "You are a careful programmer. Solve the task with complete code in one fenced {language} block that can be used as it is; "
          "functions and classes at the top level, no input from the keyboard unless the task asks for it. Then explain it in a few "
          "sentences.",
    "zh": "你是一位细心的程序员。请用一个可以直接使用的 {language} 代码块给出完整的解答；函数和类放在最外层，除非题目要求，"
          "不要从键盘读取输入。然后用几句话说明。"}

UNIT_TESTS: Final[str] = (
    "Write tests for the Python code that answers the task below. The code is in a module named `solution`; import what you test from it. "
    "Write {tests} functions whose names begin with `test_` and which use plain `assert`, each on another behaviour: usual cases, edge "
    "cases, and what the task says of wrong input. "
    "Work out the expected values from the task, write them as literals, and never compute them with "
    "the tested code. Use the standard library alone: no pytest, no files, no network, no randomness, no clock.\n"
    "Answer with one fenced python block and nothing else.\n\nTask:\n{instruction}\n\nCode:\n```python\n{code}\n```")

TRANSLATE: Final[Mapping[ProseLanguage, str]] = {
    "en": "Translate the programming task below into English. Copy fenced code blocks, and what stands between backticks, character by "
          "character. Keep names, numbers and the layout. Do not solve it. Answer with the translation alone.\n\n{instruction}",
    "zh": "请把下面的编程任务翻译成中文。代码块以及反引号之间的内容要逐字照抄。保留名称、数字和排版。"
          "不要解答。只写出译文。\n\n{instruction}"}

NAMES: Final[Mapping[str, str]] = {"cpp": "C++", "csharp": "C#", "javascript": "JavaScript", "typescript": "TypeScript", "bash": "Bash",
                                   "python": "Python", "java": "Java", "go": "Go", "rust": "Rust", "c": "C"}


def filled(template: str, **values: str) -> str:
    """The template with its holes filled, all at once: braces in a value stay what they are.

    >>> filled("{a} and {b}", a="{b}", b="x")
    '{b} and x'
    """
    return re.sub(r"\{(\w+)\}", lambda hole: values.get(hole[1], hole[0]), template)
