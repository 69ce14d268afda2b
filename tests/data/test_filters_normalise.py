"""`normalise`: the named rewrites and nothing else; spans and inputs stay on their characters."""

import pytest
from filter_rows import row, step, verdicts
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mft.conversation import Conversation, Message
from mft.data.filters.rewrites import REWRITES, CrossesSpan, rewritten


def normalised(text, *names, **keys):
    """The answer after the rewrites, or None where the row is dropped."""
    verdict = verdicts(step(type="normalise", apply=list(names), **keys), [row("question", text)])[0]
    return (verdict.changed or row("question", text)).messages[1].content if verdict.keep else None


@pytest.mark.parametrize(("name", "before", "after"), [
    ("newlines", "a\r\nb\rc\n\r\nd", "a\nb\nc\n\nd"),
    ("nul", "a\0b", "ab"),
    ("nbsp", "\u00a0x\u202f=\u3000\u2009y", " x =\u3000\u2009y"),
    ("zero_width", "\ufeffa\u200bb\u2060c\u200cd\u200de", "abc\u200cd\u200de"),
    ("bidi", "a\u202eb\u2066c\u2069\u202c\u200f", "abc\u200f"),
    ("nfc", "e\u0301\u2126\ufb01", "\u00e9\u03a9\ufb01"),
    ("full_width", "，。！？：【】（）％＃＠＆１２３４５６７８９０；“”、ＡＢ", ",.!?:[]()%#@&1234567890；“”、ＡＢ"),
    ("trailing_space", "  a \t\n\n \r\n  b  ", "  a\n\n\r\n  b"),
])
def test_each_rewrite_does_what_its_line_says(name, before, after):
    assert normalised(before, name) == after


def test_nothing_is_changed_that_is_not_named():
    text = " \ufeff\u00a0a\r\n，\u200b \n"
    assert normalised(text, "nul") == text
    assert normalised(text, "newlines") == " \ufeff\u00a0a\n，\u200b \n"


def test_rewrites_happen_in_the_order_of_the_recipe():
    assert normalised("a \u00a0\nb", "nbsp", "trailing_space") == "a\nb"
    assert normalised("a \u00a0\nb", "trailing_space", "nbsp") == "a  \nb"


def test_roles_and_fences_can_be_left_alone():
    text = "，\n```py\nprint('，')\n```\n，"
    assert normalised(text, "full_width") == ",\n```py\nprint(',')\n```\n,"
    assert normalised(text, "full_width", fenced_code=False) == ",\n```py\nprint('，')\n```\n,"
    assert normalised(text, "full_width", roles=["user", "system"]) == text
    both = verdicts(step(type="normalise", apply=["full_width"], roles=["user"]), [row("，", "，")])[0].changed
    assert [message.content for message in both.messages] == [",", "，"]


def test_spans_and_inputs_stay_on_their_characters():
    answer = Message("assistant", "a\r\nSKIP\r\nb\ufeff", untrained=((3, 7),))
    user = Message("user", "do\r\nINPUT", input_start=4)
    made = step(type="normalise", apply=["newlines", "zero_width"])
    changed = verdicts(made, [Conversation("1", "t", (user, answer))])[0].changed
    assert changed.messages == (Message("user", "do\nINPUT", input_start=3), Message("assistant", "a\nSKIP\nb", untrained=((2, 6),)))
    assert made.report() == {"newlines": 2, "zero_width": 1}


def test_a_span_of_which_nothing_is_left_is_left_out():
    message = Message("assistant", "a\u200bb", untrained=((1, 2),))
    assert rewritten(message, REWRITES["zero_width"]) == Message("assistant", "ab")


@pytest.mark.parametrize(("name", "content", "edge"), [("newlines", "a\r\nb", 2), ("nfc", "ae\u0301", 2), ("trailing_space", "a  b", 2)])
def test_a_rewrite_across_the_edge_of_a_span_drops_the_row(name, content, edge):
    messages = (Message("user", "q"), Message("assistant", content, untrained=((0, edge),)))
    verdict = verdicts(step(type="normalise", apply=[name]), [Conversation("1", "t", messages)])[0]
    crosses = name != "trailing_space"                    # two spaces inside a line are not changed at all
    assert (verdict.keep, verdict.reason) == (not crosses, "rewrite_crosses_span" if crosses else "")


def test_a_message_of_which_nothing_is_left_drops_the_row():
    assert normalised("\u200b\ufeff", "zero_width") is None
    assert verdicts(step(type="normalise", apply=["nul"]), [row("\0", "a")])[0].reason == "empty_message"


def test_changed_rows_are_noted_and_others_are_not():
    found = verdicts(step(type="normalise", apply=["newlines"]), [row("a\r", "b"), row("a", "b")])
    assert [(verdict.note, verdict.changed is None) for verdict in found] == [("normalised", False), ("", True)]


@pytest.mark.parametrize("keys", [{"apply": []}, {}, {"apply": ["newlines", "newlines"]}, {"apply": ["strip"]}])
def test_a_list_without_rewrites_or_with_one_twice_or_unknown_is_refused(keys):
    with pytest.raises(ValidationError):
        step(type="normalise", **keys)


@given(st.text("a \t\r\n\u00a0\u200be\u0301，", max_size=12), st.sampled_from(sorted(REWRITES)), st.data())
def test_the_text_inside_and_outside_a_span_is_the_rewritten_text(content, name, data):
    start = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(start, len(content)))
    message = Message("assistant", content, untrained=((start, end),) if start < end else (), input_start=start)
    try:
        after = rewritten(message, REWRITES[name])
    except CrossesSpan:
        return
    assert after.content == REWRITES[name](content)
    assert after.content[:after.input_start] == REWRITES[name](content[:start]) or after == message
    inside = "".join(after.content[first:last] for first, last in after.untrained)
    assert inside == REWRITES[name](content[start:end]) or after == message


def test_rewriting_twice_changes_nothing_more():
    for name, rewrite in REWRITES.items():
        once = rewrite("\r\r\n a \u00a0\0\u200b，e\u0301\u202e \n")
        assert rewrite(once) == once, name


def test_a_long_run_of_spaces_takes_no_time():
    assert normalised("a" + " " * 200_000 + "b \n" * 10_000, "trailing_space") == "a" + " " * 200_000 + "b\n" * 10_000
