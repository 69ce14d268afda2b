"""`mft launch`: start a train stage on many nodes."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from mft.cli.outcome import Outcome

app = typer.Typer(add_completion=False)


@app.command()
def launch(
    config: Annotated[Path, typer.Argument(help="a project's YAML")],
    on: Annotated[str, typer.Option(help="torchrun: run this node's ranks; deepspeed: over ssh to --hosts; slurm: submit a job")],
    gpus: Annotated[int, typer.Option(min=1, help="ranks of each machine: its GPUs")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key.sub=value, as often as needed", metavar="[KEY=VALUE]...")] = None,
    nodes: Annotated[int, typer.Option(min=1, help="machines")] = 1,
    stage: Annotated[str | None, typer.Option(help="which train stage; needed when the config has several")] = None,
    out: Annotated[Path | None, typer.Option(help="the project's output folder, the same for all nodes; default runs/NAME")] = None,
    rendezvous: Annotated[str | None, typer.Option(help="torchrun: HOST:PORT of the node where the nodes meet")] = None,
    rendezvous_id: Annotated[str | None, typer.Option(help="torchrun: a name that the nodes of one run share")] = None,
    max_restarts: Annotated[int | None, typer.Option(min=0, help="torchrun, slurm: how often lost ranks are started again; 3")] = None,
    wait_minutes: Annotated[float | None, typer.Option(min=0.1, help="torchrun, slurm: how long a node waits for the others; 10")] = None,
    hosts: Annotated[str | None, typer.Option(help="deepspeed: a,b or a:8,b:4")] = None,
    node_rank: Annotated[int | None, typer.Option(min=0, help="deepspeed: without ssh, the number of this node in --hosts")] = None,
    interface: Annotated[str | None, typer.Option(help="the network interface that NCCL and gloo use")] = None,
    slurm: Annotated[list[str] | None, typer.Option(help="slurm: KEY=VALUE of the job: partition, account, time, ...")] = None,
    script: Annotated[Path | None, typer.Option(help="slurm: where the script is written; default OUT.launch/")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print what would be written and run")] = False,
) -> Outcome:
    """Start a train stage on several nodes. Stopped, killed or out of time, the same command goes on from the newest checkpoint.

    torchrun: run this very command on every node, with the same --rendezvous.
    """
    from mft.runs.launching.start import LaunchOptions, find_job, start

    options = LaunchOptions(on, nodes, gpus, rendezvous, rendezvous_id, max_restarts, wait_minutes, hosts, node_rank, interface,
                            tuple(slurm or ()), script, dry_run)
    facts = start(find_job(config, overrides or [], stage, out), options)
    return Outcome(facts, list(_lines(facts)))


def _lines(facts: dict[str, Any]) -> Iterator[str]:
    """What a person reads: files as they are, commands as a shell takes them."""
    for key in ("script", "hostfile"):
        if key in facts:
            yield f"{facts[key]['path']}:\n\n{facts[key]['text']}"
    environment = [f"{name}={shlex.quote(value)}" for name, value in facts.get("environment", {}).items()]
    yield f"{'ran' if facts['started'] else 'would run'}: {' '.join([*environment, shlex.join(facts['command'])])}"
    yield from (f"{key}: {facts[key]}" for key in ("job", "adapter", "steps", "loss") if key in facts)
