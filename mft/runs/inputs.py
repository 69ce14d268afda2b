"""What `mft data` works on: a built folder or a file of rows, read and encoded."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mft.config.yaml import parse_yaml
from mft.conversation import Conversation
from mft.data.ledger import Ledger
from mft.data.pipeline import PARTS, read_built
from mft.data.readers.conversations import read_conversations
from mft.errors import DataError, ModelError, OutputError
from mft.files import MANIFEST, read_json
from mft.formats.base import PromptFormat
from mft.modeling.base import resolve_base
from mft.tokenization.compatibility import format_for
from mft.tokenization.load import TextTokenizer, load_tokenizer
from mft.tokenization.store import EncodedSet, encode_conversations, statistics, write_jsonl, write_tokens
from mft.tokenization.token_store import joined_stores

ANY_LENGTH = 1 << 40


def read_input(source: Path, converter: str) -> tuple[list[Conversation], Ledger]:
    """The conversations of a built folder (both parts) or of a file of rows, and what was dropped while reading.

    `converter` is a name, or a mapping as in a recipe: `{type: fields, user: "{{ java }}", assistant: "{{ cs }}"}`.

    Raises:
        DataError: neither, or no row is left; the reasons are in the message. ConfigError: the mapping is no YAML.
    """
    ledger = Ledger(source.name)
    if source.is_dir():
        rows = [row for part in read_built(source).values() for row in part]
        ledger.read = ledger.kept = len(rows)
    elif source.is_file():
        choice = parse_yaml(converter, "--converter").data if converter.lstrip().startswith("{") else converter
        rows = list(read_conversations(source, choice, ledger))
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
        built = read_json(source / MANIFEST) if source.is_dir() else {}
        train = len(rows) - sum(counts["validation"] for counts in built.get("per_task", {}).values())   # `read_input` puts them last
        parts = {"train": rows[:train], "validation": rows[train:]}
        encoded, train_conversations = encode_parts(parts, prompt_format, loaded, context, tasks)
        write_tokens(out or Path(), encoded, {
            "input": str(source), "format": prompt_format.reference, "tokenizer_sha256": loaded.sha256, "reading": dict(ledger.dropped),
            "train_conversations": train_conversations, "mixture": built.get("mixture"),
        }, replace=overwrite)
    return with_reading(statistics(encoded), ledger.read, dict(ledger.dropped))


def encode_parts(parts: Mapping[str, Sequence[Conversation]], prompt_format: PromptFormat, tokenizer: TextTokenizer, context: int,
                 tasks: Sequence[str]) -> tuple[EncodedSet, int]:
    """The training rows and then the validation rows as one set, and how many of its conversations are training rows."""
    train, validation = (encode_conversations(parts[part], prompt_format, tokenizer, context, tasks) for part in PARTS)
    whole = EncodedSet(tuple(tasks), context, joined_stores([train.store, validation.store]), train.read + validation.read,
                       train.faults + validation.faults)
    return whole, train.store.conversations


def with_reading(facts: dict[str, Any], read: int, dropped: dict[str, int]) -> dict[str, Any]:
    """Counts of encoding, with what was dropped while reading before it: `read == kept + sum(dropped)` holds for both together."""
    return {**facts, "read": read, "dropped": {**dropped, **{reason: count + dropped.get(reason, 0)
                                                             for reason, count in facts["dropped"].items()}}}


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
