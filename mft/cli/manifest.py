"""`mft manifest`: the hashes of a folder's files, written and checked."""

from pathlib import Path
from typing import Annotated

import typer

from mft.cli.outcome import Outcome

app = typer.Typer(add_completion=False, help="The hashes of a folder's files.")


@app.command()
def write(
    folder: Annotated[Path, typer.Argument(help="a model folder")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="also when files are not as an older manifest lists them")] = False,
) -> Outcome:
    """Write manifest.json, SHA256SUMS (for sha256sum -c) and MD5SUMS of every file."""
    from mft.release.check import write_hashes

    files = write_hashes(folder, overwrite=overwrite)["files"]
    size = sum(facts["bytes"] for facts in files.values())
    return Outcome({"ok": True, "folder": str(folder), "files": [{"path": name, **facts} for name, facts in files.items()]},
                   [f"{len(files)} files, {size:,} bytes: manifest.json, SHA256SUMS, MD5SUMS in {folder}"])


@app.command()
def check(
    folder: Annotated[Path, typer.Argument(help="a folder with manifest.json or SHA256SUMS")],
    against: Annotated[Path | None, typer.Option(help="compare with the md5 or sha256 table of this published card instead")] = None,
) -> Outcome:
    """Compare every file with its hash; exit 3 and the names of those that are damaged, missing or not listed."""
    from mft.release.check import check_folder

    found = check_folder(folder, against)
    found.require()
    unlisted = [file.path for file in found.files if file.status == "unlisted"]
    beside = [f"not listed there: {', '.join(unlisted)}"] if unlisted else []
    good = sum(file.status == "ok" for file in found.files)
    return Outcome(found.to_json(), [f"{good} files are as {', '.join(found.sources)} list them", *beside])
