"""The bytes of a file, plain or packed with gzip or Zstandard, up to where it is damaged."""

import gzip
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa

from mft.errors import DataError

CHUNK = 1 << 20
PACKED = {".gz": "gzip", ".zst": "zst", ".zstd": "zst"}
"""Ending of a name -> how the file is packed."""

BOM = b"\xef\xbb\xbf"


class StreamFault(Exception):
    """A packed file that ends too early (`truncated_gzip`, `truncated_zst`) or is damaged (`damaged_gzip`, `damaged_zst`)."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        super().__init__(detail)


def packing_of(path: Path) -> str | None:
    """`gzip`, `zst` or None, by the ending of the name."""
    return PACKED.get(path.suffix.lower())


def chunks(path: Path) -> Iterator[bytes]:
    """The unpacked bytes in pieces; nothing of what can be read before a fault is held back.

    Raises:
        DataError: the file cannot be opened or read. StreamFault: what is packed is cut short or damaged.
    """
    try:
        yield from (_unpacked_zst(path) if packing_of(path) == "zst" else _unpacked_gzip(path) if packing_of(path) else _plain(path))
    except EOFError as error:
        raise StreamFault("truncated_gzip", "the file ends too early") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise StreamFault("damaged_gzip", str(error)) from error
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def _plain(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while piece := stream.read(CHUNK):
            yield piece


def _unpacked_gzip(path: Path) -> Iterator[bytes]:
    with gzip.open(path, "rb") as stream:
        while piece := stream.read1(CHUNK):
            yield piece


def _unpacked_zst(path: Path) -> Iterator[bytes]:
    done = 0
    with path.open("rb") as packed, pa.CompressedInputStream(packed, "zstd") as stream:
        try:
            while piece := stream.read(CHUNK):
                done += len(piece)
                yield piece
        except OSError as error:
            if error.errno is not None:   # of the disk; pyarrow's own faults have no number of the operating system
                raise
            yield _before_fault(path, done)
            if "truncated" in str(error).lower():
                raise StreamFault("truncated_zst", "the file ends too early") from error
            raise StreamFault("damaged_zst", str(error)) from error


def _before_fault(path: Path, done: int) -> bytes:
    """What a damaged file holds between `done` and the fault, byte by byte: pyarrow gives nothing of a piece with a fault in it."""
    out = bytearray()
    with path.open("rb") as packed, pa.CompressedInputStream(packed, "zstd") as stream:
        try:
            while done:
                done -= len(stream.read(min(done, CHUNK)))
            while byte := stream.read(1):
                out += byte
        except OSError:
            return bytes(out)
    return bytes(out)


def lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    r"""Lines with their end, split at `\n` alone; the last one may lack it. Before a fault every whole line is given.

    >>> list(lines([b"a\nb", b"c\r\n", b"d"]))
    [b'a\n', b'bc\r\n', b'd']
    """
    open_line: list[bytes] = []
    for piece in pieces:
        *whole, rest = piece.split(b"\n")
        for line in whole:
            open_line.append(line + b"\n")
            yield b"".join(open_line)
            open_line.clear()
        if rest:
            open_line.append(rest)
    if open_line:
        yield b"".join(open_line)


def read_whole(pieces: Iterable[bytes]) -> tuple[bytes, StreamFault | None]:
    """All bytes, and the fault that ended them, if one did."""
    out: list[bytes] = []
    try:
        out.extend(pieces)
    except StreamFault as fault:
        return b"".join(out), fault
    return b"".join(out), None


def is_utf16(start: bytes) -> bool:
    """True for the start of a UTF-16 or UTF-32 file: its byte order mark, or a NUL beside each of the first two signs."""
    if start[:2] in (b"\xff\xfe", b"\xfe\xff") or start[:4] == b"\x00\x00\xfe\xff":
        return True
    return len(start) >= 4 and (start[1::2][:2] == b"\0\0" or start[:4:2] == b"\0\0") and start[:4] != b"\0\0\0\0"
