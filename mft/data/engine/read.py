"""The rows of one shard, and what is said of a file once all of its pieces are read."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mft.conversation import Conversation
from mft.data.config import RecipeConfig
from mft.data.engine.plan import Piece, Shard
from mft.data.ledger import Ledger
from mft.data.readers.conversations import Findings, Reading, conclude, conversations_of_piece
from mft.data.readers.files import place_of
from mft.data.readers.json_lines import read_json_lines
from mft.data.readers.open import BOM, CHUNK
from mft.data.readers.parquet import read_parquet
from mft.data.readers.raw import Rows
from mft.data.source_config import FileSource, ModelscopeSource
from mft.data.sources import Trees, may_be_empty, read_file_of, read_source
from mft.errors import DataError

ONCE_A_FILE = frozenset({"crlf_line_ends"})
"""Notes that a reader makes once for a file: of a file in pieces they count once too."""


def read_shard(recipe: RecipeConfig, shard: Shard, ledger: Ledger, findings: Findings, trees: Trees) -> Iterator[Conversation]:
    """The rows of a shard, counted in `ledger`; of a piece of a file the findings are filled in, a whole file is concluded at once.

    Raises:
        DataError: the source cannot be read, or a whole one gives no row.
    """
    source, piece = recipe.tasks[shard.task].sources[shard.source], shard.piece
    if piece is None or not isinstance(source, FileSource | ModelscopeSource):
        yield from read_source(source, shard.task, ledger, trees)
    elif piece.whole:
        yield from read_file_of(source, piece.label, piece.path, shard.task, ledger)
    else:
        reading = _reading(source, piece, shard.task)
        yield from conversations_of_piece(_raw_rows(piece, ledger), place_of(piece.path, piece.kind), reading, ledger, findings)


def conclude_file(recipe: RecipeConfig, shard: Shard, found: Iterable[Mapping[str, Any]], ledger: Ledger) -> None:
    """What `read_conversations` does at the end of a file, for one whose pieces found this; `shard` is its first piece.

    Raises:
        DataError: no row is usable; a declared column stands in no row.
    """
    source, piece = recipe.tasks[shard.task].sources[shard.source], shard.piece
    assert piece is not None
    assert isinstance(source, FileSource | ModelscopeSource)
    whole = Findings()
    for one in found:
        unfit = one["first_unfit"]
        whole.add(Findings(Counter(one["chosen"]), (unfit[0], unfit[1]) if unfit else None, set(one["seen"]), set(one["unread"]),
                           Counter(one["dropped"]), one["kept"]))
    conclude(whole, place_of(piece.path, piece.kind), _reading(source, piece, shard.task), ledger)


def _reading(source: FileSource | ModelscopeSource, piece: Piece, task: str) -> Reading:
    return Reading(source.converter, piece.label, task, train=source.train, split_key=source.split_key, may_be_empty=may_be_empty(source))


def _raw_rows(piece: Piece, ledger: Ledger) -> Rows:
    place, stop = place_of(piece.path, piece.kind), piece.stop or 0
    if piece.kind == "parquet":
        return read_parquet(piece.path, place, ledger, range(piece.start, stop), piece.first)
    return read_json_lines(_bytes(piece.path, piece.start, stop, ledger), place, ledger, piece.first)


def _bytes(path: Path, start: int, stop: int, ledger: Ledger) -> Iterator[bytes]:
    try:
        with path.open("rb") as stream:
            stream.seek(start)
            while start < stop and (chunk := stream.read(min(CHUNK, stop - start))):
                if not start and chunk.startswith(BOM):
                    ledger.note("byte_order_mark")
                    yield chunk.removeprefix(BOM)
                else:
                    yield chunk
                start += len(chunk)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
