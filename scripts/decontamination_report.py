"""What `decontaminate` sees in data files, layer by layer: one line of a table a file, and every hit with its evidence.

    python scripts/decontamination_report.py --problems HumanEval.jsonl.gz -- data/*.jsonl.gz
    python scripts/decontamination_report.py --problems humaneval mbpp.jsonl --hits contaminated --sample 10000 -- data/*.jsonl

The data may be JSON lines of any schema: all texts of a row count, each once, in their order. Columns: rows; rows that would be dropped;
hits of each layer, contaminated / only listed; rows a second of CPU time. `--sample N` takes N rows of all files together, those with
the smallest sha256 of file name and line.
"""

import argparse
import gzip
import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mft.conversation import Conversation, Message
from mft.data.decontamination.config import DecontaminateStep
from mft.data.decontamination.detector import Detector
from mft.data.decontamination.layer import Hit
from mft.data.decontamination.step import load_problems


def texts_of(value: Any) -> Iterator[str]:
    """Every text inside parsed JSON, in order."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from texts_of(item)


def read_file(path: Path) -> list[Conversation]:
    """The rows of a file, one message for each of their texts."""
    rows = []
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            texts = dict.fromkeys(texts_of(json.loads(line)))
            rows.append(Conversation(f"{path.name}:{number}", path.name, tuple(Message("user", text) for text in texts)))
    return rows


def sampled(files: dict[str, list[Conversation]], size: int | None) -> dict[str, list[Conversation]]:
    """All rows, or `size` of them, chosen by hash."""
    if size is None:
        return files
    ids = sorted((row.id for rows in files.values() for row in rows), key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    chosen = set(ids[:size])
    return {name: [row for row in rows if row.id in chosen] for name, rows in files.items()}


def table_line(name: str, rows: int, hits: list[tuple[str, Hit]], layers: list[str], seconds: float) -> str:
    """One line of the table."""
    counts = Counter((hit.layer, hit.contaminated) for _, hit in hits)
    dropped = len({row for row, hit in hits if hit.contaminated})
    cells = "".join(f"{f'{counts[layer, True]} / {counts[layer, False]}':>14}" for layer in layers)
    return f"{name:<40}{rows:>8}{dropped:>9}{cells}{rows / seconds if seconds else 0:>9.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("--problems", nargs="+", required=True)
    parser.add_argument("--layers", nargs="+", default=["substring", "ngrams", "structure"])
    parser.add_argument("--drop-share", type=float, default=0.6)
    parser.add_argument("--list-share", type=float, default=0.2)
    parser.add_argument("--sample", type=int)
    parser.add_argument("--hits", choices=["none", "contaminated", "all"], default="none")
    options = parser.parse_args()
    config = DecontaminateStep(type="decontaminate", problems=tuple(options.problems), layers=tuple(options.layers),
                               drop_share=options.drop_share, list_share=options.list_share)
    problems = load_problems(config)
    detector = Detector(problems, config)
    unseen = detector.not_looked_for()
    print(f"{len(problems)} problems", *(f"{name} cannot name {len(missed)}" for name, missed in unseen.items()), sep="; ")
    print(f"{'file':<40}{'rows':>8}{'dropped':>9}" + "".join(f"{layer:>14}" for layer in options.layers) + f"{'rows/s':>9}")
    found: list[tuple[str, Hit]] = []
    total, seconds = 0, 0.0
    for name, rows in sampled({path.name: read_file(path) for path in options.data}, options.sample).items():
        start = time.process_time()
        hits = [(row.id, hit) for row in rows for hit in detector.hits(row)]
        spent = time.process_time() - start
        print(table_line(name, len(rows), hits, options.layers, spent))
        found, total, seconds = found + hits, total + len(rows), seconds + spent
    print(table_line("all", total, found, options.layers, seconds))
    for row, hit in found:
        if options.hits == "all" or (options.hits == "contaminated" and hit.contaminated):
            print(json.dumps(hit.to_json(row), ensure_ascii=False))


if __name__ == "__main__":
    main()
