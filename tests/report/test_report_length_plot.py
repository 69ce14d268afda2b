"""The picture of `mft data stats`: drawn from the facts alone, in the formats that it says."""

import pytest

from mft.errors import OutputError
from mft.report.length_plot import _shares, check_plot, plot_statistics

LENGTHS = {"mean": 5.0, "p50": 4, "p90": 9, "p99": 10, "max": 10}


def facts(**more):
    per_task = {"a": {"samples": 3, "tokens": 10, "trained_tokens": 6, "lengths": LENGTHS},
                "$b_1": {"samples": 1, "tokens": 30, "trained_tokens": 2, "lengths": LENGTHS},
                "none": {"samples": 0, "tokens": 0, "trained_tokens": 0, "lengths": LENGTHS}}
    return {"unit": "tokens", "samples": 4, "tokens": 40, "trained_tokens": 8, "per_task": per_task, "mixture": None,
            "histogram": {"edges": [1, 4, 8, 11], "tasks": {"a": [1, 2, 0], "$b_1": [0, 0, 1], "none": [0, 0, 0]}}, **more}


def mixture(kind, unit):
    task = {"requested_share": 0.5, "realised_share": 0.25, f"{unit}_share": 0.125, f"trained_{unit}_share": 0.0625}
    return {"type": kind, "tasks": {"a": task, "$b_1": task}}


@pytest.mark.parametrize(("name", "begin"), [("x.png", b"\x89PNG"), ("x.svg", b"<?xml"), ("x.pdf", b"%PDF")])
def test_a_picture_is_written_in_the_format_of_its_name(tmp_path, name, begin):
    pytest.importorskip("matplotlib")
    plot_statistics(facts(), tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(begin)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_an_empty_set_is_drawn_too(tmp_path):
    pytest.importorskip("matplotlib")
    empty = facts(samples=0, tokens=0, trained_tokens=0, per_task={}, histogram={"edges": [], "tasks": {}})
    plot_statistics(empty, tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 1000


def test_shares_are_of_all_rows_where_no_mixture_is_known():
    found = _shares(facts(), ["a", "$b_1"])
    assert {label: values for label, (_, values) in found.items()} == {
        "rows": [0.75, 0.25], "tokens": [0.25, 0.75], "trained tokens": [0.75, 0.25]}


def test_a_mixture_is_drawn_beside_what_it_asked_for_unless_it_asks_for_all():
    asked = _shares(facts(mixture=mixture("quotas", "token")), ["a", "$b_1"])
    assert {label: values[0] for label, (_, values) in asked.items()} == {
        "rows asked for": 0.5, "rows": 0.25, "tokens": 0.125, "trained tokens": 0.0625}
    assert list(_shares(facts(mixture=mixture("proportional", "character")), ["a"])) == ["rows", "characters", "trained characters"]


def test_what_cannot_be_written_is_refused_before_anything_is_counted(tmp_path):
    pytest.importorskip("matplotlib")
    with pytest.raises(OutputError, match=r"x\.jpg: a picture's name ends in \.png, \.svg, \.pdf"):
        check_plot(tmp_path / "x.jpg", overwrite=False)
    (tmp_path / "x.png").write_text("mine")
    with pytest.raises(OutputError, match="exists; give another --plot, or --overwrite"):
        check_plot(tmp_path / "x.png", overwrite=False)
    check_plot(tmp_path / "x.png", overwrite=True)
