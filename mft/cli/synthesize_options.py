"""What the verbs of `mft synthesize` share: their options, and how a funnel is shown."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mft.cli.outcome import Outcome, Table, counts

if TYPE_CHECKING:
    from mft.synthesis.config import SynthesizeOptions

SeedsOption = Annotated[Path, typer.Option(help="a file of rows, a folder of `mft data build`, or of `mft synthesize`")]
OutOption = Annotated[Path, typer.Option(help="folder to write; answers are kept beside it, in OUT.answers, and paid for once")]
UrlOption = Annotated[list[str], typer.Option(help="of an OpenAI-compatible server, up to and with /v1; several share the work")]
ModelOption = Annotated[str, typer.Option(help="the model's name, as the server knows it")]
KeyVariableOption = Annotated[str, typer.Option(help="environment variable that holds the key; unset: none is sent")]
TaskOption = Annotated[str | None, typer.Option(help="training task of all rows; default: the seeds' own")]
CutOption = Annotated[int, typer.Option(min=1, help="longest answer, in tokens")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="replace what OUT holds; answers are kept all the same")]


def synthesized(seeds: Path, out: Path, options: "dict[str, Any] | SynthesizeOptions", *, beside: Path | None = None,
                urls: list[str] | None = None, model: str = "", key_variable: str = "", overwrite: bool = False) -> Outcome:
    """Run it; a dictionary of options is checked as a file of them would be, with the client that the flags describe."""
    from mft.config.load import validate
    from mft.config.yaml import Document, parse_yaml
    from mft.runs.synthesize import synthesize_with_bars
    from mft.synthesis.config import SynthesizeOptions

    if isinstance(options, dict):
        import yaml

        if urls:
            options["client"] = {"type": "endpoint", "urls": urls, "model": model, "key_variable": key_variable or None}
        document: Document = parse_yaml(yaml.safe_dump(options, sort_keys=False), "command line")
        options = validate(SynthesizeOptions, document, context={"folder": Path(), "must_exist": True})
    result = synthesize_with_bars(seeds, out, options, beside=beside, overwrite=overwrite)
    return Outcome(result, funnel_parts(result))


def funnel_parts(result: dict[str, Any]) -> list[Any]:
    """The funnel as a person reads it: a row a step, each with what it dropped."""
    rows = [[entry["step"], f"{entry['read']:,}", f"{entry['made']:,}" if entry["made"] else "", f"{entry['kept']:,}",
             f"{entry['kept'] / (entry['read'] + entry['made'] - entry['replaced']):.0%}" if entry["read"] else "",
             counts(entry["dropped"]) if entry["dropped"] else ""] for entry in result["funnel"]]
    total = result["ledger"].get("all_runs", {}).get("total")
    asked = [f"model: {total['answers']:,} answers, {total['prompt_tokens']:,} + {total['completion_tokens']:,} tokens"] if total else []
    return [Table("", ["step", "in", "made", "kept", "share", "dropped"], rows), f"made {result['made']:,}, kept {result['kept']:,}",
            *asked, f"{result['path']}/rows.jsonl"]
