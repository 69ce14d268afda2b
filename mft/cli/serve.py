"""`mft serve`: a model behind an OpenAI-compatible server."""

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from mft.cli.outcome import Outcome

app = typer.Typer(add_completion=False)


@app.command()
def serve(
    model: Annotated[Path, typer.Option(help="merged, quantised or adapter folder, as mft writes them")],
    engine: Annotated[Literal["auto", "vllm", "transformers"], typer.Option(help="auto: vLLM where it is installed, else transformers")]
    = "auto",
    vllm: Annotated[Path | None, typer.Option(help="the `vllm` command of another environment, or its python (vLLM's CPU build)")] = None,
    host: Annotated[str, typer.Option(help="0.0.0.0: reachable from other machines, by anyone")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    name: Annotated[str | None, typer.Option(help="vLLM, adapters: what clients write as `model`; default: the folder's name")] = None,
    dtype: Annotated[Literal["auto", "bf16", "fp16", "fp32"], typer.Option(help="auto: as config.json says")] = "auto",
    tensor_parallel: Annotated[int, typer.Option(min=1, help="vLLM: GPUs that hold one copy of the model")] = 1,
    context: Annotated[int | None, typer.Option(min=16, help="vLLM: longest prompt and answer, in tokens")] = None,
    format_name: Annotated[str | None, typer.Option("--format", help="prompt format, where the folder names none")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the command and start nothing")] = False,
    extra: Annotated[list[str] | None, typer.Argument(help="behind --: further arguments of the engine")] = None,
) -> Outcome:
    """Serve a model with the template and the end tokens it was trained with; stays until Ctrl-C."""
    from mft.serving.engines import ServeOptions, choose_engine, plan_serving
    from mft.serving.folder import look_at
    from mft.serving.serve import serve as run_server

    chosen = choose_engine(engine, vllm)
    options = ServeOptions(host, port, dtype, tensor_parallel, context, name, tuple(extra or ()))
    plan = plan_serving(look_at(model, format_name), chosen, options, vllm)
    facts = plan.to_json()
    if dry_run:
        return Outcome(facts, [shlex.join(plan.command), *(f"# {note}" for note in plan.notes)])
    seconds = run_server(plan)
    return Outcome({**facts, "seconds": seconds}, [f"stopped after {seconds} s"])
