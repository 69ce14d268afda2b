"""`mft config`: look at a project's config."""

from pathlib import Path
from typing import Annotated

import typer

from mft.cli.outcome import Outcome

app = typer.Typer(add_completion=False, help="Look at a project's config: the resolved values, or the JSON Schema for an editor.")


@app.command()
def show(
    config: Annotated[Path, typer.Argument(help="a project's YAML")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key.sub=value, as often as needed", metavar="[KEY=VALUE]...")] = None,
) -> Outcome:
    """Check CONFIG and print it with every default filled in."""
    import yaml

    from mft.runs.config import load_project

    resolved = load_project(config, overrides).model_dump(mode="json")
    resolved["stages"] = [{"kind": stage.pop("kind"), "name": stage.pop("name"), **stage} for stage in resolved["stages"]]
    return Outcome(resolved, [yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True).rstrip()])


@app.command()
def schema() -> Outcome:
    """Print the JSON Schema of a project's YAML."""
    import json

    from mft.runs.config import ProjectConfig

    described = ProjectConfig.model_json_schema()
    return Outcome(described, [json.dumps(described, indent=2)])
