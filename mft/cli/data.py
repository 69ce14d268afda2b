"""`mft data`: from sources to masked token ids."""

from pathlib import Path
from typing import Annotated

import typer

from mft.cli.data_build import EngineOption, OverridesArgument, RayAddressOption, ShardRowsOption, WorkersOption, build_outcome
from mft.cli.data_formats import formats
from mft.cli.data_look import diff, show, stats
from mft.cli.data_options import ConverterOption, FormatOption, InputArgument, TokenizerOption, check_converter
from mft.cli.outcome import Outcome, encoded_parts

app = typer.Typer(add_completion=False, help="From sources to clean conversations, and from those to masked, packed token ids.")

@app.command()
def build(
    recipe: Annotated[Path, typer.Argument(help="a recipe's YAML (data_recipes/README.md)")],
    out: Annotated[Path, typer.Option(help="folder to write; a finished build of the same recipe and files is kept")],
    overrides: OverridesArgument = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace what OUT holds")] = False,
    workers: WorkersOption = 1,
    engine: EngineOption = "local",
    ray_address: RayAddressOption = None,
    shard_rows: ShardRowsOption = 50_000,
) -> Outcome:
    """Sources -> clean conversations, split and shuffled, with a ledger of every row. One that was stopped goes on where it was."""
    from mft.runs.build import build_data

    return build_outcome(build_data(recipe, out, overwrite, overrides or (), engine=engine, workers=workers, ray_address=ray_address,
                                    shard_rows=shard_rows))


@app.command()
def encode(
    source: InputArgument,
    format_name: FormatOption,
    tokenizer: TokenizerOption,
    context: Annotated[int, typer.Option(min=16, help="longest sample and packed row, in tokens; longer samples are dropped and counted")],
    out: Annotated[Path | None, typer.Option(help="folder to write: a token store (mft/tokenization/token_store.py)")] = None,
    jsonl: Annotated[Path | None, typer.Option(help="file to write: one unpacked {id, task, text, input_ids, labels} a line")] = None,
    converter: ConverterOption = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace what OUT or JSONL holds")] = False,
) -> Outcome:
    """Conversations -> ids and labels (-100: not trained), counted, and packed into rows."""
    from mft.runs.inputs import encode_input

    check_converter(source, converter)
    facts = encode_input(source, format_name, tokenizer, context, converter, out=out, jsonl=jsonl, overwrite=overwrite)
    return Outcome(facts, encoded_parts(facts))


for verb in (show, stats, diff, formats):
    app.command()(verb)
