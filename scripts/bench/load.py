"""Time and memory of loading a base in NF4: quantised, against read from the cache of `model.quantized_cache`, in turns (A B A B).

    python scripts/bench/load.py --work /var/tmp/bench                    # a random model of TinyLlama's shape, 1.1B
    python scripts/bench/load.py --work /var/tmp/bench --base B           # yours

Each load is a process of its own; libraries are imported before its clock starts. `load`: until `load_base` returns, what the cache checks
included. `ready`: and the first 8 tokens have gone through, which brings in weights that are mapped only. `anonymous`: growth of the
process's own memory until then, at its peak. `rss`: its largest resident memory, with the imports and with the mapped files. The files are
in the page cache where they fit, for both. `first` quantises and writes the entry. Hashing the base, which a start with stamps does not do,
is timed apart. All logits must be equal to the bit. What was made in `--work` is removed after.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "3000")

import torch
from merge import SHAPES, write_random_llama

from mft.files import sync_folder
from mft.hashes import sha256_text
from mft.merging.memory import MemoryWatch
from mft.modeling.config import QuantizationConfig
from mft.modeling.load import load_base
from mft.modeling.quantized_cache import QuantizedCache
from mft.modeling.stamps import STAMPS
from mft.training.job import base_file_hashes

NUMBERS = {"load_s": "load", "ready_s": "ready", "cpu_s": "CPU", "anonymous_gb": "anonymous", "rss_gb": "rss"}


def measure(base: Path, work: Path, *, cached: bool) -> dict[str, Any]:
    """One load in this process."""
    cache = QuantizedCache(work / "cache", work / STAMPS) if cached else None
    with MemoryWatch() as memory:
        start, cpu = time.perf_counter(), time.process_time()
        model = load_base(base, QuantizationConfig(), cache=cache)
        loaded = time.perf_counter() - start
        with torch.no_grad():
            logits = model(input_ids=torch.arange(3, 11, device=model.device).unsqueeze(0), use_cache=False).logits
        digest = sha256_text(repr(logits.float().flatten().tolist()))
        ready = time.perf_counter() - start
    return {"load_s": loaded, "ready_s": ready, "cpu_s": time.process_time() - cpu, "anonymous_gb": memory.grown_bytes / 1e9,
            "rss_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, "logits": digest}


def in_a_process(base: Path, work: Path, mode: str) -> dict[str, Any]:
    """What `measure` says in a fresh process, with the load of the machine."""
    command = [sys.executable, __file__, "--child", mode, "--base", str(base), "--work", str(work)]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    numbers = json.loads(told.stdout.splitlines()[-1])
    figures = "".join(f"  {name} {numbers[key]:6.2f}" for key, name in NUMBERS.items())
    print(f"  {mode:<10}{figures}  (load {os.getloadavg()[0]:.1f})", flush=True)
    return dict(numbers)


def time_hashes(base: Path, work: Path) -> None:
    """Seconds to hash the base, without and with what an earlier start has left."""
    for name, stamps in (("read", None), ("stamped", work / STAMPS)):
        start = time.perf_counter()
        base_file_hashes(base, stamps)
        print(f"  hashes, {name}: {time.perf_counter() - start:.4f} s")


def compare(base: Path, work: Path, rounds: int) -> None:
    """The entry is made, then both ways in turns; prints medians and their ratios."""
    runs = [in_a_process(base, work, "first")]
    pairs = [(in_a_process(base, work, "quantised"), in_a_process(base, work, "read")) for _ in range(rounds)]
    time_hashes(base, work)
    if len({run["logits"] for run in [*runs, *(run for pair in pairs for run in pair)]}) != 1:
        sys.exit("the logits differ")
    entry = sum(path.stat().st_size for path in (work / "cache").rglob("*") if path.is_file())
    weights = sum(path.stat().st_size for path in base.glob("*.safetensors"))
    print(f"base {weights / 1e9:.2f} GB, entry {entry / 1e9:.2f} GB; logits equal to the bit")
    for key, name in NUMBERS.items():
        quantised, read = (statistics.median(run[key] for run in side) for side in zip(*pairs, strict=True))
        ratios = sorted(ours[key] / theirs[key] for theirs, ours in pairs)
        print(f"{name:<10} quantised {quantised:7.2f}  read {read:7.2f}  ratio {statistics.median(ratios):.3f} "
              f"({ratios[0]:.3f} to {ratios[-1]:.3f})")


def main() -> None:
    """Read the command line and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--base", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="1.1b")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", choices=("first", "quantised", "read"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        print(json.dumps(measure(asked.base, asked.work, cached=asked.child != "quantised")))
        return
    asked.work.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="load-", dir=asked.work))
    try:
        base = asked.base
        if base is None:
            base = work / "base"
            write_random_llama(base, **SHAPES[asked.shape])
            sync_folder(base)
        compare(base, work, asked.rounds)
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
