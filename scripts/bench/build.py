"""Time and memory of `mft data build` over many rows: real rows repeated, with a third of their words drawn anew.

    python scripts/bench/build.py --data FOLDER [--rows 150000 300000 600000] [--workers 2] [--near] [--folder TEMPORARY]

FOLDER holds `*.jsonl.gz` files of instructions (rows with `instruction` and `output`). Each build runs in a process of its own. Printed
per build: seconds and rows a second by stage, the peak memory of the parent and of the largest worker, bytes of keys a row by group
step. The content hashes of one number of rows must be equal for all numbers of workers, or the exit is 3.
"""

import argparse
import gzip
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STEPS = "{type: normalise, apply: [newlines, nbsp]}, {type: length, min_characters: 10, max_characters: 20000}, {type: exact_dedup}, " \
        "{type: cap, by: user, rows: 4}, {type: syntax}"
NEAR = ", {type: near_dedup}"
RECIPE = "name: bench\ntasks: {{t: {{sources: [{{type: jsonl, path: rows.jsonl, converter: alpaca}}]}}}}\nsteps: [{steps}]\n" \
         "mixture: {{type: quotas, quotas: {{t: {quota}}}}}\nsplit: {{by: id, validation: 0.02}}\n"
CHILD = """
import json, sys, time
from mft.data import build
from mft.data.engine.config import Engine
if __name__ == "__main__":
    started = time.monotonic()
    built = build(sys.argv[1], sys.argv[2], engine=Engine(workers=int(sys.argv[3])))
    print(json.dumps({**built.usage, "total_s": time.monotonic() - started, "sha256": built.facts["sha256"], "read": built.facts["read"],
                      "kept": built.facts["kept"], "dropped": built.facts["dropped"]}))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, nargs="+", default=[150_000, 300_000, 600_000])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--near", action="store_true", help="with near_dedup, which takes most of the time")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    arguments = parser.parse_args()
    originals = read_originals(arguments.data)
    hashes: dict[int, set[str]] = {}
    for rows in arguments.rows:
        with tempfile.TemporaryDirectory(prefix="mft-bench-", dir=arguments.folder) as place:
            size = write_rows(Path(place) / "rows.jsonl", originals, rows)
            print(f"{rows:,} rows, {size / 1e6:.0f} MB of JSON lines", flush=True)
            for workers in arguments.workers:
                facts = build_once(Path(place), rows, workers, arguments.near)
                hashes.setdefault(rows, set()).add(facts["sha256"])
                show(facts, workers)
    return 0 if all(len(found) == 1 for found in hashes.values()) else 3


def read_originals(folder: Path) -> list[tuple[str, str]]:
    """(instruction, output) of all rows that have them."""
    out = []
    for path in sorted(folder.glob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as stream:
            rows = (json.loads(line) for line in stream)
            out += [(row["instruction"], row["output"]) for row in rows if row.get("instruction") and row.get("output")]
    return out


def write_rows(path: Path, originals: list[tuple[str, str]], rows: int) -> int:
    """Row n is original n (from the start again at the end) with a third of its words drawn from all words; returns the bytes."""
    draw = random.Random(1)
    words = sorted({word for pair in originals[::7] for text in pair for word in text.split(" ")})

    def noisy(text: str) -> str:
        return " ".join(draw.choice(words) if draw.random() < 0.33 else word for word in text.split(" "))

    with path.open("w", encoding="utf-8") as stream:
        for number in range(rows):
            question, answer = originals[number % len(originals)]
            row = {"id": number, "instruction": noisy(question), "input": "", "output": noisy(answer)}
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
    return path.stat().st_size


def build_once(place: Path, rows: int, workers: int, near: bool) -> dict:
    """One build in a fresh process."""
    (place / "recipe.yaml").write_text(RECIPE.format(steps=STEPS + (NEAR if near else ""), quota=rows // 2))
    (place / "run.py").write_text(CHILD)
    shutil.rmtree(place / "out", ignore_errors=True)
    started = time.monotonic()
    done = subprocess.run([sys.executable, place / "run.py", place / "recipe.yaml", place / "out", str(workers)], check=True,
                          capture_output=True, text=True)
    return {**json.loads(done.stdout.splitlines()[-1]), "wall_s": time.monotonic() - started}


def show(facts: dict, workers: int) -> None:
    stages = ", ".join(f"{stage} {seconds:.1f} s" + (f" ({facts['rows'][stage] / seconds:,.0f} rows/s)" if facts["rows"].get(stage) else "")
                       for stage, seconds in facts["seconds"].items())
    keys = ", ".join(f"{step} {size / facts['read']:.0f}" for step, size in facts["key_bytes"].items())
    print(f"  {workers} workers: {facts['wall_s']:.1f} s, {facts['read'] / facts['wall_s']:,.0f} rows/s; {stages}\n"
          f"    peak memory: parent {facts['peak_rss_bytes'] / 1e6:.0f} MB ({facts['peak_rss_bytes'] / facts['read']:.0f} B a row), "
          f"largest worker {facts['worker_peak_rss_bytes'] / 1e6:.0f} MB; key bytes a row: {keys}\n"
          f"    kept {facts['kept']:,}, dropped {facts['dropped']}, sha256 {facts['sha256'][:16]}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
