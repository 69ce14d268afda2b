"""The hashes that others publish: `sha256sum` text, and the Markdown table of a model card.

    | Model File                    | SHA256 Value     |        9e556afd...d347  tokenizer.model
    |:-----------------------------:|:----------------:|        8f14e45f...ea1a *config.json
    | tokenizer.model               | 9e556afd...d347  |

Either column may come first, more columns may stand beside them, names and hashes may be in back quotes. A column is one of hashes
where its header says md5, sha, hash or checksum; a hash of 64 hexadecimal digits is a sha256, one of 32 an md5. The card of
CodeFuse-CodeLlama-34B has such a table of md5, that of its 4-bit release one of sha256.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mft.errors import DataError

KINDS = {64: "sha256", 32: "md5"}
DIGEST = re.compile(r"(?:[0-9a-fA-F]{64}|[0-9a-fA-F]{32})")
SUM = re.compile(rf"^(\\?)({DIGEST.pattern})\s[ *](.+)$")
RULE = re.compile(r":?-+:?")
HASHES = re.compile(r"md5|sha|hash|checksum", re.IGNORECASE)
LINK = re.compile(r"\[(.+?)\]\(.*\)")
UNESCAPED = {"\\\\": "\\", "\\n": "\n"}


class Published(NamedTuple):
    """One published hash. `line` is where it stands, from 1."""

    name: str
    kind: str
    digest: str
    line: int


def read_published(path: Path) -> list[Published]:
    """Every hash in a card or a sums file, in order.

    Raises:
        DataError: no such file, it is no text, it holds no hash of a file, or two hashes of one file that differ.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    found = list(published_in(text))
    if not found:
        raise DataError(f"{path}: has no hash of a file; expected a Markdown table with a column of file names and one of md5 (32 "
                        "hexadecimal digits) or sha256 (64), or lines as sha256sum writes them")
    first: dict[tuple[str, str], Published] = {}
    faults = []
    for entry in found:
        earlier = first.setdefault((entry.name, entry.kind), entry)
        if earlier.digest != entry.digest:
            faults.append(f"{path}:{entry.line}: another {entry.kind} of '{entry.name}' than in line {earlier.line}")
    if faults:
        raise DataError("\n".join(faults))
    return list(first.values())


def published_in(text: str) -> Iterator[Published]:
    """The hashes in a text.

    >>> list(published_in("| File | MD5 |\\n|---|:-:|\\n| `a.bin` | d41d8cd98f00b204e9800998ecf8427e |"))
    [Published(name='a.bin', kind='md5', digest='d41d8cd98f00b204e9800998ecf8427e', line=3)]
    """
    previous, columns = "", list[int]()
    for number, line in enumerate(text.splitlines(), 1):
        if match := SUM.match(line.strip()):
            name = re.sub(r"\\\\|\\n", lambda escape: UNESCAPED[str(escape[0])], match[3]) if match[1] else match[3]
            yield Published(name, KINDS[len(match[2])], match[2].lower(), number)
        elif "|" not in line:
            columns = []
        elif all(RULE.fullmatch(cell) for cell in _cells(line)):
            columns = [index for index, cell in enumerate(_cells(previous)) if HASHES.search(cell)]
        else:
            yield from _of_row(_cells(line), columns, number)
        previous = line


def _of_row(cells: list[str], columns: list[int], number: int) -> Iterator[Published]:
    """The hashes in these columns of a row; the name is the first cell that is none."""
    names = [link[1] if (link := LINK.fullmatch(cell)) else cell for cell in cells if cell and not DIGEST.fullmatch(cell)]
    digests = [cells[index] for index in columns if index < len(cells) and DIGEST.fullmatch(cells[index])]
    if names:
        yield from (Published(names[0].strip("`"), KINDS[len(digest)], digest.lower(), number) for digest in digests)


def _cells(row: str) -> list[str]:
    return [cell.strip().strip("`*").strip() for cell in row.strip().removeprefix("|").removesuffix("|").split("|")]
