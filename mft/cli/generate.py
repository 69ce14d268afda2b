"""`mft generate`: one answer, or a file of them."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from mft.cli.outcome import Outcome, counts
from mft.errors import DataError

app = typer.Typer(add_completion=False)


@app.command()
def generate(
    model: Annotated[Path, typer.Option(help="adapter folder of a run, or a model folder")],
    prompt: Annotated[str | None, typer.Argument(help="the user's message; without it, --file and --input it is read from stdin")] = None,
    file: Annotated[Path | None, typer.Option(help="read the user's message from this file")] = None,
    input_file: Annotated[Path | None, typer.Option("--input", help="JSONL of prompts: rows with `prompt` or `messages`")] = None,
    output: Annotated[Path | None, typer.Option(help="with --input: JSONL of answers; the same command goes on where it stopped")] = None,
    format_name: Annotated[str | None, typer.Option("--format", help="prompt format; default: what the model was trained with")] = None,
    system: Annotated[str | None, typer.Option(help="a system message")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 512,
    temperature: Annotated[float, typer.Option(min=0.0, help="0: greedy")] = 0.0,
    top_p: Annotated[float, typer.Option(min=0.0, max=1.0)] = 1.0,
    seed: Annotated[int, typer.Option(help="for temperature > 0")] = 0,
    batch_size: Annotated[int | None, typer.Option(min=1, help="with --input: prompts at once; default 8")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="with --input: replace OUTPUT")] = False,
) -> Outcome:
    """Answer one prompt and print nothing else, or answer every row of a JSONL file."""
    if input_file is not None:
        _refuse("--input", {"a prompt": prompt, "--file": file, "--system (a row has its own)": system})
        if output is None:
            raise DataError("--input needs --output, the file of the answers")
        return _answer_file(model, input_file, output, format_name, overwrite, max_new_tokens=max_new_tokens, temperature=temperature,
                            top_p=top_p, seed=seed, batch_size=batch_size or 8)
    _refuse("one prompt", {"--output": output, "--batch-size": batch_size, "--overwrite": overwrite or None})
    from mft.conversation import Message
    from mft.generation.chat import answer

    completion = answer(model, [Message("user", _prompt(prompt, file))], format_name=format_name, max_new_tokens=max_new_tokens,
                        temperature=temperature, top_p=top_p, seed=seed, system=system)
    return Outcome({"text": completion.text, "finish_reason": completion.finish_reason, "tokens": len(completion.token_ids)},
                   [completion.text])


def _refuse(what: str, given: dict) -> None:
    if others := [name for name, value in given.items() if value is not None]:
        raise DataError(f"{' and '.join(others)}: does not go with {what}")


def _answer_file(model: Path, source: Path, output: Path, format_name: str | None, overwrite: bool, **settings: float) -> Outcome:
    from mft.generation.answers import AnswerSettings, answer_file
    from mft.generation.chat import load_chat_model
    from mft.runs.progress import progress_bar

    with progress_bar("answer") as report:
        facts = answer_file(load_chat_model(model, format_name), model, source, output, AnswerSettings(**settings),  # type: ignore[arg-type]
                            overwrite=overwrite, progress=report)
    ends = ", ".join(f"{number} {reason}" for reason, number in facts["finish_reasons"].items())
    return Outcome(facts, [f"{facts['answered']} of {facts['read']} rows answered ({ends}), {facts['tokens']:,} tokens in "
                           f"{facts['seconds']:.1f} s; found done: {facts['resumed']}; errors: {counts(facts['errors'])}", str(output)])


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
