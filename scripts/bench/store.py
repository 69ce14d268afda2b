"""How long it takes to open a token store, what that holds in memory, and to gather a packed row.

    python scripts/bench/store.py [--samples 600000] [--mean 300] [--context 4096] [--json]

Makes a store of random ids with lognormal lengths in a temporary folder, then opens it in a fresh process: time and memory are
those of `read_tokens` alone, after everything is imported. A second opening, at another context, shows that nothing is encoded.
Rows are gathered in random order, ids and labels as int64 tensors (`mft.tokenization.collate.gather`).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

READER = """
import json, random, statistics, sys, time
from pathlib import Path
import psutil
from mft.tokenization.collate import gather
from mft.tokenization.packing import pack
from mft.tokenization.store import read_tokens
folder, context = Path(sys.argv[1]), int(sys.argv[2])
me = psutil.Process()
def anonymous():
    return me.memory_full_info().uss
out, before = {}, anonymous()
for name, longest in (("open", context), ("open at half the context", context // 2)):
    start = time.perf_counter()
    encoded = read_tokens(folder, longest)
    out[name] = {"seconds": time.perf_counter() - start, "samples": len(encoded.samples), "uss_mb": (anonymous() - before) / 1e6}
encoded = read_tokens(folder, context)
start = time.perf_counter()
rows = pack(encoded.samples.lengths.tolist(), context)
out["pack"] = {"seconds": time.perf_counter() - start, "rows": len(rows)}
random.Random(0).shuffle(rows)
times = []
for row in rows[:2000]:
    start = time.perf_counter()
    gather(encoded.samples, row)
    times.append((time.perf_counter() - start) * 1e6)
out["gather"] = {"median_us": statistics.median(times), "p90_us": sorted(times)[1800], "samples_a_row": len(encoded.samples) / len(rows)}
print(json.dumps(out))
"""


def make_store(folder: Path, samples: int, mean: float, context: int) -> int:
    """Write a store of random ids; returns its tokens."""
    from collections import Counter

    import numpy as np

    from mft.tokenization.store import EncodedSet, write_tokens
    from mft.tokenization.token_store import RECORD, TokenStore

    generator = np.random.default_rng(0)
    lengths = np.clip(generator.lognormal(np.log(mean) - 0.32, 0.8, samples).round(), 4, context).astype(np.int64)
    names = [f"row/{index:07d}".encode() for index in range(samples)]
    records = np.zeros(samples, dtype=RECORD)
    records["tokens"], records["trained"], records["span_count"], records["name_bytes"] = lengths, lengths - lengths // 2, 1, len(names[0])
    records["start"] = np.cumsum(lengths) - lengths
    records["spans"] = records["conversation"] = np.arange(samples)
    records["name"] = np.arange(samples) * len(names[0])
    records["task"] = np.arange(samples) % 9
    ids = generator.integers(3, 32000, int(lengths.sum()), dtype=np.uint16)
    spans = np.stack([lengths // 2, lengths], axis=1).astype("<i4")
    store = TokenStore(ids, spans, np.frombuffer(b"".join(names), dtype="u1"), records)
    write_tokens(folder, EncodedSet(tuple("abcdefghi"), context, store, samples, Counter()), {})
    return int(lengths.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=600_000)
    parser.add_argument("--mean", type=float, default=300)
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "store")
        tokens = make_store(folder, options.samples, options.mean, options.context)
        size = sum(path.stat().st_size for path in folder.iterdir())
        rounds = [json.loads(subprocess.run([sys.executable, "-c", READER, str(folder), str(options.context)], check=True,
                                            capture_output=True, text=True).stdout) for _ in range(options.rounds)]
    facts = {"samples": options.samples, "tokens": tokens, "bytes": size} | {
        part: {key: statistics.median(one[part][key] for one in rounds) for key in rounds[0][part]} for part in rounds[0]}
    if options.json:
        print(json.dumps(facts))
        return
    print(f"{options.samples:,} samples, {tokens:,} tokens, {size / 1e6:,.0f} MB on disk; medians of {options.rounds} processes")
    for part in ("open", "open at half the context", "pack", "gather"):
        print(f"{part:<26}" + ", ".join(f"{key} {value:,.3f}" for key, value in facts[part].items()))


if __name__ == "__main__":
    main()
