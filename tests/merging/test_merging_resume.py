"""A killed merge leaves no output, and goes on after its finished files where base, adapter and options are the same."""

import json
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from merging_folders import lora_tensors, partials, read_weights, write_adapter, write_llama

from mft.errors import CheckFailed, OutputError
from mft.files import check_manifest, resumable_folder
from mft.merging import merge
from mft.merging.config import MergeOptions

OPTIONS = {"shard_size": "50KB", "verify": "none"}
SLOW_MERGE = textwrap.dedent("""
    import json, sys, time
    from pathlib import Path
    from mft.merging import blocks, merge
    from mft.merging.config import MergeOptions

    blocks.QUEUED_BLOCKS = 1   # a merge that stands still in `progress` works on no further block meanwhile
    base, adapter, out = map(Path, sys.argv[1:4])
    options, stop, pause = json.loads(sys.argv[4]), float(sys.argv[5]), float(sys.argv[6])

    def progress(done, total):
        time.sleep(pause)
        if done > total * stop:
            print("there", flush=True)
            time.sleep(60)

    print("ready", flush=True)
    merge(base, adapter, out, MergeOptions(**options), progress=progress)
    print("done", flush=True)
""")


def start(base: Path, adapter: Path, out: Path, *, stop: float = 2.0, pause: float = 0.0, **options: str) -> subprocess.Popen[str]:
    arguments = [base, adapter, out, json.dumps(OPTIONS | options), str(stop), str(pause)]
    process = subprocess.Popen([sys.executable, "-c", SLOW_MERGE, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                               text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def kill_half_way(base: Path, adapter: Path, out: Path) -> Path:
    """Kill a merge after half of its bytes; returns what it left."""
    process = start(base, adapter, out, stop=0.6)
    assert process.stdout is not None
    assert process.stdout.readline() == "there\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    (left,) = partials(out.parent)
    assert not out.exists()
    return out.parent / left


def test_a_killed_merge_goes_on_after_its_finished_files(llama: Path, lora: Path, tmp_path: Path) -> None:
    left = kill_half_way(llama, lora, tmp_path / "out")
    finished = {path.name: path.stat().st_ino for path in left.glob("model-*.safetensors")}
    sizes = sum(path.stat().st_size for path in left.glob("model-*.safetensors"))
    assert len(finished) > 1
    result = merge(llama, lora, tmp_path / "out", MergeOptions(shard_size="50KB"))
    written = {path.name: path.stat().st_ino for path in (tmp_path / "out").glob("model-*.safetensors")}
    assert finished.items() < written.items()
    assert 0.9 * sizes < result.resumed_bytes < sizes     # without the headers
    assert partials(tmp_path) == []
    check_manifest(tmp_path / "out")
    whole = merge(llama, lora, tmp_path / "whole", MergeOptions(shard_size="50KB"))
    assert whole.resumed_bytes == 0
    for path in (tmp_path / "whole").glob("*.safetensors"):
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes()


@pytest.mark.parametrize("other", ["base", "adapter", "options"])
def test_another_base_adapter_or_option_begins_anew(llama: Path, lora: Path, tmp_path: Path, other: str) -> None:
    base, adapter, options = llama, lora, OPTIONS
    if other == "base":
        base = tmp_path / "base"
        shutil.copytree(llama, base)
        config = json.loads((base / "config.json").read_text())
        (base / "config.json").write_text(json.dumps(config | {"rope_theta": 5.0}))
    if other == "adapter":
        adapter = write_adapter(tmp_path / "adapter", lora_tensors(seed=2))
    if other == "options":
        options = OPTIONS | {"dtype": "fp16"}
    out = tmp_path / "x" / "out"
    left = kill_half_way(llama, lora, out)
    assert merge(base, adapter, out, MergeOptions.model_validate(options | {"verify": "layers"})).resumed_bytes == 0
    assert not left.exists()


def test_a_finished_file_that_was_changed_since_is_found(llama: Path, lora: Path, tmp_path: Path) -> None:
    left = kill_half_way(llama, lora, tmp_path / "out")
    path = min(left.glob("model-*.safetensors"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckFailed):
        merge(llama, lora, tmp_path / "out", MergeOptions(shard_size="50KB"))
    assert not (tmp_path / "out").exists()
    assert partials(tmp_path) == []


def test_a_merge_that_had_ended_gives_its_result_again(llama: Path, lora: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = merge(llama, lora, out, MergeOptions())
    stamp = (out / "model.safetensors").stat().st_mtime_ns
    assert merge(llama, lora, out, MergeOptions()) == first
    assert (out / "model.safetensors").stat().st_mtime_ns == stamp
    with pytest.raises(OutputError, match="exists and is not empty"):
        merge(llama, lora, out, MergeOptions(dtype="fp16"))
    (out / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(OutputError, match="exists and is not empty"):
        merge(llama, lora, out, MergeOptions())


def test_two_processes_at_the_same_merge_do_not_meet(llama: Path, lora: Path, tmp_path: Path) -> None:
    process = start(llama, lora, tmp_path / "out", stop=0.3)
    assert process.stdout is not None
    assert process.stdout.readline() == "there\n"
    with pytest.raises(OutputError, match="another process is making it"):
        merge(llama, lora, tmp_path / "out", MergeOptions.model_validate(OPTIONS))
    assert len(partials(tmp_path)) == 1
    process.kill()
    process.wait()


def end_by(error: type[BaseException], out: Path) -> None:
    with resumable_folder(out, "0123456789abcdef0") as partial:
        (partial / "a").write_text("a")
        raise error


def test_an_interruption_keeps_what_is_written_and_a_fault_does_not(tmp_path: Path) -> None:
    for error, kept in ((KeyboardInterrupt, 1), (ValueError, 0)):
        with pytest.raises(error):
            end_by(error, tmp_path / "out")
        assert len(partials(tmp_path)) == kept
        assert not (tmp_path / "out").exists()
    with resumable_folder(tmp_path / "out", "0123456789abcdef0") as partial:
        assert not (partial / "a").exists()
    assert (tmp_path / "out").is_dir()


@pytest.mark.slow
def test_killed_at_ten_random_moments_there_is_no_output_or_a_whole_one_and_a_rerun_finishes(tmp_path: Path) -> None:
    base = write_llama(tmp_path / "base")
    adapter = write_adapter(tmp_path / "adapter")
    wanted = tmp_path / "wanted"
    began = time.monotonic()
    process = start(base, adapter, wanted, pause=0.02)
    process.wait()
    seconds = time.monotonic() - began
    chance = random.Random(7)
    ended = 0
    for number in range(10):
        out = tmp_path / f"out{number}" / "merged"
        process = start(base, adapter, out, pause=0.02)
        time.sleep(chance.uniform(0, seconds * 0.8))
        process.kill()
        process.wait()
        if out.exists():
            check_manifest(out)
            ended += 1
        merge(base, adapter, out, MergeOptions.model_validate(OPTIONS))
        check_manifest(out)
        assert partials(out.parent) == []
        found, expected = read_weights(out), read_weights(wanted)
        assert {name: tensor.tolist() for name, tensor in found.items()} == {name: tensor.tolist() for name, tensor in expected.items()}
    assert ended < 10
