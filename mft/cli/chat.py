"""`mft chat`: a conversation in the terminal."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from mft.cli.outcome import Outcome

app = typer.Typer(add_completion=False)


@app.command()
def chat(
    context: typer.Context,
    model: Annotated[Path, typer.Option(help="adapter folder of a run (used unmerged), merged or quantised model folder")],
    format_name: Annotated[str | None, typer.Option("--format", help="prompt format; default: what the model was trained with")] = None,
    system: Annotated[str | None, typer.Option(help="a system message")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 512,
    temperature: Annotated[float, typer.Option(min=0.0, help="0: greedy")] = 0.0,
    top_p: Annotated[float, typer.Option(min=0.0, max=1.0)] = 1.0,
    seed: Annotated[int, typer.Option(help="for temperature > 0")] = 0,
) -> Outcome:
    """Talk to a model; /help lists the commands, Ctrl-C stops an answer. With --json stdout is the conversation, as one object."""
    from mft.generation.chat import load_chat_model
    from mft.serving.chat import ChatSession, ChatSettings, run_chat

    stream = sys.stderr if "json" in (context.obj or {}) else sys.__stdout__ or sys.stderr

    def write(text: str) -> None:
        stream.write(text)
        stream.flush()

    session = ChatSession(load_chat_model(model, format_name), ChatSettings(max_new_tokens, temperature, top_p, seed), write, system)
    if sys.stdin.isatty():
        write(f"{model}, format {session.chat.prompt_format.name}; /help lists the commands\n")
    run_chat(session, _line)
    return Outcome(session.to_json())


def _line(prompt: str) -> str:
    """A line of stdin, edited by readline on a terminal."""
    if not sys.stdin.isatty():
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        return line.removesuffix("\n")
    import readline  # noqa: F401  line editing and history, for input()

    redirected, sys.stdout = sys.stdout, sys.__stdout__ or sys.stdout   # input() edits lines on the real stdout alone
    try:
        return input(prompt)
    finally:
        sys.stdout = redirected
