"""What `mft data build` takes beside the recipe: where it runs, and how it shows that it does."""

from typing import Annotated, Any, Literal

import typer

from mft.cli.data_tables import mixture_parts, shortfall_lines
from mft.cli.outcome import Outcome, Table, counts

OverridesArgument = Annotated[list[str] | None, typer.Argument(
    help="key.sub=value, put over the recipe: split.validation=0.2, or a path by its name, parameters.tree=/src (relative to the recipe)",
    metavar="[KEY=VALUE]...")]
WorkersOption = Annotated[int, typer.Option(min=1, help="processes; the rows are the same for any number")]
EngineOption = Annotated[Literal["local", "ray"], typer.Option(help="local: this machine; ray: a Ray cluster (pip install 'mft[scale]')")]
RayAddressOption = Annotated[str | None, typer.Option(help="of a running Ray cluster, or auto; without it one is started here")]
ShardRowsOption = Annotated[int, typer.Option(min=1, help="rows of a Parquet file that is written")]


def build_outcome(facts: dict[str, Any]) -> Outcome:
    """The facts of a build as a person reads them."""
    rows = [[task, f"{part['train']:,}", f"{part['validation']:,}"] for task, part in facts["per_task"].items()]
    line = f"read {facts['read']:,}, kept {facts['kept']:,}; dropped: {counts(facts['dropped'])}"
    mixture = mixture_parts(facts["mixture"]) if facts["mixture"]["type"] != "proportional" else shortfall_lines(facts["mixture"])
    return Outcome(facts, [Table("", ["task", "train", "validation"], rows), line, *mixture, f"sha256 {facts['sha256']}"])
