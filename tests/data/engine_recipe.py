"""A recipe with every kind of step and several shards a task, and a script that builds it, for the tests of the engine."""

import json
import random
from pathlib import Path

from python_module import module_text

RECIPE = """\
name: sharded
seed: 3
tasks:
  chat:
    sources: [{type: jsonl, path: "chat/*.jsonl"}, {type: parquet, path: table.parquet, converter: pairs}]
    steps: [{type: repetition}, {type: cap, by: user, rows: 1}, {type: length, max_characters: 900}, {type: sample, rows: 700}]
  rare: {sources: [{type: jsonl, path: rare.jsonl}], steps: [{type: language, keep: [en]}]}
  code: {sources: [{type: python_code, path: src, make: text2code}]}
  usage: {sources: [{type: python_code, path: src, make: usage, join_below: {rows: 1000, files: 1, task: code}}]}
steps: [{type: normalise, apply: [newlines, nbsp]}, {type: length, min_characters: 6}, {type: exact_dedup},
        {type: syntax}, {type: near_dedup, threshold: 0.9}]
mixture: {type: temperature, temperature: 2, max_epochs: 2}
split: {validation: 0.1, by: id}
"""

BUILD = """\
import sys
from pathlib import Path
import mft.data.engine.plan as plan
from mft.data import build
from mft.data.engine.config import Engine

if __name__ == "__main__":
    plan.PIECE_BYTES, plan.PIECE_ROWS, plan.CHUNK = 12_000, 100, 500
    print(build(sys.argv[1], sys.argv[2], engine=Engine(workers=int(sys.argv[3]), shard_rows=400)).facts["sha256"])
"""


def small_pieces(monkeypatch):
    """Cut files of some kilobytes, so that a few thousand short rows are many shards."""
    import mft.data.engine.plan as plan

    for name, value in (("PIECE_BYTES", 12_000), ("PIECE_ROWS", 100), ("CHUNK", 500)):
        monkeypatch.setattr(plan, name, value)


def write_recipe(folder: Path) -> Path:
    """The recipe and its files: two of JSON lines that are cut, with ids that repeat, odd rows and duplicates; Parquet; code."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    draw = random.Random(1)
    words = [f"{first}{second}" for first in "abcdefghij" for second in ("ction", "nder", "lor", "mest", "ple")]

    def text(number):
        return " ".join(draw.choice(words) for _ in range(number))

    def line(name, question, answer):
        return json.dumps({"id": name, "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]})

    (folder / "chat").mkdir(parents=True)
    questions, long = [text(12) for _ in range(400)], text(60)
    for number, file in enumerate(("a.jsonl", "b.jsonl")):
        rows = [line(n % 350, questions[n], f"{text(10)}\r\n{number}") for n in range(400)]
        rows += [line(n, questions[n], "the very same answer") for n in range(30)]
        rows += [line(f"long{n}", long, f"{long} {text(1)}") for n in range(10)]
        rows += [line("odd", f"half\u00a0space {text(4)}", text(5)), "{broken", "", line("fence", "q" * 9, "```python\ndef (\n```"), "[1]"]
        draw.shuffle(rows)
        ends = "\r\n" if number else "\n"
        start = "" if number else "\ufeff"
        (folder / "chat" / file).write_bytes((start + ends.join(rows) + ends).encode())
    table = [{"prompt": text(9), "answer": text(9), "id": str(n)} for n in range(500)]
    pq.write_table(pa.Table.from_pylist(table), folder / "table.parquet", row_group_size=60)
    (folder / "rare.jsonl").write_text("\n".join(line("same", "的" if n % 5 == 0 else text(6), text(6)) for n in range(60)) + "\n")
    (folder / "src").mkdir()
    for n in range(20):
        (folder / "src" / f"m{n}.py").write_text(module_text(n))
    (folder / "src" / "broken.py").write_text("def f(:\n")
    path = folder / "sharded.yaml"
    path.write_text(RECIPE)
    return path
