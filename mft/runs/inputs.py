"""What `mft data` works on: a built folder or a file of rows, read and encoded."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from mft.config.yaml import parse_yaml
from mft.conversation import Conversation
from mft.data.ledger import Ledger
from mft.data.pipeline import PARTS, read_built
from mft.data.readers.conversations import read_conversations
from mft.errors import DataError, ModelError, OutputError
from mft.files import MANIFEST, read_json
from mft.modeling.base import resolve_base
from mft.tokenization.compatibility import format_for
from mft.tokenization.load import load_tokenizer
from mft.tokenization.store import encode_in_turn, statistics, write_jsonl, write_tokens

ANY_LENGTH = 1 << 40


@dataclass(frozen=True, slots=True)
class OpenInput:
    """What is read as it is needed: once, from a file. `ledger` is filled in meanwhile.

    `parts`: the training rows and the validation rows of a built folder, or all rows of a file.
    """

    parts: tuple[Iterable[Conversation], ...]
    ledger: Ledger

    @property
    def rows(self) -> Iterator[Conversation]:
        """All of them, in order."""
        return chain.from_iterable(self.parts)


def open_input(source: Path, converter: str) -> OpenInput:
    """The conversations of a built folder (both parts) or of a file of rows; reading a file drops rows with a reason, in the ledger.

    `converter` is a name, or a mapping as in a recipe: `{type: fields, user: "{{ java }}", assistant: "{{ cs }}"}`.

    Raises:
        DataError: neither, or the folder holds no row; while it is read: the file holds no row that can be used, for these reasons.
        ConfigError: the mapping is no YAML.
    """
    ledger = Ledger(source.name)
    if source.is_dir():
        parts = read_built(source)
        ledger.read = ledger.kept = sum(map(len, parts.values()))
        if not ledger.read:
            raise DataError(f"{source}: no row is left: the input is empty")
        return OpenInput(tuple(parts[part] for part in PARTS), ledger)
    if not source.is_file():
        raise DataError(f"{source}: {'is a pipe or a device, not a file' if source.exists() else 'no such file or folder'}")
    choice = parse_yaml(converter, "--converter").data if converter.lstrip().startswith("{") else converter
    return OpenInput((_to_the_end(read_conversations(source, choice, ledger), ledger),), ledger)


def _to_the_end(rows: Iterator[Conversation], ledger: Ledger) -> Iterator[Conversation]:
    yield from rows
    ledger.close()


def encode_input(source: Path, format_name: str, tokenizer: str, context: int, converter: str, *, out: Path | None,
                 jsonl: Path | None, overwrite: bool) -> dict[str, Any]:
    """`mft data encode`: the counts of reading and encoding together. Rows are read as they are encoded.

    Raises:
        OutputError: neither or both of `out` and `jsonl`; they exist and `overwrite` is False, or are no output of this command.
    """
    if (out is None) == (jsonl is None):
        raise OutputError("give one of --out DIR and --jsonl PATH")
    if out is not None:
        _check_folder(out, overwrite)
    if jsonl is not None:
        _check_file(jsonl, source, overwrite)
    loaded = load_tokenizer(resolve_tokenizer(tokenizer))
    prompt_format = format_for(format_name, loaded)
    opened = open_input(source, converter)
    if jsonl is not None:
        encoded = write_jsonl(jsonl, opened.rows, prompt_format, loaded, context)
    else:
        encoded, ends = encode_in_turn(opened.parts, prompt_format, loaded, context)
        built = read_json(source / MANIFEST) if source.is_dir() else {}
        write_tokens(out or Path(), encoded, {
            "input": str(source), "format": prompt_format.reference, "tokenizer_sha256": loaded.sha256,
            "reading": dict(opened.ledger.dropped), "train_conversations": ends[0], "mixture": built.get("mixture"),
        }, replace=overwrite)
    return with_reading(statistics(encoded), opened.ledger.read, dict(opened.ledger.dropped))


def _check_folder(out: Path, overwrite: bool) -> None:
    """Before anything is encoded: is the folder free, or what this command wrote and may replace?"""
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out}: is a file, not a folder")
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not overwrite:
        raise OutputError(f"{out}: exists and is not empty; give another --out, or --overwrite to start anew")
    if not holds_tokens(out):
        raise OutputError(f"{out}: holds files that no `mft data encode --out` has written, which --overwrite does not remove; "
                          "give another --out, or remove them")


def _check_file(jsonl: Path, source: Path, overwrite: bool) -> None:
    if jsonl.is_dir():
        raise OutputError(f"{jsonl}: is a folder, not a file")
    if jsonl.exists() and source.exists() and jsonl.samefile(source):
        raise OutputError(f"{jsonl}: is the input; give another --jsonl")
    if jsonl.exists() and not overwrite:
        raise OutputError(f"{jsonl}: exists; give another --jsonl, or --overwrite")


def holds_tokens(folder: Path) -> bool:
    """True of a folder that `mft data encode --out` wrote."""
    try:
        return "statistics" in read_json(folder / MANIFEST)
    except (OSError, ValueError, TypeError):
        return False


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
