"""Numbers as a person reads them."""

import math

import pytest

from mft.report import units
from mft.report.markup import Column, Html, escape, table, tag


@pytest.mark.parametrize(("value", "text"), [
    (None, "–"), (0, "0"), (1.23456, "1.235"), (-1.23456, "−1.235"), (123456.7, "123,457"), (0.0312345, "0.03123"),
    (1.23456e-5, "1.235e−5"), (1.23456e9, "1.235e9"), (9.9996, "10.00"),
    (0.00099996, "0.001000"), (math.nan, "not a number"), (-math.inf, "−infinite")])
def test_decimals_have_four_significant_digits(value: float | None, text: str) -> None:
    assert units.decimal(value) == text


@pytest.mark.parametrize(("mean", "error", "text"), [
    (-0.31234, 0.0201, "−0.312 ± 0.020"), (0.31234, 0.0201, "+0.312 ± 0.020"), (-0.41351, 0.00623, "−0.4135 ± 0.0062"),
    (12.3, 4.56, "+12.3 ± 4.6"), (1234.5, 123.0, "+1,234 ± 123"), (-0.5, None, "−0.5000"), (0.0, 0.1, "0.00 ± 0.10"),
    (-0.0001, 0.2, "−0.00 ± 0.20"), (-0.2, 0.0, "−0.2000")])
def test_a_difference_has_the_digits_that_its_error_allows(mean: float, error: float | None, text: str) -> None:
    assert units.difference(mean, error) == text


@pytest.mark.parametrize(("share", "text"), [
    (0.99996, "99.99"), (0.29, "29.00"), (1.0, "100"), (0.0, "0.00"), (0.9999999999, "99.99")])
def test_a_share_is_rounded_down_so_that_only_full_reads_full(share: float, text: str) -> None:
    assert units.percent(share) == f"{text}\u00a0%"


@pytest.mark.parametrize(("seconds", "text"), [
    (0.042, "42 ms"), (12.34, "12.3 s"), (59.97, "1 min 00 s"), (95, "1 min 35 s"), (3599.7, "1 h 00 min"),
    (7500, "2 h 05 min"), (None, "–")])
def test_durations_roll_over_into_the_next_unit(seconds: float | None, text: str) -> None:
    assert units.duration(seconds) == text


def test_amounts_take_their_unit_from_the_name() -> None:
    assert units.amount("peak_rss_bytes", 1_234_567_890) == "1.23 GB"
    assert units.amount("hash_seconds", 0.5) == "500 ms"
    assert units.amount("rows", 1200) == "1,200"
    assert units.size(999) == "999 B"
    assert units.size(412_345_678) == "412 MB"


def test_only_html_passes_unescaped() -> None:
    assert tag("p", "<b>", Html("<i></i>"), None, 3, title='"&') == '<p title="&quot;&amp;">&lt;b&gt;<i></i>3</p>'


def test_characters_that_a_page_cannot_hold_become_visible() -> None:
    assert escape("a\x00\x1b\x7f\ud800b\r\n\tc") == "a␀␛␡\ufffdb&#13;\n\tc"
    assert escape("\ud83d").encode("utf-8")


def test_numeric_columns_are_aligned_right_and_rows_must_fit() -> None:
    columns = [Column("task", numeric=False), Column("rows")]
    assert '<th scope="row">a</th><td class="number">3</td>' in table(columns, [["a", "3"]])
    with pytest.raises(ValueError, match="zip"):
        table(columns, [["a"]])
