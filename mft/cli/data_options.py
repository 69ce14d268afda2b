"""Options that several verbs of `mft data` take."""

from pathlib import Path
from typing import Annotated

import typer

from mft.errors import DataError

InputArgument = Annotated[Path, typer.Argument(
    metavar="INPUT", help="a built folder, or a file: JSON lines, JSON array, Parquet, CSV, plain text; also .gz, .zst")]
FormatOption = Annotated[str, typer.Option("--format", help="prompt format (`mft data formats` lists them), or a YAML file of one's own")]
TokenizerOption = Annotated[str, typer.Option(help="folder, hub id, or built-in base such as tiny-code-llama")]
ConverterOption = Annotated[str, typer.Option(
    help="schema of the rows of a file: auto, chat_rounds, messages, sharegpt, alpaca, pairs, text, infill, moss; "
         "or a mapping as in a recipe: '{type: fields, user: \"{{ java }}\", assistant: \"{{ cs }}\"}'")]


def check_converter(source: Path, converter: str) -> None:
    """Refuse a converter that would do nothing.

    Raises:
        DataError: the input is a folder, whose rows are conversations already.
    """
    if converter != "auto" and source.is_dir():
        raise DataError(f"{source}: is a folder, whose rows are conversations already; --converter goes with a file of rows")
