"""Work that is written down piece by piece, so that work which was killed goes on where it was."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mft.errors import DataError
from mft.files import write_faults


class Journal:
    """A file of JSON lines that only grows. A line that a killed process left unfinished is cut off when the file is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = list(_read(path)) if path.is_file() else []

    def append(self, rows: Sequence[dict[str, Any]]) -> None:
        """Add rows; they are in the file when this returns, all of them or, where the process is killed, the first few."""
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        with write_faults(self.path), self.path.open("a", encoding="utf-8", errors="surrogatepass") as stream:
            stream.write(text)
        self.rows += rows


def _read(path: Path) -> Iterator[dict[str, Any]]:
    content = path.read_bytes()
    whole = content[:content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        with path.open("r+b") as stream:
            stream.truncate(len(whole))
    for number, line in enumerate(whole.decode("utf-8", "surrogatepass").split("\n")[:-1], start=1):
        try:
            yield json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}:{number}: is damaged: {error}; remove the folder, or --overwrite, to start anew") from error
