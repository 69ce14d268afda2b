"""`mft`: find the verb, run it, print its result, turn errors into exit codes. Verbs are imported when they are used."""

import contextlib
import errno
import importlib
import json
import os
import sys
import traceback
from typing import Any

from mft import __version__
from mft.cli.usage import VERBS, split_flags, usage
from mft.errors import ContactLost, MftError

REFUSALS = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP})
"""What the system answers where a path that was given is at fault: closed, read-only, too long, a circle of links."""


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the `mft` script. Exits 0 when done, 1 at a bug, 2 at a user's mistake, 3 at a failed check, 130 interrupted."""
    flags, rest = split_flags(list(sys.argv[1:] if arguments is None else arguments))
    try:
        if "version" in flags or not rest or rest[0] in ("--help", "-h", "help"):
            print(f"mft {__version__}" if "version" in flags else usage(), flush=True)
            code = 0 if rest or "version" in flags else 2
        else:
            code = run_verb(rest[0], rest[1:], flags)
            sys.stdout.flush()
    except BrokenPipeError:   # the reader (head, less) has gone; Python would complain once more at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)


def run_verb(verb: str, arguments: list[str], flags: dict[str, int]) -> int:
    """Run one verb and return the exit code."""
    as_json = "json" in flags
    try:
        if "SLURM_PROCID" in os.environ and verb != "launch":
            from mft.runs.slurm import join_slurm

            join_slurm(os.environ)
        outcome = _call(verb, arguments, flags)
    except MftError as error:
        if not _speaks(error.exit_code, str(error), lost_contact=isinstance(error, ContactLost)):
            return error.exit_code
        _fail(str(error), error.exit_code, as_json, getattr(error, "result", None))
        if "debug" in flags:
            traceback.print_exc()
        return error.exit_code
    except KeyboardInterrupt:
        _fail("interrupted", 130, as_json)
        return 130
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001  the one place where a bug becomes exit code 1, its traceback kept
        if message := getattr(error, "format_message", None):
            _fail(f"{message()}\nmft {verb} --help tells more", 2, as_json)
            return 2
        if isinstance(error, OSError) and error.errno in REFUSALS and error.filename is not None:
            if _speaks(2, str(error)):
                _fail(f"{error.filename}: {error.strerror}", 2, as_json)
            return 2
        traceback.print_exc()
        if _speaks(1, f"{type(error).__name__}: {error}") and as_json:
            print(json.dumps({"ok": False, "error": f"{type(error).__name__}: {error}", "exit_code": 1}))
        return 1
    if outcome == 130:   # Typer answers an interrupt with this number, without a word
        _fail("interrupted", 130, as_json)
    if isinstance(outcome, int) or outcome is None:
        return outcome or 0
    if not _speaks(0, ""):
        return 0
    if as_json:
        print(json.dumps(outcome.result, ensure_ascii=False, default=str))
    else:
        outcome.show()
    return 0


def _speaks(code: int, message: str, *, lost_contact: bool = False) -> bool:
    """True where this process tells the user how it ended: not one of several ranks, or the first of those that torchrun started.

    One of them that lost contact to the others tells it on stderr as well: the first may be the one that is gone.
    """
    if "RANK" not in os.environ:
        return True
    from mft.runs.launch import leave_outcome

    if leave_outcome(code, message, lost_contact=lost_contact):
        return False
    if lost_contact and os.environ["RANK"] != "0":
        sys.stderr.write(f"mft: {message}\n")
    return os.environ["RANK"] == "0"


def _call(verb: str, arguments: list[str], flags: dict[str, int]) -> Any:
    """Import the verb's module and call it. Whatever a library prints meanwhile goes to stderr."""
    if verb not in VERBS:
        from difflib import get_close_matches

        close = get_close_matches(verb, VERBS, n=1)
        raise MftError(f"'{verb}' is not a verb of mft" + (f"; did you mean '{close[0]}'?" if close else f"; verbs: {', '.join(VERBS)}"))
    # GNU OpenMP's threads spin long before they sleep, which makes a CPU step many times slower on a machine with other work.
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    from mft.log import configure_logging

    first = os.environ.get("RANK", "0") == "0"
    configure_logging(flags.get("verbose", 0) - flags.get("quiet", 0) if first else -1, debug="debug" in flags)
    import typer

    module = importlib.import_module(f"mft.cli.{verb}")
    command = typer.main.get_command(module.app)
    help_wanted = "--help" in arguments
    with contextlib.nullcontext() if help_wanted else contextlib.redirect_stdout(sys.stderr):
        return command(arguments, prog_name=f"mft {verb}", standalone_mode=False, obj=flags)


def _fail(message: str, code: int, as_json: bool, result: Any = None) -> None:
    sys.stderr.write(f"mft: {message}\n" if code != 130 else f"{message}\n")
    if as_json:
        print(json.dumps({**(result or {}), "ok": False, "error": message, "exit_code": code}, ensure_ascii=False, default=str))
