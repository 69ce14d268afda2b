"""`mft data`: from sources to masked token ids."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mft.cli.outcome import Outcome, Table, counts, encoded_parts

app = typer.Typer(add_completion=False, help="From sources to clean conversations, and from those to masked, packed token ids.")

FormatOption = Annotated[str, typer.Option("--format", help="prompt format: codefuse, codefuse_2023, ziya")]
TokenizerOption = Annotated[str, typer.Option(help="folder, hub id, or built-in base such as tiny-code-llama")]
ConverterOption = Annotated[str, typer.Option(help="schema of a JSONL input: auto, chat_rounds, messages, sharegpt")]


@app.command()
def build(
    recipe: Annotated[Path, typer.Argument(help="a recipe's YAML (data_recipes/README.md)")],
    out: Annotated[Path, typer.Option(help="folder to write; a finished build of the same recipe and files is kept")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace what OUT holds")] = False,
) -> Outcome:
    """Sources -> clean conversations, split and shuffled, with a ledger of every row."""
    from mft.data.pipeline import build as build_recipe

    facts = build_recipe(recipe, out, overwrite=overwrite).facts
    rows = [[task, f"{part['train']:,}", f"{part['validation']:,}"] for task, part in facts["per_task"].items()]
    line = f"read {facts['read']:,}, kept {facts['kept']:,}; dropped: {counts(facts['dropped'])}"
    return Outcome(facts, [Table("", ["task", "train", "validation"], rows), line, f"sha256 {facts['sha256']}"])


@app.command()
def encode(
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="a built folder or a JSONL file")],
    format_name: FormatOption,
    tokenizer: TokenizerOption,
    context: Annotated[int, typer.Option(min=16, help="longest sample and packed row, in tokens; longer samples are dropped and counted")],
    out: Annotated[Path | None, typer.Option(help="folder to write (tokens.parquet, manifest.json)")] = None,
    jsonl: Annotated[Path | None, typer.Option(help="file to write: one unpacked {id, task, text, input_ids, labels} a line")] = None,
    converter: ConverterOption = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace what OUT or JSONL holds")] = False,
) -> Outcome:
    """Conversations -> ids and labels (-100: not trained), counted, and packed into rows."""
    from mft.runs.inputs import encode_input

    facts = encode_input(source, format_name, tokenizer, context, converter, out=out, jsonl=jsonl, overwrite=overwrite)
    return Outcome(facts, encoded_parts(facts))


@app.command()
def show(
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="a built folder or a JSONL file")],
    format_name: FormatOption,
    tokenizer: TokenizerOption,
    number: Annotated[int, typer.Option("-n", min=1, help="how many samples")] = 3,
    converter: ConverterOption = "auto",
) -> Outcome:
    """What is trained, in colour: trained text stands out, the rest is context."""
    from mft.runs.inputs import show_input
    from mft.tokenization.show import render_terminal, spans

    samples, loaded, task_names = show_input(source, format_name, tokenizer, number, converter)
    listed: list[dict[str, Any]] = [
        {"id": sample.id, "task": task_names[sample.task_id],
         "spans": [{"text": span.text, "trained": span.trained} for span in spans(sample, loaded)]} for sample in samples]
    parts: list[Any] = []
    for sample, facts in zip(samples, listed, strict=True):
        parts += [f"--- {facts['id']} ({facts['task']}): {len(sample.input_ids)} tokens, {sample.trained_tokens} trained",
                  render_terminal(sample, loaded), ""]
    return Outcome({"samples": listed}, parts)


@app.command()
def stats(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="a folder that `mft data encode --out` wrote")],
) -> Outcome:
    """Lengths, tasks, fill and drops of encoded data."""
    from mft.runs.inputs import stats_of

    facts = stats_of(folder)
    return Outcome(facts, encoded_parts(facts))
