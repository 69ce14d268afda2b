"""`mft import`: a training config of another tool, turned into a project."""

from pathlib import Path
from typing import Annotated

import typer

from mft.cli.outcome import Outcome

app = typer.Typer(add_completion=False)


@app.command("import")
def import_(
    tool: Annotated[str, typer.Argument(help="mftcoder, llamafactory or axolotl")],
    file: Annotated[Path, typer.Argument(help="its training config, JSON or YAML")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value put over FILE first, as its own command line would",
                                                          metavar="[KEY=VALUE]...")] = None,
    out: Annotated[Path | None, typer.Option(help="the project's YAML; its recipe is written beside it. Default: print both")] = None,
    gpus: Annotated[int | None, typer.Option(min=1, help="how many GPUs the run had: the rows of a step hang on it; default 1")] = None,
    dataset_info: Annotated[Path | None, typer.Option(help="LLaMA-Factory's dataset_info.json; default: in FILE's dataset_dir")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace OUT and its recipe")] = False,
) -> Outcome:
    """Turn a training config of MFTCoder, LLaMA-Factory or axolotl into a project and a recipe; every key of it is accounted for."""
    from mft.runs.importing.importer import import_config, write_imported

    imported = import_config(tool, file, out=out, gpus=gpus, overrides=overrides or (), dataset_info=dataset_info)
    files = [str(path) for path in write_imported(imported, out, overwrite=overwrite)] if out else []
    result = {"config": imported.config, "recipe": imported.recipe, **imported.report, "files": files}
    if not out:
        return Outcome(result, [imported.config_text, f"# ----- {imported.recipe_name}\n{imported.recipe_text.rstrip()}"])
    report = imported.report
    counts = f"{len(report['mapped'])} keys mapped, {len(report['without_counterpart'])} without counterpart, {len(report['ignored'])} " \
             f"mean nothing here; {len(report['assumed'])} values written out that the file leaves open"
    return Outcome(result, [*(f"without counterpart: {fate['key']}: {fate['why']}" for fate in report["without_counterpart"]),
                            *(f"to know: {note}" for note in report["notes"]), counts, *files])
