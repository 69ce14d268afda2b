"""`mft convert`: the numbers of the .bin files, no pickle is run, whole or not at all."""

import json
import os
import pickle
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file as load_safetensors
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from mft.cli.main import run_verb
from mft.errors import CheckFailed, MftError, ModelError, OutputError
from mft.files import check_manifest
from mft.merging.writer import ShardWriter
from mft.release.convert import convert
from mft.release.pickled import read_pickled_model


def write_pickled(folder: Path, *, tied: bool = False, shards: int = 1) -> dict[str, torch.Tensor]:
    """A random Llama in .bin files, written without transformers; returns its tensors."""
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=320, hidden_size=64, intermediate_size=160, num_hidden_layers=2, num_attention_heads=4,
                                         num_key_value_heads=2, tie_word_embeddings=tied)).bfloat16()
    model.config.save_pretrained(folder)
    tensors = dict(model.state_dict()) | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.arange(8.0)}
    if shards == 1:
        torch.save(tensors, folder / "pytorch_model.bin")
        return tensors
    names = list(tensors)
    weight_map = {name: f"pytorch_model-{number % shards + 1:05d}-of-{shards:05d}.bin" for number, name in enumerate(names)}
    for file in set(weight_map.values()):
        torch.save({name: tensors[name] for name in names if weight_map[name] == file}, folder / file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return tensors


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in load_safetensors(path).items()}


def partials(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.endswith(".partial")]


def assert_same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("shards", [1, 3])
def test_every_number_and_small_file_is_taken_over(tmp_path: Path, shards: int) -> None:
    tensors = write_pickled(tmp_path / "bin", shards=shards)
    (tmp_path / "bin" / "tokenizer.json").write_text("{}")
    (tmp_path / "bin" / "modeling_own.py").write_text("code")
    result = convert(tmp_path / "bin", tmp_path / "out", shard_bytes=100_000)
    assert_same(read_weights(tmp_path / "out"), tensors)
    assert (result.tensors, result.compared, result.left_out) == (22, 22, {})
    assert len(result.files) > 1
    names = {path.name for path in (tmp_path / "out").iterdir()} - set(result.files)
    assert names == {"config.json", "tokenizer.json", "generation_config.json", "manifest.json", "model.safetensors.index.json"} & names
    assert "tokenizer.json" in names
    assert (tmp_path / "out" / "config.json").read_bytes() == (tmp_path / "bin" / "config.json").read_bytes()
    manifest = check_manifest(tmp_path / "out")
    assert len(manifest["source_files"]) == shards + 1


def test_plain_transformers_loads_the_same_model(tmp_path: Path) -> None:
    tensors = write_pickled(tmp_path / "bin")
    convert(tmp_path / "bin", tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, tensors[name]), name


def test_a_tied_head_is_written_once(tmp_path: Path) -> None:
    tensors = write_pickled(tmp_path / "bin", tied=True)
    result = convert(tmp_path / "bin", tmp_path / "out")
    assert result.left_out == {"lm_head.weight": "model.embed_tokens.weight"}
    del tensors["lm_head.weight"]
    assert_same(read_weights(tmp_path / "out"), tensors)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.equal(model.lm_head.weight, tensors["model.embed_tokens.weight"])


def test_shared_memory_that_the_config_does_not_tie_is_written_for_each_name(tmp_path: Path) -> None:
    tensors = write_pickled(tmp_path / "bin", tied=True)
    config = json.loads((tmp_path / "bin" / "config.json").read_text())
    (tmp_path / "bin" / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    assert convert(tmp_path / "bin", tmp_path / "out").left_out == {}
    assert_same(read_weights(tmp_path / "out"), tensors)


def test_views_of_a_larger_memory_are_written_as_what_they_show(tmp_path: Path) -> None:
    write_pickled(tmp_path / "bin")
    large = torch.arange(64.0).view(8, 8)
    torch.save({"a": large[2:4], "b": large.T, "c": torch.empty(0)}, tmp_path / "bin" / "pytorch_model.bin")
    convert(tmp_path / "bin", tmp_path / "out")
    assert_same(read_weights(tmp_path / "out"), {"a": large[2:4], "b": large.T, "c": torch.empty(0)})


def test_another_dtype_is_rounded_once_and_an_overflow_is_refused(tmp_path: Path) -> None:
    tensors = write_pickled(tmp_path / "bin")
    convert(tmp_path / "bin", tmp_path / "out", dtype="fp16")
    assert_same(read_weights(tmp_path / "out"), {name: tensor.half() for name, tensor in tensors.items()})
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "float16"
    tensors["model.norm.weight"][5] = 1e6
    torch.save(tensors, tmp_path / "bin" / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"'model.norm.weight': a value is too large for F16"):
        convert(tmp_path / "bin", tmp_path / "large", dtype="fp16")
    assert not (tmp_path / "large").exists()
    assert partials(tmp_path) == []


class Runs:
    """A pickle of it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def bad_files(folder: Path) -> dict[str, bytes]:
    torch.save({"a": Runs(folder / "was-run")}, folder / "code.pt")
    torch.save({"state_dict": {"a": torch.ones(2)}}, folder / "nested.pt")
    torch.save([torch.ones(2)], folder / "list.pt")
    torch.save({"a": torch.ones(2, dtype=torch.complex64)}, folder / "complex.pt")
    torch.save({"a": torch.ones(2)}, folder / "old.pt", _use_new_zipfile_serialization=False)
    torch.save({"a": torch.ones(2)}, folder / "whole.pt")
    return {name: (folder / f"{name}.pt").read_bytes() for name in ("code", "nested", "list", "complex", "old", "whole")}


@pytest.mark.parametrize(("kind", "message"), [
    ("code", r"pytorch_model\.bin: holds more than tensors .*may run code and is not read"),
    ("nested", r"entry 'state_dict' is a dict, not a tensor"),
    ("list", "holds a list; tensors by name are needed"),
    ("complex", r"tensor 'a' is torch.complex64"),
    ("old", "PyTorch's format before 1.6"),
    ("truncated", r"pytorch_model\.bin: not a whole PyTorch file"),
    ("pickle", r"pytorch_model\.bin: (not a whole PyTorch file|is in PyTorch's format before)"),
    ("empty", r"pytorch_model\.bin: (not a whole PyTorch file|is in PyTorch's format before)")])
def test_files_that_are_no_weights_are_refused_with_what_is_wrong(tmp_path: Path, kind: str, message: str) -> None:
    write_pickled(tmp_path / "bin")
    files = bad_files(tmp_path) | {"pickle": pickle.dumps({"a": 1}), "empty": b""}
    files["truncated"] = files["whole"][:-40]
    (tmp_path / "bin" / "pytorch_model.bin").write_bytes(files[kind])
    with pytest.raises(ModelError, match=message):
        convert(tmp_path / "bin", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert partials(tmp_path) == []
    assert not (tmp_path / "was-run").exists()


def test_missing_files_and_tensors_are_named(tmp_path: Path) -> None:
    write_pickled(tmp_path / "bin", shards=3)
    (tmp_path / "bin" / "pytorch_model-00002-of-00003.bin").rename(tmp_path / "away")
    with pytest.raises(ModelError, match=r"names 3 files, but pytorch_model-00002-of-00003\.bin is missing"):
        convert(tmp_path / "bin", tmp_path / "out")
    torch.save({}, tmp_path / "bin" / "pytorch_model-00002-of-00003.bin")
    with pytest.raises(ModelError, match=r"has no tensor '.*', though pytorch_model\.bin\.index\.json says so"):
        convert(tmp_path / "bin", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"has neither pytorch_model\.bin nor"):
        read_pickled_model(tmp_path / "empty")
    (tmp_path / "empty" / "model.safetensors").touch()
    with pytest.raises(ModelError, match="are safetensors already"):
        read_pickled_model(tmp_path / "empty")


def test_a_wrong_byte_is_found_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pickled(tmp_path / "bin")
    write = ShardWriter.write

    def wrong(self: ShardWriter, name: str, start: int, data: torch.Tensor) -> None:
        write(self, name, start, torch.bitwise_xor(data, torch.tensor(1, dtype=torch.uint8)) if name == "model.norm.weight" else data)

    monkeypatch.setattr(ShardWriter, "write", wrong)
    with pytest.raises(CheckFailed, match=r"'model.norm.weight': elements 0 to 64 are not those of"):
        convert(tmp_path / "bin", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert partials(tmp_path) == []


def test_an_output_that_holds_something_else_is_kept(tmp_path: Path) -> None:
    write_pickled(tmp_path / "bin")
    first = convert(tmp_path / "bin", tmp_path / "out")
    assert convert(tmp_path / "bin", tmp_path / "out") == first
    with pytest.raises(OutputError, match="exists and is not empty"):
        convert(tmp_path / "bin", tmp_path / "out", dtype="fp32")
    with pytest.raises(OutputError, match="is or holds the model folder"):
        convert(tmp_path / "bin", tmp_path / "bin", overwrite=True)


def test_the_verb_prints_one_json_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pickled(tmp_path / "bin")
    arguments = ["--model", str(tmp_path / "bin"), "--out", str(tmp_path / "out")]
    assert run_verb("convert", arguments, {"json": 1}) == 0
    assert json.loads(capsys.readouterr().out)["tensors"] == 22
    assert run_verb("convert", [*arguments, "--dtype", "fp8"], {"json": 1}) == 2
    assert run_verb("convert", [*arguments, "--shard-size", "5"], {"json": 1}) == 2
    assert "expected keep, bf16, fp16 or fp32" in capsys.readouterr().out


def test_a_mistake_is_an_error_of_the_user() -> None:
    with pytest.raises(MftError, match=r"no such folder|has no config.json"):
        convert(Path("/nowhere/at/all"), Path("/tmp/never-made"))


@pytest.mark.slow
def test_killed_at_random_moments_there_is_no_output_or_a_whole_one_and_a_rerun_finishes(tmp_path: Path) -> None:
    tensors = write_pickled(tmp_path / "bin", shards=3)
    code = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        from mft.release.convert import convert
        print("ready", flush=True)
        convert(Path(sys.argv[1]), Path(sys.argv[2]), shard_bytes=50_000, progress=lambda done, total: time.sleep(0.02))
    """)
    chance = random.Random(3)
    for number in range(10):
        out = tmp_path / f"x{number}" / "out"
        process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "bin"), str(out)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0, 1.2))
        process.send_signal(signal.SIGKILL)
        process.wait()
        if out.exists():
            check_manifest(out)
        convert(tmp_path / "bin", out, shard_bytes=50_000)
        check_manifest(out)
        assert_same(read_weights(out), tensors)
        assert partials(out.parent) == []
