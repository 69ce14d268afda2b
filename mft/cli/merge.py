"""`mft merge`: adapter + base -> merged model."""

from pathlib import Path
from typing import Annotated

import typer

from mft.cli.outcome import Outcome

app = typer.Typer(add_completion=False)


@app.command()
def merge(
    base: Annotated[str, typer.Option(help="folder, hub id or built-in name of the base model")],
    adapter: Annotated[list[Path], typer.Option(help="adapter folder in PEFT's layout; again for each further one")],
    out: Annotated[Path, typer.Option(help="folder of the merged model")],
    weight: Annotated[list[float] | None, typer.Option(help="what an adapter's update is multiplied by, one for each --adapter")] = None,
    onto: Annotated[str, typer.Option(help="original: the base's own weights; quantised: as 4-bit training saw them")] = "original",
    dtype: Annotated[str, typer.Option(help="bf16, fp16 or fp32")] = "bf16",
    shard_size: Annotated[str, typer.Option(help="largest weights file, such as 5GB")] = "5GB",
    verify: Annotated[str, typer.Option(help="layers: every touched layer, in bounded memory; logits: the whole model; none")] = "layers",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace what OUT holds")] = False,
) -> Outcome:
    """Add adapters to their base, tensor block by tensor block, and check the result against the unmerged. A killed merge goes on."""
    from functools import partial

    from mft.config.load import validate
    from mft.config.yaml import Document
    from mft.errors import ModelError
    from mft.merging.config import MergeOptions
    from mft.merging.merge import merge as merge_folders
    from mft.modeling.added_tokens import base_of_adapter
    from mft.modeling.base import resolve_base
    from mft.release.card import finish_folder
    from mft.runs.progress import progress_bar

    given = {"onto": onto, "dtype": dtype, "shard_size": shard_size, "verify": verify}
    options = validate(MergeOptions, Document("mft merge", given))
    folders = {base_of_adapter(resolve_base(base), folder) for folder in adapter}
    if len(folders) > 1:
        raise ModelError("the adapters were trained on bases with different added tokens, so they cannot be merged together")
    with progress_bar("merge") as report:
        result = merge_folders(folders.pop(), adapter, out, options, weights=weight, overwrite=overwrite, progress=report,
                               finish=partial(finish_folder, name=out.resolve().name)).to_json()
    return Outcome(result, [merge_line(result), *trained_line(result), str(out)])


def merge_line(result: dict) -> str:
    """One line about a merge."""
    checked = f"checked by {result['verify']}: largest difference {result['max_abs_diff']:.3g}, tolerance {result['tolerance']:.3g}" \
        if result["verify"] != "none" else "not checked"
    return f"{result['merged']} of {result['tensors']} tensors merged in {result['seconds']:.1f} s; {checked}"


def trained_line(result: dict) -> list[str]:
    """One line about the distance from the 4-bit model that was trained, where there is one."""
    found = result["from_trained"]
    if not found:
        return []
    update = f", {found['to_update']:.3g} of the update" if found["to_update"] is not None else ""
    said = f"; KL {found['kl']:.3g} nats, same first choice {found['top1_agreement']:.1%}" if found["kl"] is not None else ""
    return [f"from the model that was trained ({found['quantization']}): weights differ by {found['relative']:.3g} of their length"
            f"{update}{said}"]
