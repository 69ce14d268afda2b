"""Charts place what they show where the numbers say."""

import re

import pytest

from mft.report.axes import Scale, scale, series_class
from mft.report.charts import MAX_BANDS, Change, Line, Part, bars, before_after, histogram, line_chart, stacked_bar


def numbers(text: str) -> list[float]:
    return [float(part) for part in re.findall(r"-?[\d.]+", text)]


@pytest.mark.parametrize(("values", "options", "expected"), [
    ([1.3, 2.9], {}, (1.0, 1.5, 2.0, 2.5, 3.0)),
    ([0.0011, 0.0029], {}, (0.001, 0.0015, 0.002, 0.0025, 0.003)),
    ([3, 1800], {"from_zero": True}, (0, 500, 1000, 1500, 2000)),
    ([1, 120], {"snug": True, "whole": True, "ticks": 6}, (20, 40, 60, 80, 100, 120)),
    ([5, 5], {"whole": True, "snug": True}, (5, 6)),
    ([2.0, 2.0], {}, (1.4, 1.6, 1.8, 2.0, 2.2, 2.4, 2.6)),
])
def test_ticks_are_round_and_cover_the_values(values: list[float], options: dict[str, bool], expected: tuple[float, ...]) -> None:
    assert scale(values, "x", **options).ticks == pytest.approx(expected)


def test_tick_labels_have_the_decimals_that_tell_them_apart() -> None:
    assert [Scale(0, 1, ticks, "").text(ticks[-1]) for ticks in ((1.0, 1.5), (0.001, 0.0015), (0.0, 2000.0), (-0.2, -0.1))] == [
        "1.5", "0.0015", "2,000", "−0.1"]


def test_lines_run_from_the_first_step_at_the_left_to_the_last_at_the_right() -> None:
    chart = line_chart([Line("a", "series-0", smooth=[(10, 3.0), (20, 1.0), (30, 2.0)])], title="t", x_label="step", y_label="loss")
    drawn = re.search(r'points="(.*?)"', chart)
    assert drawn
    # The y range is 1 to 3 and a margin of 3 % above and below: 2.12 high in all, upside down, in thousandths.
    assert numbers(drawn[1]) == [0, 28.3, 500, 971.7, 1000, 500]


def test_a_hover_tells_all_series_at_that_step() -> None:
    lines = [Line("a", "series-0", smooth=[(1, 1.0), (2, 2.0)], titles={1: "1.000", 2: "2.000"}),
             Line("b", "series-1", smooth=[(2, 3.0)], titles={2: "3.000"})]
    chart = line_chart(lines, title="t", x_label="step", y_label="loss")
    assert re.findall(r"<title>(.*?)</title>", chart, re.DOTALL) == ["step 1\na: 1.000", "step 2\na: 2.000\nb: 3.000"]


def test_hover_strips_tile_the_plot_and_stay_few() -> None:
    titles = {float(step): "x" for step in range(1, 1001)}
    line = Line("a", "series-0", smooth=[(step, step) for step in titles], titles=titles)
    chart = line_chart([line], title="t", x_label="s", y_label="y")
    found = re.findall(r'<rect x="([\d.]+)%" y="0" width="([\d.]+)%" height="100%" class="band"', chart)
    strips = [(float(x), float(width)) for x, width in found]
    assert len(strips) == MAX_BANDS
    assert strips[0][0] == 0
    assert sum(width for _, width in strips) == pytest.approx(100, abs=0.2)


def test_a_chart_of_one_point_is_drawn() -> None:
    assert 'points="0.0,500.0"' in line_chart([Line("a", "series-0", smooth=[(7, 2.0)])], title="t", x_label="s", y_label="y")


def test_histogram_bars_are_as_high_as_their_counts() -> None:
    chart = histogram([0, 64, 128, 192], [10, 0, 5], title="t", x_label="tokens", y_label="samples")
    rects = re.findall(r'<rect x="\S+" width="\S+" y="([\d.]+)%" height="([\d.]+)%" class="bar"><title>(.*?)</title>', chart)
    assert [(float(top), float(height), title) for top, height, title in rects] == [
        (0, 100, "0 to 64 tokens: 10 samples"), (100, 0, "64 to 128 tokens: 0 samples"), (50, 50, "128 to 192 tokens: 5 samples")]
    assert re.findall(r'x="([\d.]+)%" y="100%" dy="20" class="tick middle">(.*?)<', chart) == [
        ("0", "0"), ("33.333", "64"), ("66.667", "128"), ("100", "192")]


@pytest.mark.parametrize("bins", [1, 7, 12, 13, 20, 100])
def test_histogram_labels_stay_few_and_name_both_ends(bins: int) -> None:
    chart = histogram(list(range(bins + 1)), [1] * bins, title="t", x_label="tokens", y_label="samples")
    labels = re.findall(r'dy="20" class="tick middle">(.*?)<', chart)
    assert (labels[0], labels[-1]) == ("0", str(bins))
    assert len(labels) <= 8
    assert len(set(labels)) == len(labels)


def test_bars_are_sorted_and_scaled_to_the_longest() -> None:
    chart = bars({"few": 1, "many": 4, "some": 2}, unit="rows")
    assert re.findall(r"<title>(.*?)</title>", chart) == ["many: 4 rows", "some: 2 rows", "few: 1 rows"]
    assert re.findall(r'width="([\d.]+)%" class="bar"', chart) == ["100", "50", "25"]


def test_parts_of_a_stacked_bar_fill_it() -> None:
    chart = stacked_bar([Part("a", 1, "x"), Part("b", 2, "y"), Part("c", 1, "z")], title="t", unit="tokens")
    assert re.findall(r'<rect x="([\d.]+)%" y="0" width="([\d.]+)%"', chart) == [("0", "25"), ("25", "50"), ("75", "25")]


def test_before_and_after_stand_at_their_values() -> None:
    rows = {"a": Change(2.0, 1.0, "fall"), "a very long name of a task": Change(1.0, 1.5, "rise")}
    chart = before_after(rows, title="t", x_label="loss", before="base", after="merged")
    assert re.findall(r'<circle cx="([\d.]+)%" cy="([\d.]+)%" r="\d" class="(.*?)"', chart) == [
        ("100", "25", "dot before"), ("0", "25", "dot fall"), ("0", "75", "dot before"), ("50", "75", "dot rise")]
    assert ">a very lo… of a task<" in chart
    assert "<title>a very long name of a task: base 1.000, merged 1.500</title>" in chart


def test_series_past_the_eighth_are_told_apart_by_dashes() -> None:
    assert [series_class(index) for index in (0, 7, 8, 15)] == ["series-0", "series-7", "series-0 dashed", "series-7 dashed"]
