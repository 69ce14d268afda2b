"""`mft merge`: adapter + base -> merged model."""

from pathlib import Path
from typing import Annotated

import typer

from mft.cli.outcome import Outcome

app = typer.Typer(add_completion=False)


@app.command()
def merge(
    base: Annotated[str, typer.Option(help="folder, hub id or built-in name of the base model")],
    adapter: Annotated[Path, typer.Option(help="adapter folder in PEFT's layout")],
    out: Annotated[Path, typer.Option(help="folder of the merged model")],
    onto: Annotated[str, typer.Option(help="original: the base's own weights")] = "original",
    dtype: Annotated[str, typer.Option(help="bf16, fp16 or fp32")] = "bf16",
    shard_size: Annotated[str, typer.Option(help="largest weights file, such as 5GB")] = "5GB",
    verify: Annotated[str, typer.Option(help="layers: every touched layer, in bounded memory; logits: the whole model; none")] = "layers",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace what OUT holds")] = False,
) -> Outcome:
    """Add an adapter to its base, tensor block by tensor block, and check the result against the two unmerged."""
    from functools import partial

    from mft.config.load import validate
    from mft.config.yaml import Document
    from mft.merging.config import MergeOptions
    from mft.merging.merge import merge as merge_folders
    from mft.modeling.added_tokens import base_of_adapter
    from mft.modeling.base import resolve_base
    from mft.release.card import finish_folder
    from mft.runs.progress import progress_bar

    given = {"onto": onto, "dtype": dtype, "shard_size": shard_size, "verify": verify}
    options = validate(MergeOptions, Document("mft merge", given))
    folder = base_of_adapter(resolve_base(base), adapter)
    with progress_bar("merge") as report:
        result = merge_folders(folder, adapter, out, options, overwrite=overwrite, progress=report,
                               finish=partial(finish_folder, name=out.resolve().name)).to_json()
    return Outcome(result, [merge_line(result), str(out)])


def merge_line(result: dict) -> str:
    """One line about a merge."""
    checked = f"checked by {result['verify']}: largest difference {result['max_abs_diff']:.3g}, tolerance {result['tolerance']:.3g}" \
        if result["verify"] != "none" else "not checked"
    return f"{result['merged']} of {result['tensors']} tensors merged in {result['seconds']:.1f} s; {checked}"
