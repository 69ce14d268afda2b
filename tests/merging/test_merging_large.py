"""A merge of 1.1B weights: bounded memory, PEFT's bits."""

import importlib.util
import json
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoModelForCausalLM

ROOT = Path(__file__).resolve().parents[2]
GIGABYTE = 1_000_000_000


def bench() -> ModuleType:
    """scripts/bench/merge.py, which writes random models shard by shard."""
    spec = importlib.util.spec_from_file_location("bench_merge", ROOT / "scripts" / "bench" / "merge.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def large_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that is removed at once: pytest keeps the last three of its own, and this one has 4.4 GB."""
    with TemporaryDirectory(dir=tmp_path) as folder:
        yield Path(folder)


MERGE = textwrap.dedent("""
    import sys
    from pathlib import Path
    import torch
    import mft.merging.arithmetic, mft.merging.folder, mft.merging.verify
    from mft.merging import merge
    from mft.merging.config import MergeOptions

    print("loaded", flush=True)
    sys.stdin.readline()
    merge(*map(Path, sys.argv[1:]), MergeOptions(shard_size="500MB"))
""")


def anonymous_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:")), 0)


def merge_in_a_process(base: Path, adapter: Path, out: Path) -> int:
    """Merge and return the largest anonymous memory above that of the loaded interpreter, seen from outside."""
    process = subprocess.Popen([sys.executable, "-c", MERGE, base, adapter, out], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "loaded\n"
    start = peak = anonymous_bytes(process.pid)
    process.stdin.write("go\n")
    process.stdin.close()
    wait = threading.Event()
    while process.poll() is None:
        peak = max(peak, anonymous_bytes(process.pid))
        wait.wait(0.01)
    assert process.returncode == 0
    return peak - start


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell anonymous memory")
def test_a_billion_weights_merge_in_bounded_memory_to_pefts_bits(large_folder: Path) -> None:
    base, adapter, out = large_folder / "base", large_folder / "adapter", large_folder / "out"
    script = bench()
    script.write_random_llama(base, **script.LLAMA_1B)
    script.write_random_adapter(adapter, base)

    anonymous = merge_in_a_process(base, adapter, out)
    result = json.loads((out / "merge.json").read_text())
    assert anonymous < GIGABYTE
    assert result["anonymous_bytes"] < GIGABYTE
    assert result["peak_rss_bytes"] < 1.5 * GIGABYTE
    assert (result["tensors"], result["merged"]) == (201, 154)
    assert 0 < result["max_abs_diff"] <= result["tolerance"]

    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16), str(adapter))
    wanted = model.merge_and_unload(safe_merge=False).state_dict()
    found = 0
    for path in sorted(out.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118  not a dict
                assert torch.equal(file.get_tensor(name), wanted[name]), name
                found += 1
    assert found == len(wanted) == 201
