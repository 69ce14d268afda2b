"""`mft quantize`: one model or a matrix in fewer bits."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mft.cli.outcome import Outcome, Table
from mft.errors import ConfigError

app = typer.Typer(add_completion=False)


@app.command()
def quantize(
    config: Annotated[Path | None, typer.Argument(help="a project's YAML with a quantize stage; or give --model")] = None,
    overrides: Annotated[list[str] | None, typer.Argument(help="key.sub=value, as often as needed", metavar="[KEY=VALUE]...")] = None,
    model: Annotated[str | None, typer.Option(help="folder, hub id or built-in name of an unquantised model")] = None,
    method: Annotated[str, typer.Option(help="gptq, rtn (round to nearest), nf4, int8, awq, gguf")] = "gptq",
    bits: Annotated[int | None, typer.Option(help="2, 3, 4 or 8 (gptq, rtn)")] = None,
    group_size: Annotated[int | None, typer.Option(help="inputs that share a scale; -1: a whole row")] = None,
    desc_act: Annotated[bool | None, typer.Option("--desc-act/--no-desc-act", help="act-order (gptq)")] = None,
    damp: Annotated[float | None, typer.Option(help="share of the Hessian's mean diagonal added to it (gptq)")] = None,
    calibration: Annotated[Path | None, typer.Option(help="a folder of `mft data build`, or a file of rows; gptq needs it, and with it "
                                                          "the result is measured")] = None,
    rows: Annotated[int | None, typer.Option(help="calibration rows, 128 or more")] = None,
    format_name: Annotated[str | None, typer.Option("--format", help="prompt format; default: what the model's mft.json names")] = None,
    text: Annotated[list[str] | None, typer.Option(help="NAME=FILE: perplexity of a text too; stdlib=stdlib: of Python's library")] = None,
    decontaminate: Annotated[str | None, typer.Option(help="humaneval (default), a benchmark's file, or none")] = None,
    stage: Annotated[str | None, typer.Option(help="which quantize stage of CONFIG")] = None,
    out: Annotated[Path | None, typer.Option(help="the model's folder; with CONFIG the project's, default runs/NAME")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="sizes and memory from config.json alone; nothing is loaded")] = False,
    setup: Annotated[bool, typer.Option("--setup", help="make the environment that gptqmodel lives in")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="make anew what is there")] = False,
) -> Outcome:
    """Quantise and measure: perplexity, KL and equal first choices against the unquantised model. Stopped or killed, the same command
    goes on; a failed job hurts no other."""
    if setup:
        from mft.quantization.environment import environment_folder, make_environment

        versions = make_environment()
        return Outcome({"environment": str(environment_folder()), "versions": versions},
                       [str(environment_folder()), ", ".join(f"{name} {number}" for name, number in versions.items())])
    if (config is None) == (model is None):
        raise ConfigError(["give a project's YAML or --model, one of them"])
    if config is not None:
        flags = {"--bits": bits, "--group-size": group_size, "--desc-act": desc_act, "--damp": damp, "--calibration": calibration,
                 "--rows": rows, "--format": format_name, "--text": text, "--decontaminate": decontaminate}
        if given := [flag for flag, value in flags.items() if value not in (None, [])]:
            raise ConfigError([f"{', '.join(given)}: with a config these stand in its quantize stage"])
        return _shown(_of_config(config, overrides or [], stage, out, dry_run=dry_run, overwrite=overwrite))
    from mft.runs.quantize import options_of_flags, quantize_model

    job = {"method": method, "bits": bits, "group_size": group_size, "desc_act": desc_act, "damp": damp}
    options = options_of_flags(job, rows, text or [], decontaminate)
    return _shown(quantize_model(str(model), out, options, calibration, format_name, dry_run=dry_run, overwrite=overwrite))


def _of_config(config: Path, overrides: list[str], stage: str | None, out: Path | None, *, dry_run: bool,
               overwrite: bool) -> dict[str, Any]:
    from mft.report.page import write_report
    from mft.runs.config import load_project
    from mft.runs.project import Project
    from mft.runs.quantize import quantize_stage, stage_of

    project_config = load_project(config, overrides)
    folder = out or Path("runs") / project_config.name
    project = Project(project_config, config, folder, write_report, overwrite=overwrite, overrides=overrides)
    return quantize_stage(project, stage_of(project_config, config, stage), dry_run=dry_run)


def _shown(result: dict[str, Any]) -> Outcome:
    from mft.quantization.table import header_and_rows, preview_tables

    if result.get("dry_run"):
        return Outcome(result, [*(Table(*table) for table in preview_tables(result)), *(f"warning: {text}" for text in result["warnings"])])
    header, rows = header_and_rows(result)
    return Outcome(result, [Table(result["model"], header, rows), *(f"warning: {warning}" for warning in result["warnings"]),
                            *(job["path"] for job in result["jobs"])])
