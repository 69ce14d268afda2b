"""The bytes of a file, plain or packed with gzip or Zstandard, up to where it is damaged."""

import gzip
import io
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pyarrow as pa

from mft.errors import DataError

CHUNK = 1 << 20
READ_AHEAD = 1 << 18
"""More bytes than gzip and pyarrow take of a packed file at once (128 and 64 KiB); of a piece with a fault in it they give nothing."""
GZIP_HEADER = 10
"""Bytes: so many gzip must get at once, if it asks for no more."""
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
    done = 0
    with path.open("rb") as packed, gzip.GzipFile(fileobj=packed) as stream:
        try:
            while piece := stream.read1(CHUNK):
                done += len(piece)
                yield piece
        except zlib.error:
            with _Trickle(path, packed.tell() - READ_AHEAD) as slow, gzip.GzipFile(fileobj=slow) as again:
                yield _until_fault(again.read1, done, CHUNK)
            raise


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
            with _Trickle(path, packed.tell() - READ_AHEAD) as slow, pa.CompressedInputStream(slow, "zstd") as again:
                yield _until_fault(again.read, done, 1)
            if "truncated" in str(error).lower():
                raise StreamFault("truncated_zst", "the file ends too early") from error
            raise StreamFault("damaged_zst", str(error)) from error


class _Trickle(io.FileIO):
    """A file that from byte `fast` on gives one byte at a time, so that all before a fault is unpacked before the fault is met."""

    def __init__(self, path: Path, fast: int) -> None:
        super().__init__(path)
        self._fast = fast

    def read(self, size: int | None = -1) -> bytes:
        wanted = CHUNK if size is None or size < 0 else size
        if wanted > GZIP_HEADER:
            wanted = max(1, min(wanted, self._fast - self.tell()))
        return super().read(wanted) or b""


def _until_fault(read: Callable[[int], bytes], done: int, size: int) -> bytes:
    """What can be read from byte `done` up to the fault, asking for `size` bytes each time."""
    out = bytearray()
    try:
        while done:
            done -= len(read(min(done, CHUNK)))
        while piece := read(size):
            out += piece
    except (OSError, EOFError, zlib.error):
        pass
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
