"""`mft evaluate humaneval` and its like: generate a benchmark's answers with a model or a server, and judge them."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from mft.cli.evaluate_options import Inside, Isolation, Ks, Overwrite, Problems, ProtocolName, Rules, Unsafe, Workers, exam, numbers, shown
from mft.cli.outcome import Outcome
from mft.errors import ConfigError

NAMES = ("humaneval", "humaneval-plus", "humaneval-x", "humaneval-zh", "mbpp", "mbpp-plus", "spider")


def register(app: typer.Typer) -> None:
    """A command for each benchmark."""
    for name in NAMES:
        app.command(name)(_command(name))


def _command(name: str) -> Callable[..., Outcome]:
    def command(
        protocol: ProtocolName,
        out: Annotated[Path, typer.Option(help="folder for samples.jsonl, verdicts and evaluation.json; a killed run goes on there")],
        rules: Rules = None,
        model: Annotated[str | None, typer.Option(help="a model folder, an adapter folder, a hub id or a built-in base")] = None,
        endpoint: Annotated[list[str] | None, typer.Option(help="URL of an OpenAI-compatible server, up to /v1; may be several")] = None,
        served_model: Annotated[str | None, typer.Option(help="the name of the model on the servers")] = None,
        tokenizer: Annotated[Path | None, typer.Option(help="with --endpoint: the served model's tokenizer folder")] = None,
        problems: Problems = None,
        samples: Annotated[int, typer.Option(min=1, help="samples of each problem; above 1 with temperature=...")] = 1,
        k: Ks = "1",
        limit: Annotated[int | None, typer.Option(min=1, help="the first so many problems alone; the score says so")] = None,
        format_name: Annotated[str | None, typer.Option("--format", help="prompt format, in place of the protocol's")] = None,
        nf4: Annotated[bool, typer.Option("--nf4", help="hold a model folder in NF4")] = False,
        batch_size: Annotated[int, typer.Option(min=1)] = 8,
        concurrency: Annotated[int, typer.Option(min=1, help="requests at a time, for each server")] = 8,
        nproc: Annotated[int | None, typer.Option(min=1, help="processes that share the problems (torchrun)")] = None,
        workers: Workers = None,
        isolation: Isolation = "auto",
        unsafe: Unsafe = False,
        inside: Inside = False,
        overwrite: Overwrite = False,
    ) -> Outcome:
        from mft.runs.benchmark_model import Draw, evaluate_endpoint, evaluate_model

        if (model is None) == (not endpoint) or bool(endpoint) != (served_model is not None):
            raise ConfigError(["give --model, or --endpoint with --served-model"])
        if nproc and (endpoint or "RANK" in os.environ):
            raise ConfigError([f"--nproc {nproc}: servers share the work by themselves, and so do ranks that are started already"])
        if format_name is not None:
            rules = [*(rules or []), f"format={format_name}"]
        opened = exam(name, protocol, problems, rules, workers=workers, isolation=isolation, unsafe=unsafe, inside=inside,
                      limit=limit).load()
        draw = Draw(samples, tuple(numbers(k)), batch_size)
        if endpoint:
            from mft.generation.openai_endpoint import Endpoints

            servers = Endpoints(endpoint, served_model or "", concurrency=concurrency)
            return shown(evaluate_endpoint(opened, servers, out, draw, tokenizer=tokenizer, overwrite=overwrite))
        if nproc and nproc > 1:
            from mft.runs.benchmark import read_score
            from mft.runs.launch import start_ranks

            start_ranks(_again(name), nproc, 120.0)
            return shown(read_score(out))
        from mft.runs.compare import model_under_test

        result = evaluate_model(opened, model_under_test(model or "", nf4=nf4), out, draw, overwrite=overwrite)
        return shown(result) if result else Outcome({}, [])

    command.__doc__ = f"Generate answers to {name} with a model or a server, judge them, and write a score that names its protocol."
    return command


def _again(name: str) -> list[str]:
    """This command's own arguments, for ranks: without --nproc and the flags that only the first process acts on."""
    import sys

    out, rest = [], iter(sys.argv[1:])
    for argument in rest:
        if argument == "--nproc":
            next(rest, None)
        elif not argument.startswith("--nproc=") and argument != "--json":
            out.append(argument)
    return out
