"""Files that others may have written: a JSON object, the lines of a text. What is wrong with one is a message."""

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

from mft.errors import DataError


def read_object(path: Path, *, missing_ok: bool = False) -> dict[str, Any]:
    """The JSON object in a file; with `missing_ok` {} where there is no file.

    Raises:
        DataError: it is not JSON, or no object.
    """
    if missing_ok and not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: holds {type(value).__name__}, expected a JSON object")
    return value


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, plain or .gz, without their ends.

    Raises:
        DataError: no such file, it is damaged, or not UTF-8.
    """
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start}") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    return text.split("\n")     # not splitlines: U+2028 may stand inside a string
