"""`mft synthesize`: instruction data that a model makes and that compilers and tests judge."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from mft.cli.outcome import Outcome
from mft.cli.synthesize_options import (
    CutOption,
    KeyVariableOption,
    ModelOption,
    OutOption,
    OverwriteOption,
    SeedsOption,
    TaskOption,
    UrlOption,
    synthesized,
)

app = typer.Typer(add_completion=False, help="Rows that a language model makes, and that compilers and tests judge.")


@app.command()
def run(
    config: Annotated[Path, typer.Argument(help="YAML with client and steps (data_recipes/synthesis/README.md)")],
    seeds: SeedsOption,
    out: OutOption,
    overrides: Annotated[list[str] | None, typer.Argument(help="key.sub=value, as often as needed", metavar="[KEY=VALUE]...")] = None,
    overwrite: OverwriteOption = False,
) -> Outcome:
    """All steps of a YAML, from seeds to rows, with a funnel that accounts for every row."""
    from mft.synthesis.config import load_options

    return synthesized(seeds, out, load_options(config, overrides), beside=config.parent, overwrite=overwrite)


@app.command()
def evolve(
    seeds: SeedsOption, out: OutOption, url: UrlOption, model: ModelOption, key_variable: KeyVariableOption = "OPENAI_API_KEY",
    rounds: Annotated[int, typer.Option(min=1, help="each starts from what survived the last one")] = 1,
    operations: Annotated[str, typer.Option(help="of constraint, rarer, reasoning, misdirection, complexity; comma-separated")] = "",
    keep_parents: Annotated[bool, typer.Option(help="keep the evolved rows' parents too")] = True,
    answers: Annotated[bool, typer.Option(help="have the evolved instructions answered")] = True,
    task: TaskOption = None, max_tokens: CutOption = 2048, overwrite: OverwriteOption = False,
) -> Outcome:
    """Instructions -> harder instructions, by five operations, and their answers. What was copied or refused is dropped by its reason."""
    step: dict[str, Any] = {"type": "evolve", "rounds": rounds, "keep_parents": keep_parents, "max_tokens": max_tokens}
    step |= {"operations": operations.split(",")} if operations else {}
    steps = [step, *([{"type": "answer", "max_tokens": max_tokens}] if answers else [])]
    return synthesized(seeds, out, {"steps": steps, "task": task}, urls=url, model=model, key_variable=key_variable, overwrite=overwrite)


@app.command()
def backtranslate(
    seeds: SeedsOption, out: OutOption, url: UrlOption, model: ModelOption, key_variable: KeyVariableOption = "OPENAI_API_KEY",
    language: Annotated[Literal["en", "zh", "mixed"], typer.Option(help="of the instructions; mixed: about a fifth Chinese")] = "en",
    code_language: Annotated[str, typer.Option(help="of code that does not say what it is")] = "python",
    task: TaskOption = None, max_tokens: CutOption = 2048, overwrite: OverwriteOption = False,
) -> Outcome:
    """Code -> the instruction that it answers. Seeds: rows `{"code": ...}`, `{"text": ...}`, or a built data folder of code."""
    step = {"type": "backtranslate", "language": language, "max_tokens": max_tokens}
    options = {"steps": [step], "task": task, "code_language": code_language}
    return synthesized(seeds, out, options, urls=url, model=model, key_variable=key_variable, overwrite=overwrite)


@app.command("tests")
def write_tests(
    seeds: SeedsOption, out: OutOption, url: UrlOption, model: ModelOption, key_variable: KeyVariableOption = "OPENAI_API_KEY",
    number: Annotated[int, typer.Option("-n", min=1, help="tests asked for, each on another behaviour")] = 5,
    check: Annotated[bool, typer.Option(help="keep only rows whose tests bite and pass")] = True,
    task: TaskOption = None, max_tokens: CutOption = 2048, overwrite: OverwriteOption = False,
) -> Outcome:
    """Python solutions -> tests of them, checked in the sandbox against the solution and against broken versions of it."""
    steps: list[dict[str, Any]] = [{"type": "unit_tests", "tests": number, "max_tokens": max_tokens}]
    steps += [{"type": "tests_bite"}, {"type": "tests_pass"}] if check else []
    return synthesized(seeds, out, {"steps": steps, "task": task}, urls=url, model=model, key_variable=key_variable, overwrite=overwrite)


@app.command("filter")
def filter_rows(
    seeds: SeedsOption, out: OutOption,
    steps: Annotated[str, typer.Option(help="of compile, tests_bite, tests_pass, agreement, difficulty, and those of a data recipe that "
                                            "need no options; comma-separated")] = "compile",
    task: TaskOption = None, overwrite: OverwriteOption = False,
) -> Outcome:
    """Judge rows that are there; no model is asked."""
    return synthesized(seeds, out, {"steps": [{"type": name.strip()} for name in steps.split(",")], "task": task}, overwrite=overwrite)
