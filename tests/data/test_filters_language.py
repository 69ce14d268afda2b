"""`language`: Chinese, English, other scripts and none, by the letters outside code."""

import pytest
from filter_rows import row, step, verdicts

from mft.conversation import Conversation, Message
from mft.data.filters.language import language_of


@pytest.mark.parametrize(("text", "language"), [
    ("用 Ruby 如何将数组中的元素按照字母顺序进行排序？", "zh"),
    ("请解释 `how_many_letters(in_this, inline_code)`", "zh"),
    ("这是关于Cpp中std::numeric_limits<unsigned long long>::max的问题", "zh"),
    ("List blocks中的item # of () in [ v]块是用来做什么的？", "zh"),
    ("排序\n```python\nsorted(a_long_list_of_names, key=lambda name: name.lower(), reverse=True)\n```", "zh"),
    ("What does 你 mean in this long English sentence?", "en"),
    ("Sort the list.", "en"),
    ("Trie la liste, s'il te plaît.", "en"),
    ("リストを並べ替えてください", "other"),
    ("この漢字の文章の意味を説明", "other"),
    ("목록을 정렬하세요", "other"),
    ("Отсортируй список", "other"),
    ("رتب القائمة", "other"),
    ("1 + 1 = ?", "none"),
    ("```python\nprint('hello')\n```", "none"),
    ("", "none"),
])
def test_the_script_of_the_prose_decides(text, language):
    assert language_of(text, 0.1) == language


def test_the_share_of_han_letters_from_which_a_text_is_chinese_is_included():
    assert language_of("中" + "a" * 9, 0.1) == "zh"
    assert language_of("中" + "a" * 10, 0.1) == "en"
    assert language_of("中" + "a" * 9, 0.5) == "en"


ROWS = [row("排序", "```\nx\n```", "zh"), row("sort", "排序", "en"), row("сортировка", "x", "ru"), row("1+1", "x", "none")]


@pytest.mark.parametrize(("keep", "on", "kept"), [
    (["zh"], "user", ["zh"]), (["en"], "user", ["en"]), (["zh", "en"], "user", ["zh", "en"]), (["other", "none"], "user", ["ru", "none"]),
    (["zh"], "answer", ["en"]), (["none"], "answer", ["zh"]), (["zh"], "all", ["zh", "en"]),
])
def test_rows_of_the_languages_named_stay(keep, on, kept):
    made = step(type="language", keep=keep, on=on)
    found = verdicts(made, ROWS)
    assert [one.id for one, verdict in zip(ROWS, found, strict=True) if verdict.keep] == kept
    assert {verdict.reason for verdict in found} <= {"", "other_language"}
    assert sum(made.report().values()) == len(ROWS)


def test_system_messages_are_not_judged_and_untrained_answers_only_with_all():
    messages = (Message("system", "你是助手你是助手你是助手"), Message("user", "hi"), Message("assistant", "好好好", train=False))
    rows = [Conversation("1", "t", messages)]
    assert verdicts(step(type="language", keep=["zh"], on="user"), rows)[0].detail == "en"
    assert verdicts(step(type="language", keep=["zh"], on="answer"), rows)[0].detail == "none"
    assert verdicts(step(type="language", keep=["zh"], on="all"), rows)[0].keep
