"""`mft init`: a project to begin with."""

from pathlib import Path
from typing import Annotated

import typer

from mft.cli.outcome import Outcome, Table

app = typer.Typer(add_completion=False)


@app.command()
def init(
    folder: Annotated[Path | None, typer.Argument(help="folder to make; its name is the project's", metavar="DIR")] = None,
    template: Annotated[str | None, typer.Option(help="which project; --list names them")] = None,
    source: Annotated[Path | None, typer.Option(help="template domain: the code base; without it the package rich stands in")] = None,
    list_them: Annotated[bool, typer.Option("--list", help="the templates, and nothing is written")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="write into a DIR that is not empty; its other files stay")] = False,
) -> Outcome:
    """Write a commented project that runs as it stands on the built-in base, and says what to change for a real run."""
    from mft.errors import ConfigError
    from mft.runs.templates import find_template, templates, write_template

    if list_them:
        known = templates()
        return Outcome({"templates": [{"name": each.name, "summary": each.summary, "takes_source": each.takes_source} for each in known]},
                       [Table("", ["template", "what"], [[each.name, each.summary] for each in known])])
    chosen = find_template(template)
    if folder is None:
        raise ConfigError(["give a folder: mft init DIR --template NAME"])
    result = write_template(chosen, folder, source, overwrite=overwrite)
    lines = [f"{result['folder']}: {', '.join(result['files'])}"]
    if chosen.takes_source:
        stand_in = "" if source else " (a stand-in; give yours with --source, or in project.yaml)"
        lines.append(f"code base: {result['source']}{stand_in}")
    return Outcome(result, [*lines, f"next: mft run {result['project']}"])
