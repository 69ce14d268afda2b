"""A full disk while a run writes: one message with the numbers, whatever the library that met it said."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mft.errors import OutputError

FULL = (errno.ENOSPC, errno.EDQUOT)
WORDS = ("no space left on device", "disk quota exceeded")
"""What safetensors says of it, whose exceptions have no errno."""

TORCH_WORDS = ("file write failed", "unexpected pos")
"""What torch.save says when its file cannot be written, for whatever reason."""

NEXT_TO_NOTHING = 1 << 26
"""Free bytes below which a file that torch.save could not write is taken for a full disk."""


@contextmanager
def full_disk_named(folder: Path, what: str, needed_bytes: int | None = None) -> Iterator[None]:
    """Turn a full disk inside the block into one message. `what` was being written to `folder`; `needed_bytes`: its size, if known.

    Raises:
        OutputError: the disk, or the user's quota on it, is full. Other errors pass.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        if not _is_full_disk(error, folder):
            raise
        raise OutputError(_message(folder, what, needed_bytes)) from error
    except Exception as error:
        # safetensors raises an exception of its own, derived from Exception.
        if type(error).__name__ != "SafetensorError" or not _is_full_disk(error, folder):
            raise
        raise OutputError(_message(folder, what, needed_bytes)) from error


def size_bytes(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _message(folder: Path, what: str, needed_bytes: int | None) -> str:
    needed = f"it needs about {_size(needed_bytes)}, and " if needed_bytes else ""
    return (f"{folder}: the disk is full, {what} could not be written: {needed}{_size(shutil.disk_usage(folder).free)} are free; what was "
            "written before is whole; make room, or lower training.keep_last, and start the same command again")


def _is_full_disk(error: BaseException, folder: Path) -> bool:
    """Also for an error that another one led to, as when torch.save closes the file that it could not write."""
    seen: BaseException | None = error
    while seen is not None:
        text = str(seen).lower()
        if (isinstance(seen, OSError) and seen.errno in FULL) or any(words in text for words in WORDS):
            return True
        if any(words in text for words in TORCH_WORDS) and shutil.disk_usage(folder).free < NEXT_TO_NOTHING:
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _size(number: int) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.1f} MB"
