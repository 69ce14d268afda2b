"""What goes wrong with a merge is one clear message of the user's kind, and nothing half-written stays."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from merging_folders import lora_tensors, partials, write_adapter

from mft.cli.main import run_verb
from mft.merging import steps

FACTS = {"base": "some/base", "format": "", "context": 128, "quantization": {"type": "none"}}


def merge_fails(capsys: pytest.CaptureFixture[str], base: Path, adapter: Path, out: Path) -> str:
    """`mft merge` must end with exit code 2 and one JSON object on stdout; returns its message."""
    code = run_verb("merge", ["--base", str(base), "--adapter", str(adapter), "--out", str(out)], {"json": 1})
    answer = json.loads(capsys.readouterr().out)
    assert (code, answer["ok"], answer["exit_code"]) == (2, False, 2)
    assert not out.exists()
    if out.parent.is_dir():
        assert partials(out.parent) == []
    return str(answer["error"])


@pytest.fixture
def base(llama: Path, tmp_path: Path) -> Path:
    """A copy of the random base that a test may damage."""
    return Path(shutil.copytree(llama, tmp_path / "base"))


def test_a_missing_shard_is_named(capsys: pytest.CaptureFixture[str], base: Path, lora: Path, tmp_path: Path) -> None:
    (base / "model-00002-of-00003.safetensors").unlink()
    message = merge_fails(capsys, base, lora, tmp_path / "out")
    assert message == f"{base}: model.safetensors.index.json names 3 files, but model-00002-of-00003.safetensors is missing"


def test_a_truncated_shard_is_named(capsys: pytest.CaptureFixture[str], base: Path, lora: Path, tmp_path: Path) -> None:
    path = base / "model-00002-of-00003.safetensors"
    size = path.stat().st_size
    os.truncate(path, size - 1000)
    message = merge_fails(capsys, base, lora, tmp_path / "out")
    assert message == f"{path}: has {size - 1000} bytes where its header asks for {size}; download or copy the file again"


def test_a_wrong_base_is_named_by_its_files(capsys: pytest.CaptureFixture[str], base: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter")
    (adapter / "mft.json").write_text(json.dumps(FACTS | {"base_files": {"config.json": "0", "model-00001-of-00003.safetensors": "0"}}))
    message = merge_fails(capsys, base, adapter, tmp_path / "out")
    said = "differs from the base that the adapter was trained on (some/base)"
    assert message.splitlines() == [f"{base / name}: {said}" for name in ("config.json", "model-00001-of-00003.safetensors")]


def test_an_adapter_for_other_shapes_is_named(capsys: pytest.CaptureFixture[str], base: Path, tmp_path: Path) -> None:
    tensors = lora_tensors()
    name = "base_model.model.model.layers.0.mlp.up_proj.lora_B.weight"
    adapter = write_adapter(tmp_path / "adapter", tensors | {name: torch.ones(128, 8)})
    message = merge_fails(capsys, base, adapter, tmp_path / "out")
    assert message == (f"{adapter}: does not fit this base:\n"
                       "  'model.layers.0.mlp.up_proj.weight' is [160, 64] in the base, [128, 64] in the adapter")


def test_bin_weights_are_refused_with_the_command_that_converts_them(capsys: pytest.CaptureFixture[str], base: Path, lora: Path,
                                                                     tmp_path: Path) -> None:
    for path in base.glob("model*"):
        path.unlink()
    (base / "pytorch_model.bin").touch()
    message = merge_fails(capsys, base, lora, tmp_path / "out")
    assert message == f"{base}: has only pytorch_model.bin; convert the weights first: mft convert --model {base} --out FOLDER"


def mounted(folder: Path, options: str) -> None:
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 128 KB; the merged weights are 3 times as large."""
    folder = tmp_path / "disk"
    mounted(folder, "size=128k")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_without_room_is_refused_before_a_byte_is_written(capsys: pytest.CaptureFixture[str], base: Path, lora: Path,
                                                                 small_disk: Path) -> None:
    message = merge_fails(capsys, base, lora, small_disk / "out")
    assert message.startswith(f"{small_disk}: has 0.000131 GB free, and 0.000")
    assert list(small_disk.iterdir()) == []


def test_a_disk_that_gets_full_meanwhile_is_told_and_left_clean(capsys: pytest.CaptureFixture[str], base: Path, lora: Path,
                                                                small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "check_space", lambda folder, num_bytes: None)
    message = merge_fails(capsys, base, lora, small_disk / "out")
    assert message == f"{small_disk}: the disk is full; the merged weights need as much space as the base"
    assert list(small_disk.iterdir()) == []


def test_a_read_only_output_is_told(capsys: pytest.CaptureFixture[str], base: Path, lora: Path, tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    mounted(folder, "size=128k,ro")
    try:
        message = merge_fails(capsys, base, lora, folder / "out")
    finally:
        subprocess.run(["umount", str(folder)], check=True)
    assert message == f"{folder / 'out'}: cannot be made: Read-only file system"


def test_a_value_too_large_for_fp16_is_named(capsys: pytest.CaptureFixture[str], base: Path, tmp_path: Path) -> None:
    tensors = {name: tensor * 1e4 for name, tensor in lora_tensors().items()}
    adapter = write_adapter(tmp_path / "adapter", tensors)
    arguments = ["--base", str(base), "--adapter", str(adapter), "--out", str(tmp_path / "out"), "--dtype", "fp16"]
    assert run_verb("merge", arguments, {"json": 1}) == 2
    assert "a value is not finite in F16; it is too large for fp16: merge with dtype bf16" in json.loads(capsys.readouterr().out)["error"]
    assert partials(tmp_path) == []


def test_the_verb_takes_several_adapters_with_weights(capsys: pytest.CaptureFixture[str], base: Path, lora: Path, tmp_path: Path) -> None:
    other = write_adapter(tmp_path / "other", lora_tensors(seed=5))
    arguments = ["--base", str(base), "--adapter", str(lora), "--adapter", str(other), "--weight", "0.5", "--weight", "-0.25",
                 "--out", str(tmp_path / "out")]
    assert run_verb("merge", arguments, {"json": 1}) == 0
    result = json.loads(capsys.readouterr().out)
    assert [entry["weight"] for entry in result["adapters"]] == [0.5, -0.25]
    assert result.keys() >= {"tensors", "merged", "max_abs_diff", "kl", "peak_rss_bytes", "seconds", "reference", "tolerance", "onto",
                             "from_trained"}
