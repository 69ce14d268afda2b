"""`mft generate`: one answer."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from mft.cli.outcome import Outcome
from mft.errors import DataError

app = typer.Typer(add_completion=False)


@app.command()
def generate(
    model: Annotated[Path, typer.Option(help="adapter folder of a run, or a model folder")],
    prompt: Annotated[str | None, typer.Argument(help="the user's message; without it and without --file it is read from stdin")] = None,
    file: Annotated[Path | None, typer.Option(help="read the user's message from this file")] = None,
    format_name: Annotated[str | None, typer.Option("--format", help="prompt format; default: what the model was trained with")] = None,
    system: Annotated[str | None, typer.Option(help="a system message")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 512,
    temperature: Annotated[float, typer.Option(min=0.0, help="0: greedy")] = 0.0,
    top_p: Annotated[float, typer.Option(min=0.0, max=1.0)] = 1.0,
    seed: Annotated[int, typer.Option(help="for temperature > 0")] = 0,
) -> Outcome:
    """Answer one prompt. Prints the answer and nothing else."""
    from mft.conversation import Message
    from mft.generation.chat import answer

    messages = [Message("user", _prompt(prompt, file))]
    if system is not None:
        messages.insert(0, Message("system", system))
    completion = answer(model, messages, format_name=format_name, max_new_tokens=max_new_tokens, temperature=temperature,
                        top_p=top_p, seed=seed)
    return Outcome({"text": completion.text, "finish_reason": completion.finish_reason, "tokens": len(completion.token_ids)},
                   [completion.text])


def _prompt(prompt: str | None, file: Path | None) -> str:
    """The user's message from exactly one of argument, file, stdin."""
    if prompt is not None and file is not None:
        raise DataError("give the prompt as an argument or as --file, not both")
    if prompt is not None:
        return prompt
    try:
        text = sys.stdin.read() if file is None else file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise DataError(f"{file}: no such file") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file or 'stdin'}: not UTF-8 text (byte {error.start})") from error
    if not text.strip():
        raise DataError(f"{file or 'stdin'}: the prompt is empty")
    return text
