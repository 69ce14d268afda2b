"""`mft release`: what users download."""

from pathlib import Path
from typing import Annotated

import typer

from mft.cli.outcome import Outcome

app = typer.Typer(add_completion=False)


@app.command()
def release(
    source: Annotated[Path, typer.Argument(help="the output folder of a run, or a model or adapter folder")],
    out: Annotated[Path, typer.Option(help="folder of the release")],
    stage: Annotated[str | None, typer.Option(help="stage of the run, or STAGE/JOB of a quantise matrix; default: the last merge, else the "
                                                   "last adapter")] = None,
    name: Annotated[str | None, typer.Option(help="how the card calls the model; default: the name of OUT")] = None,
    licence: Annotated[str | None, typer.Option("--license", help="licence id for the card, such as llama2; default: what the base's own "
                                                                  "card states, else unknown")] = None,
    format_name: Annotated[str | None, typer.Option("--format", help="prompt format; default: what the model was trained with")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace what OUT holds")] = False,
) -> Outcome:
    """Weights, config, tokenizer, chat template, model card and hashes in one folder; whole or not at all."""
    from mft.release.make import release as make_release

    made = make_release(source, out, stage=stage, name=name, licence=licence, format_name=format_name, overwrite=overwrite)
    size = sum(file["bytes"] for file in made["files"])
    return Outcome(made, [f"{made['name']}: {len(made['files'])} files, {size:,} bytes, format {_label(made['format'])}", str(out)])


def _label(reference: str | dict) -> str:
    return reference if isinstance(reference, str) else str(reference.get("name") or reference.get("extends"))
