"""`mft evaluate`: measure models."""

from pathlib import Path
from typing import Annotated

import typer

from mft.cli import evaluate_model, evaluate_score
from mft.cli.outcome import Outcome, Table

app = typer.Typer(add_completion=False, help="Measure models: held-out loss, pass@k of code benchmarks, what others have written.")
app.command()(evaluate_score.score)
app.command()(evaluate_score.check)
app.command()(evaluate_score.compare)
evaluate_model.register(app)


@app.command()
def loss(
    data: Annotated[Path, typer.Option(help="a folder that `mft data build` wrote; its validation rows are scored")],
    model: Annotated[list[str], typer.Option(help="NAME=FOLDER, or a folder, a hub id, a built-in base; the first is what others "
                                                  "are compared with")],
    format_name: Annotated[str | None, typer.Option("--format", help="prompt format; default: what a model's mft.json names")] = None,
    context: Annotated[int | None, typer.Option(min=16, help="longest sample and packed row, in tokens; default: the first model's "
                                                             "longest")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="default: the first model's")] = None,
    divergence_from: Annotated[str | None, typer.Option(help="also say how far every other model's next-token distributions are from "
                                                             "this one's: mean KL and share of equal first choices")] = None,
    nf4: Annotated[bool, typer.Option("--nf4", help="hold model folders in NF4, as a base is held while an adapter is trained")] = False,
) -> Outcome:
    """Held-out loss of each task, for one or several models on the same rows, with the paired difference."""
    from mft.runs.compare import loss_of_models

    facts = loss_of_models(data, model, format_name, context, tokenizer, nf4=nf4, divergence_from=divergence_from)
    names = list(facts["models"])
    rows = [[task, str(table["rows"]), *(number(table["loss"][name]) for name in names),
             *(difference(table["difference"].get(name)) for name in names[1:])]
            for task, table in [*facts["tasks"].items(), ("all", facts["overall"])]]
    header = ["task", "rows", *names, *(f"{name} - {names[0]}" for name in names[1:])]
    parts = [Table("held-out loss (nats per trained token)", header, rows)]
    if far := facts["divergence"]:
        parts.append(Table(f"distance from {far['reference']} over {far['tokens']} trained tokens",
                           ["model", "KL (nats)", "same first token"],
                           [[name, f"{one['kl']:.5f} ± {one['kl_standard_error']:.5f}", f"{one['top1_agreement']:.2%}"]
                            for name, one in far["models"].items()]))
    return Outcome(facts, parts)


def number(value: float | None) -> str:
    """Four decimals, or a dash where there is nothing."""
    return "-" if value is None else f"{value:.4f}"


def difference(value: dict | None) -> str:
    """`mean ± standard error`."""
    return "-" if not value or value["mean"] is None else f"{value['mean']:+.4f} ± {value['se'] or 0:.4f}"
