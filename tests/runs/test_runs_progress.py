"""Where stderr is no terminal, long work says now and then in the log how far it is."""

import logging

import pytest

from mft.runs import progress


def test_lines_come_every_half_minute_and_tell_what_is_left(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    now = iter([10.0, 20.0, 50.0, 60.0, 90.0])
    monkeypatch.setattr(progress, "shows_progress", lambda: False)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    with caplog.at_level(logging.INFO), progress.progress_bar("merge") as report:
        for done in (100, 200, 500, 600, 900):     # 100 bytes of them were there before: 10 a second
            report(done, 1000)
    assert [record.getMessage() for record in caplog.records] == ["merge: 50%, about 50 s left", "merge: 90%, about 10 s left"]
