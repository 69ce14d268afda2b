"""`mft`: find the verb, run it, print its result, turn errors into exit codes. Verbs are imported when they are used."""

import contextlib
import importlib
import json
import os
import sys
import traceback
from typing import Any

from mft import __version__
from mft.errors import MftError

VERBS = {
    "quickstart": "the whole chain on the running Python's standard library, no network",
    "run": "all stages of a config, each skipped when nothing it depends on has changed",
    "data": "build, encode, show, stats: from sources to masked token ids",
    "train": "fine-tune an adapter",
    "merge": "adapter + base -> merged model, checked",
    "generate": "answer a prompt with a base + adapter or a merged model",
    "evaluate": "loss: held-out loss per task of one or several models",
    "report": "one self-contained HTML page of a run",
    "config": "show, schema: the resolved config, its JSON Schema",
}

USAGE = """usage: mft [--json] [--debug] [-q] [-v] VERB ...

From raw instruction data to a measured code model.

verbs (mft VERB --help tells more):
{verbs}

everywhere:
  --json       print exactly one JSON object on stdout
  --debug      full log and tracebacks
  -q, -v       less, more on stderr
  --version    print the version

exit codes: 0 done, 1 a bug of mft, 2 a mistake in what was given, 3 a check found a fault, 130 interrupted (state saved)
"""


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the `mft` script. Exits with the code that DESIGN's command-line contract names."""
    flags, rest = split_flags(list(sys.argv[1:] if arguments is None else arguments))
    if "version" in flags:
        print(f"mft {__version__}")
        sys.exit(0)
    if not rest or rest[0] in ("--help", "-h", "help"):
        print(usage())
        sys.exit(0 if rest else 2)
    sys.exit(run_verb(rest[0], rest[1:], flags))


def usage() -> str:
    """The text of `mft --help`."""
    return USAGE.format(verbs="\n".join(f"  {name:<12} {help_text}" for name, help_text in VERBS.items()))


def split_flags(arguments: list[str]) -> tuple[dict[str, int], list[str]]:
    """Take the global flags out of the arguments, wherever they stand before a `--`."""
    names = {"--json": "json", "--debug": "debug", "-q": "quiet", "--quiet": "quiet", "-v": "verbose", "--verbose": "verbose",
             "--version": "version"}
    flags: dict[str, int] = {}
    rest: list[str] = []
    for index, argument in enumerate(arguments):
        if argument == "--":
            return flags, rest + arguments[index:]
        if argument in names:
            flags[names[argument]] = flags.get(names[argument], 0) + 1
        else:
            rest.append(argument)
    return flags, rest


def run_verb(verb: str, arguments: list[str], flags: dict[str, int]) -> int:
    """Run one verb and return the exit code."""
    as_json = "json" in flags
    try:
        outcome = _call(verb, arguments, flags)
    except MftError as error:
        _fail(str(error), error.exit_code, as_json, getattr(error, "result", None))
        if "debug" in flags:
            traceback.print_exc()
        return error.exit_code
    except KeyboardInterrupt:
        _fail("interrupted", 130, as_json)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001  the one place where a bug becomes exit code 1, its traceback kept
        if message := getattr(error, "format_message", None):
            _fail(f"{message()}\nmft {verb} --help tells more", 2, as_json)
            return 2
        traceback.print_exc()
        if as_json:
            print(json.dumps({"ok": False, "error": f"{type(error).__name__}: {error}", "exit_code": 1}))
        return 1
    if isinstance(outcome, int) or outcome is None:
        return outcome or 0
    if as_json:
        print(json.dumps(outcome.result, ensure_ascii=False, default=str))
    else:
        outcome.show()
    return 0


def _call(verb: str, arguments: list[str], flags: dict[str, int]) -> Any:
    """Import the verb's module and call it. Whatever a library prints meanwhile goes to stderr."""
    if verb not in VERBS:
        from difflib import get_close_matches

        close = get_close_matches(verb, VERBS, n=1)
        raise MftError(f"'{verb}' is not a verb of mft" + (f"; did you mean '{close[0]}'?" if close else f"; verbs: {', '.join(VERBS)}"))
    # GNU OpenMP's threads spin long before they sleep, which makes a CPU step many times slower on a machine with other work.
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    from mft.log import configure_logging

    configure_logging(flags.get("verbose", 0) - flags.get("quiet", 0), debug="debug" in flags)
    import typer

    module = importlib.import_module(f"mft.cli.{verb}")
    command = typer.main.get_command(module.app)
    help_wanted = "--help" in arguments
    with contextlib.nullcontext() if help_wanted else contextlib.redirect_stdout(sys.stderr):
        return command(arguments, prog_name=f"mft {verb}", standalone_mode=False)


def _fail(message: str, code: int, as_json: bool, result: Any = None) -> None:
    sys.stderr.write(f"mft: {message}\n" if code != 130 else f"{message}\n")
    if as_json:
        print(json.dumps({**(result or {}), "ok": False, "error": message, "exit_code": code}, ensure_ascii=False, default=str))
