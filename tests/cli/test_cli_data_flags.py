"""A flag of `mft data` that would do nothing is refused: one message, exit code 2."""

import pytest
from typer.testing import CliRunner

from mft.cli.data import app
from mft.errors import DataError, OutputError


@pytest.mark.parametrize("verb", [["show"], ["encode", "--context", "64", "--jsonl", "out.jsonl"]])
def test_a_converter_beside_a_folder_is_refused(tmp_path, monkeypatch, verb):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "built").mkdir()
    arguments = [verb[0], "built", "--format", "codefuse", "--tokenizer", "tiny-code-llama", "--converter", "alpaca", *verb[1:]]
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, DataError)
    assert str(result.exception) == ("built: is a folder, whose rows are conversations already; --converter goes with a file of rows")
    assert not (tmp_path / "out.jsonl").exists()


def test_overwrite_without_a_picture_is_refused(tmp_path):
    result = CliRunner().invoke(app, ["stats", str(tmp_path), "--overwrite"])
    assert isinstance(result.exception, OutputError)
    assert str(result.exception) == "--overwrite replaces the picture of --plot, which is not given"
