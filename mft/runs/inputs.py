"""What `mft data` works on: a built folder or a JSONL file, read and encoded."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mft.conversation import Conversation
from mft.data.jsonl import read_conversations
from mft.data.ledger import Ledger
from mft.data.pipeline import read_built
from mft.errors import DataError, ModelError, OutputError
from mft.files import MANIFEST, read_json
from mft.modeling.base import resolve_base
from mft.tokenization.encode import TokenizedSample
from mft.tokenization.load import TextTokenizer, format_for, load_tokenizer
from mft.tokenization.store import encode_conversations, read_tokens, statistics, write_jsonl, write_tokens

ANY_LENGTH = 1 << 40


def read_input(source: Path, converter: str) -> tuple[list[Conversation], Ledger]:
    """The conversations of a built folder (both parts) or of a JSONL file, and what was dropped while reading.

    Raises:
        DataError: neither, or no row is left; the reasons are in the message.
    """
    ledger = Ledger(source.name)
    if source.is_dir():
        rows = [row for part in read_built(source).values() for row in part]
        ledger.read = ledger.kept = len(rows)
    elif source.is_file():
        rows = list(read_conversations(source, converter, ledger))
        ledger.close()
    else:
        raise DataError(f"{source}: no such file or folder")
    if not rows:
        reasons = ", ".join(f"{count} {reason}" for reason, count in ledger.dropped.items())
        raise DataError(f"{source}: no row is left" + (f"; dropped: {reasons}" if reasons else ": the input is empty"))
    return rows, ledger


def encode_input(source: Path, format_name: str, tokenizer: str, context: int, converter: str, *, out: Path | None,
                 jsonl: Path | None, overwrite: bool) -> dict[str, Any]:
    """`mft data encode`: the counts of reading and encoding together.

    Raises:
        OutputError: neither or both of `out` and `jsonl`, or they exist.
    """
    if (out is None) == (jsonl is None):
        raise OutputError("give one of --out DIR and --jsonl PATH")
    if jsonl is not None and jsonl.exists() and not overwrite:
        raise OutputError(f"{jsonl}: exists; give another --jsonl, or --overwrite")
    loaded = load_tokenizer(resolve_tokenizer(tokenizer))
    prompt_format = format_for(format_name, loaded)
    rows, ledger = read_input(source, converter)
    tasks = tasks_of(rows)
    if jsonl is not None:
        encoded = write_jsonl(jsonl, rows, prompt_format, loaded, context, tasks)
    else:
        encoded = encode_conversations(rows, prompt_format, loaded, context, tasks)
        write_tokens(out or Path(), encoded, {"input": str(source), "format": format_name, "tokenizer_sha256": loaded.sha256,
                                              "reading": dict(ledger.dropped)}, replace=overwrite)
    return with_reading(statistics(encoded), ledger.read, dict(ledger.dropped))


def with_reading(facts: dict[str, Any], read: int, dropped: dict[str, int]) -> dict[str, Any]:
    """Counts of encoding, with what was dropped while reading before it: `read == kept + sum(dropped)` holds for both together."""
    return {**facts, "read": read, "dropped": {**dropped, **{reason: count + dropped.get(reason, 0)
                                                             for reason, count in facts["dropped"].items()}}}


def show_input(source: Path, format_name: str, tokenizer: str, number: int,
               converter: str) -> tuple[Sequence[TokenizedSample], TextTokenizer, Sequence[str]]:
    """The first `number` samples of an input, the tokenizer, and the names of the tasks."""
    loaded = load_tokenizer(resolve_tokenizer(tokenizer))
    rows, _ = read_input(source, converter)
    tasks = tasks_of(rows)
    encoded = encode_conversations(rows[: 4 * number + 64], format_for(format_name, loaded), loaded, ANY_LENGTH, tasks)
    return encoded.samples[:number], loaded, tasks


def stats_of(folder: Path) -> dict[str, Any]:
    """`mft data stats`: the counts of a folder of tokens.

    Raises:
        DataError: the folder holds no tokens.
    """
    manifest = read_json(folder / MANIFEST) if (folder / MANIFEST).is_file() else {}
    if "statistics" not in manifest:
        raise DataError(f"{folder}: is not a folder that `mft data encode --out` wrote")
    facts = statistics(read_tokens(folder))
    reading = manifest.get("reading", {})
    return with_reading(facts, facts["read"] + sum(reading.values()), reading)


def resolve_tokenizer(name: str) -> Path:
    """The folder of a tokenizer: any folder with tokenizer.json, a built-in base or a hub id.

    Raises:
        ModelError: none of these.
    """
    path = Path(name)
    if path.is_dir():
        return path
    if path.is_file():
        raise ModelError(f"{name}: is a file; give the folder that holds tokenizer.json")
    return resolve_base(name)


def tasks_of(rows: Sequence[Conversation]) -> list[str]:
    """Task names in the order in which they first appear."""
    return list(dict.fromkeys(row.task for row in rows))
