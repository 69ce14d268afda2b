"""`mft push`: upload a release."""

from pathlib import Path
from typing import Annotated

import typer

from mft.cli.outcome import Outcome

app = typer.Typer(add_completion=False)


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(help="a folder that `mft release` wrote")],
    to: Annotated[str, typer.Option(help="repository on the hub: owner/name")],
    revision: Annotated[str, typer.Option(help="branch; made if it is not there")] = "main",
    private: Annotated[bool, typer.Option("--private", help="a new repository is private")] = False,
    really: Annotated[bool, typer.Option("--really", help="upload; without it nothing leaves this machine")] = False,
) -> Outcome:
    """Check a release against its hashes and list what would be uploaded; with --really, upload it (token: HF_TOKEN or hub login)."""
    from mft.release.push import push as push_folder

    upload = push_folder(folder, to, revision=revision, private=private, really=really)
    facts = upload.to_json()
    lines = [f"  {size:>15,}  {path}" for path, size in upload.files.items()]
    last = f"uploaded: {upload.url}" if really else "dry run: nothing was uploaded; --really uploads"
    return Outcome(facts, [f"{len(lines)} files, {facts['bytes']:,} bytes, to {to} ({revision})", *lines, last])
