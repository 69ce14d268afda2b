"""The one view of a project: every stage with its state, the bar of the one that runs, log lines above it, nothing without a terminal."""

import io
import logging
import re

import pytest
from rich.console import Console

from mft.log import current_view, terminal_bar
from mft.runs import view as view_module
from mft.runs.view import StageView, stage_view, without_view

STAGES = [("data", "data"), ("train", "train"), ("merged", "merge")]


def drawn(view):
    """What the view shows now, as plain text."""
    console = Console(file=io.StringIO(), width=100)
    console.print(view)
    return [re.sub(" +", " ", line.strip()) for line in console.file.getvalue().splitlines()]


def test_every_stage_stands_there_with_its_kind_its_state_and_its_time(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(view_module.time, "monotonic", lambda: now[0])
    view = StageView(STAGES)
    view.begin("data")
    view.end("data", "skipped", 12.0)
    view.begin("train")
    now[0] = 3725.0
    assert drawn(view) == ["data data skipped 0:12", "train train running 1:02:05", "merged merge waiting"]
    view.end("train", "interrupted")
    assert drawn(view)[1] == "train train interrupted 1:02:05"


def test_the_bar_of_the_stage_that_runs_stands_below_and_goes_with_it(monkeypatch):
    monkeypatch.setattr(view_module, "shows_progress", lambda: True)
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setattr("sys.stderr", io.StringIO())
    with stage_view(STAGES) as view:
        assert current_view.get() is view
        view.begin("merged")
        with terminal_bar("merge") as move:
            move(30, 120, "4 MB/s")
            assert re.match(r"merge .* 25% 4 MB/s", drawn(view)[3])
        assert len(drawn(view)) == 3
    assert current_view.get() is None


def test_log_lines_go_through_the_view_while_it_is_open_and_not_while_ranks_own_the_terminal(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr(view_module, "shows_progress", lambda: True)
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setattr(Console, "is_terminal", property(lambda self: True))
    handler = logging.StreamHandler(stream)
    logging.getLogger().addHandler(handler)
    try:
        with stage_view(STAGES) as view:
            view.begin("train")
            assert handler.stream is not stream
            with without_view():
                assert handler.stream is stream
            assert handler.stream is not stream
        assert handler.stream is stream
    finally:
        logging.getLogger().removeHandler(handler)


@pytest.mark.parametrize("of_ranks", [True, False])
def test_without_a_terminal_and_in_a_rank_nothing_is_drawn(monkeypatch, capsys, of_ranks):
    monkeypatch.setattr(view_module, "shows_progress", lambda: of_ranks)
    if of_ranks:
        monkeypatch.setenv("RANK", "0")
    with stage_view(STAGES) as view:
        view.begin("data")
        view.end("data", "done")
        assert current_view.get() is None
    assert capsys.readouterr() == ("", "")
