"""`mft data show, stats, diff`: look at data before it is trained on."""

import shutil
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from mft.cli.data_diff import diff_parts
from mft.cli.data_options import ConverterOption, FormatOption, InputArgument, TokenizerOption, check_converter
from mft.cli.data_tables import stats_parts
from mft.cli.outcome import Outcome
from mft.errors import OutputError

WIDTH_WITHOUT_TERMINAL = (100, 24)


def show(
    source: InputArgument,
    format_name: FormatOption,
    tokenizer: TokenizerOption,
    number: Annotated[int, typer.Option("-n", min=1, help="how many samples")] = 3,
    task: Annotated[str | None, typer.Option(help="samples of this task alone")] = None,
    long: Annotated[Literal["wrap", "cut"], typer.Option(help="lines wider than the terminal: go on below, or end with …")] = "wrap",
    converter: ConverterOption = "auto",
) -> Outcome:
    """What is trained, in colour: trained text stands out (and has ▌ before it), control tokens are reversed, the rest is context."""
    from mft.runs.look import show_input
    from mft.tokenization.show import pieces, spans
    from mft.tokenization.terminal import render_terminal

    check_converter(source, converter)
    shown = show_input(source, format_name, tokenizer, number, converter, task)
    width = shutil.get_terminal_size(WIDTH_WITHOUT_TERMINAL).columns
    listed: list[dict[str, Any]] = []
    parts: list[Any] = []
    for sample in shown.samples:
        name = shown.tasks[sample.task_id]
        listed.append({"id": sample.id, "task": name,
                       "spans": [{"text": span.text, "trained": span.trained} for span in spans(sample, shown.tokenizer)]})
        parts += [f"--- {sample.id} ({name}): {len(sample.input_ids)} tokens, {sample.trained_tokens} trained",
                  render_terminal(pieces(sample, shown.tokenizer), width, long), ""]
    return Outcome({"samples": listed}, parts)


def stats(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="a folder of `mft data build` or of `mft data encode --out`")],
    format_name: Annotated[str | None, typer.Option("--format", help="count the tokens of a built folder: in this prompt format")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="and with this tokenizer")] = None,
    context: Annotated[int | None, typer.Option(min=16, help="packed into rows of this length; longer samples are dropped")] = None,
    plot: Annotated[Path | None, typer.Option(help="picture to write: lengths and shares of each task (.png, .svg, .pdf)")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace the picture")] = False,
) -> Outcome:
    """Rows, lengths, drops, and the shares of each task by rows, characters and tokens beside what the mixture asked for."""
    from mft.runs.look import stats_of

    if plot is not None:
        from mft.report.length_plot import check_plot, plot_statistics

        check_plot(plot, overwrite=overwrite)
    elif overwrite:
        raise OutputError("--overwrite replaces the picture of --plot, which is not given")
    facts = stats_of(folder, format_name, tokenizer, context)
    if plot is not None:
        plot_statistics(facts, plot)
    return Outcome(facts, [*stats_parts(facts), *([f"{plot}: written"] if plot else [])])


def diff(
    a: Annotated[Path, typer.Argument(metavar="A", help="a folder of `mft data build`")],
    b: Annotated[Path, typer.Argument(metavar="B", help="another one")],
    examples: Annotated[int, typer.Option(min=0, help="rows of each kind that are shown")] = 3,
) -> Outcome:
    """Rows that were added, removed, changed or moved from A to B, and what the recipes and ledgers say differently."""
    from mft.data.diff import diff_builds

    facts = diff_builds(a, b, examples)
    return Outcome(facts, diff_parts(facts))
