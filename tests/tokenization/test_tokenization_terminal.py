"""A sample on the terminal: nothing hides, nothing is too wide, nothing is lost when lines are wrapped."""

import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mft.tokenization.show import Piece
from mft.tokenization.terminal import render_terminal

CONTEXT, TRAINED = "dim", "bold green"


def context(text):
    return Piece(text, False, False)


def trained(text):
    return Piece(text, True, False)


def end(text="</s>", train=True):
    return Piece(text, train, True)


def rows(*pieces, width=40, long="wrap"):
    return render_terminal(pieces, width, long).plain.split("\n")


def styles(*pieces, width=60):
    text = render_terminal(pieces, width)
    return [(text.plain[span.start:span.end], str(span.style)) for span in text.spans]


def test_rows_with_trained_text_are_marked_and_their_line_feeds_are_seen():
    assert rows(context("ask\n"), trained("a = 1\nb"), end()) == ["   ask", "▌  a = 1⏎", "▌  b</s>"]


def test_a_trained_line_feed_after_context_is_marked_too():
    assert rows(context("bot:"), trained("\nx")) == ["▌  bot:⏎", "▌  x"]


def test_trained_text_has_its_colour_and_control_tokens_are_told_from_text_that_looks_like_them():
    assert styles(context("q</s>"), trained("a</s>"), end()) == [
        ("▌", TRAINED), ("q</s>", CONTEXT), ("a</s>", TRAINED), ("</s>", f"{TRAINED} reverse")]
    assert styles(end("<s>", False), trained("b\n")) == [
        ("▌", TRAINED), ("<s>", f"{CONTEXT} reverse"), ("b", TRAINED), ("⏎", "yellow")]


def test_markup_in_a_message_stays_text():
    assert rows(context("[bold]x[/bold]")) == ["   [bold]x[/bold]"]


@pytest.mark.parametrize(("text", "shown"), [
    ("a  ", "a··"), ("   ", "···"), ("a \t ", "a·→   ·"), ("a b", "a b"), ("a ·", "a ·"), ("x\ty", "x→   y"), ("x\r", "x␍"),
    ("x \r", "x·␍"), ("\x00\x1b[31m", "␀␛[31m"), ("a\u200bb\ufeff", "a<U+200B>b<U+FEFF>"),
    ("\u202eabc", "<U+202E>abc"), ("\u2028", "<U+2028>"),
    ("a\u00a0b", "a⍽b"), ("\x7f", "␡"), ("\ud800", "<U+D800>"), ("\u0085", "<U+0085>"),
])
def test_what_cannot_be_seen_is_shown(text, shown):
    assert rows(context(text)) == [f"   {shown}"]


def test_white_space_at_the_end_of_a_message_is_shown_before_its_control_token_and_before_a_trained_line_feed():
    assert rows(trained("x  "), end()) == ["▌  x··</s>"]
    assert rows(trained("x  \ny"), end()) == ["▌  x··⏎", "▌  y</s>"]
    assert rows(context("a  b "), end("<s>", False), trained("  c")) == ["▌  a  b·<s>  c"]


def test_wide_characters_take_two_cells_and_lines_are_wrapped_with_a_mark():
    assert rows(trained("汉字" * 6), width=20) == ["▌  汉字汉字汉字汉字", "▌↪ 汉字汉字"]
    assert rows(context("a" + "汉字" * 5), width=20) == ["   a汉字汉字汉字汉字", " ↪ 汉字"]


def test_accents_stay_on_their_letter():
    accented = "e\u0301" * 17
    assert rows(context(accented + "f"), width=20) == [f"   {accented}", " ↪ f"]


def test_a_line_that_is_cut_says_how_much_is_missing():
    (row,) = rows(context("x" * 100), width=40, long="cut")
    assert row == "   " + "x" * 31 + "… +69"
    assert len(row) == 39
    assert rows(context("x" * 37), width=40, long="cut") == ["   " + "x" * 37]


def test_a_cut_line_that_hides_trained_text_is_still_marked():
    (row,) = rows(context("x" * 100), trained("answer"), width=40, long="cut")
    assert row.startswith("▌")
    assert row.endswith("… +75")


def cells(text):
    """Width by the Unicode table alone: wide and full-width take two cells, marks none."""
    return sum(0 if unicodedata.category(character) in ("Mn", "Me") else 2 if unicodedata.east_asian_width(character) in "WF" else 1
               for character in text)


ALPHABET = st.sampled_from("ab \n\t汉字，。é" + "e\u0301" + "０한ｱ<|\x00")


@settings(max_examples=150, deadline=None)
@given(texts=st.lists(st.tuples(st.text(ALPHABET, max_size=80), st.booleans(), st.booleans()), max_size=6), width=st.integers(20, 60))
def test_no_row_is_wider_than_the_terminal_and_wrapping_loses_nothing(texts, width):
    pieces = [Piece(text, is_trained, control and "\n" not in text) for text, is_trained, control in texts]
    wrapped = rows(*pieces, width=width)
    assert max(map(cells, wrapped)) <= width
    assert max(map(cells, rows(*pieces, width=width, long="cut"))) <= width
    whole = rows(*pieces, width=10_000)
    joined = re.sub(r"\n[▌ ]↪ ", "", "\n".join(wrapped))
    assert [row[3:] for row in joined.split("\n")] == [row[3:] for row in whole]
    shown = "\n".join(row[3:] for row in whole)
    for mark, meaning in (("⏎", ""), ("→   ", "\t"), ("·", " "), ("␀", "\x00")):
        shown = shown.replace(mark, meaning)
    assert shown == "".join(text for text, _, _ in texts)
