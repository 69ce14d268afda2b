"""A base in NF4 that is read from disk is the base quantised, to the bit; what is damaged or of another base is never used."""

import json
import logging
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import bitsandbytes
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from mft.errors import OutputError
from mft.modeling import quantized_cache
from mft.modeling.adapters import add_adapter
from mft.modeling.config import AdapterConfig, QuantizationConfig
from mft.modeling.load import load_base, load_model
from mft.modeling.quantized_cache import QuantizedCache

NF4 = QuantizationConfig()
WORKER = Path(__file__).with_name("cache_worker.py")


@pytest.fixture
def base(small_llama, tmp_path):
    return shutil.copytree(small_llama, tmp_path / "base")


@pytest.fixture
def cache(tmp_path):
    return QuantizedCache(tmp_path / "cache", tmp_path / "hashes.json")


def bits(model):
    """Every number that a model computes with, those of its quantised layers included."""
    found = dict(model.state_dict(keep_vars=True)) | {f"buffer {name}": buffer for name, buffer in model.named_buffers()}
    for name, weight in model.named_parameters():
        if (state := getattr(weight, "quant_state", None)) is not None:
            found |= {f"{name} {key}": value for key, value in state.as_dict(packed=True).items()}
            found |= {f"{name} absmax": state.absmax, f"{name} code": state.code}
            if state.nested:
                found |= {f"{name} offset": state.offset, f"{name} outer": state.state2.absmax, f"{name} outer code": state.state2.code}
            found[f"{name} sizes"] = torch.tensor([*state.shape, state.blocksize, state.state2.blocksize if state.nested else 0])
    return found


def logits(model):
    with torch.no_grad():
        return model(input_ids=torch.arange(3, 90).unsqueeze(0), use_cache=False).logits


def assert_equal(one, other):
    ours, theirs = bits(one), bits(other)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name].dtype != theirs[name].dtype or not torch.equal(ours[name], theirs[name])] == []
    assert torch.equal(logits(one), logits(other))
    assert one.config.to_dict() == other.config.to_dict()
    assert one.generation_config.to_dict() == other.generation_config.to_dict()
    assert one.name_or_path == other.name_or_path


def entries(cache):
    return sorted(path for path in cache.folder.iterdir() if not path.name.startswith("."))


@pytest.fixture
def quantised(monkeypatch):
    """Shapes of the weights that were quantised since the test began."""
    shapes, own = [], bitsandbytes.functional.quantize_4bit

    def noted(weight, *arguments, **options):
        shapes.append(tuple(weight.shape))
        return own(weight, *arguments, **options)

    monkeypatch.setattr("bitsandbytes.functional.quantize_4bit", noted)
    return shapes


@pytest.mark.parametrize("settings", [
    NF4, QuantizationConfig(double_quant=False), QuantizationConfig(compute_dtype="fp32"),
    QuantizationConfig(double_quant=False, compute_dtype="fp16")], ids=lambda each: f"{each.double_quant}-{each.compute_dtype}")
def test_a_base_read_from_the_cache_equals_the_quantised_one_to_the_bit(base, cache, quantised, settings):
    fresh = load_base(base, settings)
    made = load_base(base, settings, cache=cache)
    assert len(quantised) == 2 * 14
    read = load_base(base, settings, cache=cache)
    assert len(quantised) == 2 * 14
    assert sum("offset" in name for name in bits(fresh)) == 14 * settings.double_quant
    assert_equal(fresh, made)
    assert_equal(fresh, read)


def test_an_adapter_on_a_read_base_gets_the_same_gradients_and_names_the_base(base, cache, tmp_path):
    load_base(base, NF4, cache=cache)
    gradients = []
    for where in (None, cache):
        model = add_adapter(load_base(base, NF4, cache=where), AdapterConfig(rank=2, dropout=0.0), seed=1).train()
        assert model.peft_config["default"].base_model_name_or_path == str(base)
        ids = torch.arange(3, 60).unsqueeze(0)
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        gradients.append({name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad})
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])
    model.save_pretrained(tmp_path / "adapter")
    adapter = load_model(tmp_path / "adapter", cache=cache)
    assert torch.equal(logits(adapter), logits(load_model(tmp_path / "adapter")))


def test_changed_weights_of_the_same_size_and_time_are_quantised_anew_and_the_log_says_what_changed(base, cache, quantised, caplog):
    load_base(base, NF4, cache=cache)
    weights, times = load_file(base / "model.safetensors"), (base / "model.safetensors").stat()
    weights["model.layers.0.self_attn.q_proj.weight"] *= 2
    save_file(weights, base / "other.safetensors", metadata={"format": "pt"})
    os.utime(base / "other.safetensors", ns=(times.st_atime_ns, times.st_mtime_ns))
    (base / "other.safetensors").replace(base / "model.safetensors")
    assert (base / "model.safetensors").stat().st_size == times.st_size
    quantised.clear()
    with caplog.at_level(logging.INFO):
        changed = load_base(base, NF4, cache=cache)
    assert len(quantised) == 14
    assert len(entries(cache)) == 2
    assert "was made with other files, and is not used" in caplog.text
    assert_equal(changed, load_base(base, NF4))


def test_other_settings_versions_and_devices_are_other_entries(base, cache, monkeypatch):
    load_base(base, NF4, cache=cache)
    load_base(base, QuantizationConfig(double_quant=False), cache=cache)
    load_base(base, QuantizationConfig(compute_dtype="fp32"), cache=cache)
    assert len(entries(cache)) == 3
    with monkeypatch.context() as patched:
        patched.setattr(quantized_cache, "version", lambda name: "0.0")
        load_base(base, NF4, cache=cache)
    monkeypatch.setattr(quantized_cache, "_kind_of", lambda device: "cuda 9.0")
    load_base(base, NF4, cache=cache)
    assert len(entries(cache)) == 5


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "model.safetensors is damaged": lambda entry: flip(entry / "model.safetensors"),
    "config.json is damaged": lambda entry: (entry / "config.json").write_text("{}"),
    "model.safetensors is missing": lambda entry: (entry / "model.safetensors").unlink(),
    "model-2.safetensors does not belong there": lambda entry: shutil.copy(entry / "model.safetensors", entry / "model-2.safetensors"),
    "entry.json is damaged": lambda entry: (entry / "entry.json").write_text("{"),
    "entry.json speaks of another base": lambda entry: (entry / "entry.json").write_text(
        (entry / "entry.json").read_text().replace('"double_quant": true', '"double_quant": false')),
}


@pytest.mark.parametrize("said", DAMAGES)
def test_a_damaged_entry_is_said_and_made_anew(base, cache, quantised, caplog, said):
    fresh = load_base(base, NF4, cache=cache)
    [entry] = entries(cache)
    DAMAGES[said](entry)
    quantised.clear()
    again = load_base(base, NF4, cache=cache)
    assert len(quantised) == 14
    assert f"{entry}: {said}; the base is quantised anew" in caplog.text
    assert_equal(fresh, again)
    assert_equal(fresh, load_base(base, NF4, cache=cache))
    assert len(quantised) == 14
    assert entries(cache) == [entry]


def test_neither_base_nor_entry_is_read_for_its_hash_where_nothing_changed(base, cache, monkeypatch):
    load_base(base, NF4, cache=cache)
    monkeypatch.setattr("mft.modeling.stamps.sha256_of", lambda path: pytest.fail(f"{path} was read again"))
    load_base(base, NF4, cache=cache)


def test_an_entry_that_is_there_is_read_where_nothing_can_be_written(base, cache, monkeypatch):
    load_base(base, NF4, cache=cache)
    monkeypatch.setattr(quantized_cache, "locked", lambda path: pytest.fail("a lock was asked for"))
    monkeypatch.setattr("mft.files.Path.mkdir", lambda *a, **k: pytest.fail("a folder was made"))
    load_base(base, NF4, cache=cache)


def test_a_cache_that_cannot_be_written_is_one_message(base, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"model\.quantized_cache: .*/file/cache: cannot be written: Not a directory"):
        load_base(base, NF4, cache=QuantizedCache(tmp_path / "file" / "cache", tmp_path / "hashes.json"))


def test_a_full_disk_is_one_message_with_the_sizes_and_leaves_nothing(base, cache, monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(1000))
    with pytest.raises(OutputError, match=r"takes 0\.0 GB, and 0\.0 GB are free; make room, or set model\.quantized_cache"):
        load_base(base, NF4, cache=cache)
    assert entries(cache) == []


def test_a_generation_config_that_transformers_would_not_write_is_kept_as_it_is(base, cache):
    (base / "generation_config.json").write_text(json.dumps({"do_sample": False, "temperature": 0.2, "eos_token_id": 2}))
    fresh = load_base(base, NF4)
    assert fresh.generation_config.temperature == 0.2
    load_base(base, NF4, cache=cache)
    assert_equal(fresh, load_base(base, NF4, cache=cache))


def test_a_tied_head_stays_tied(base, cache):
    model = LlamaForCausalLM.from_pretrained(base)
    model.config.tie_word_embeddings = True
    model.tie_weights()
    model.save_pretrained(base)
    fresh = load_base(base, NF4, cache=cache)
    read = load_base(base, NF4, cache=cache)
    assert read.lm_head.weight is read.model.embed_tokens.weight
    assert_equal(fresh, read)


def test_a_base_that_is_not_quantised_leaves_the_cache_alone(base, cache):
    load_base(base, QuantizationConfig(type="none"), cache=cache)
    assert not cache.folder.exists()


def test_the_files_of_an_entry_may_be_read_by_whoever_may_read_its_config(base, cache):
    load_base(base, NF4, cache=cache)
    [entry] = entries(cache)
    assert len({path.stat().st_mode for path in entry.iterdir()}) == 1


def process(base, cache, *options):
    return subprocess.Popen([sys.executable, str(WORKER), str(base), str(cache.folder), str(cache.stamps), *options],
                            stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


@pytest.mark.slow
def test_of_two_processes_one_quantises_and_the_other_reads(base, cache):
    both = [process(base, cache, "together") for _ in range(2)]
    assert sorted(each.communicate(timeout=300)[0].split()[-1] for each in both) == ["quantised", "read"]
    assert len(entries(cache)) == 1


@pytest.mark.slow
def test_a_process_that_is_killed_while_it_writes_leaves_no_entry_and_the_next_one_sweeps_up(base, cache, quantised):
    killed = process(base, cache, "killed")
    killed.communicate(timeout=300)
    assert killed.returncode == -9
    assert entries(cache) == []
    assert len(list(cache.folder.glob(".*.partial"))) == 1
    fresh = load_base(base, NF4, cache=cache)
    assert len(quantised) == 14
    assert list(cache.folder.glob(".*.partial")) == []
    assert_equal(fresh, load_base(base, NF4, cache=cache))
    assert len(quantised) == 14
