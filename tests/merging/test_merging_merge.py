"""A merged folder: PEFT's bits, plain transformers reads it, inputs are checked, whole or not at all."""

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from merging_folders import lora_tensors, partials, read_weights, write_adapter, write_llama
from peft import PeftModel
from transformers import AutoModelForCausalLM

from mft.errors import CheckFailed, ModelError, OutputError
from mft.files import check_manifest
from mft.merging import MergeResult, merge
from mft.merging.config import MergeOptions

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def peft_merged(base: Path, adapter: Path, dtype: torch.dtype, *, safe_merge: bool = False) -> dict[str, torch.Tensor]:
    """PEFT's `merge_and_unload` of a base held in `dtype` with its fp32 adapter."""
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=dtype), str(adapter))
    assert {parameter.dtype for name, parameter in model.named_parameters() if "lora_" in name} == {torch.float32}
    return model.merge_and_unload(safe_merge=safe_merge).state_dict()


def assert_equal_bits(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "merged"


def test_bits_are_those_of_pefts_unsafe_merge_onto_a_bf16_base(llama: Path, lora: Path, out: Path) -> None:
    result = merge(llama, lora, out, MergeOptions(shard_size="150KB"))
    assert_equal_bits(read_weights(out), peft_merged(llama, lora, torch.bfloat16))
    assert (result.tensors, result.merged) == (21, 14)
    assert len(list(out.glob("model-*.safetensors"))) > 1


def test_bits_are_not_those_of_pefts_safe_merge(llama: Path, lora: Path, out: Path) -> None:
    """safe_merge=True rounds the delta before it is added: the two calls of PEFT differ, and ours is the first."""
    merge(llama, lora, out, MergeOptions())
    found, safe = read_weights(out), peft_merged(llama, lora, torch.bfloat16, safe_merge=True)
    assert any(not torch.equal(found[name], safe[name]) for name in safe)


@pytest.mark.parametrize("dtype", ["fp16", "fp32"])
def test_bits_are_pefts_in_the_other_dtypes(tmp_path: Path, lora: Path, out: Path, dtype: str) -> None:
    base = write_llama(tmp_path / "base", dtype=DTYPES[dtype])
    merge(base, lora, out, MergeOptions(dtype=dtype))
    assert_equal_bits(read_weights(out), peft_merged(base, lora, DTYPES[dtype]))


def test_bits_are_pefts_with_rank_stabilised_lora(llama: Path, tmp_path: Path, out: Path) -> None:
    adapter = write_adapter(tmp_path / "a", use_rslora=True)
    merge(llama, adapter, out, MergeOptions())
    assert_equal_bits(read_weights(out), peft_merged(llama, adapter, torch.bfloat16))
    plain = merge(llama, write_adapter(tmp_path / "b"), tmp_path / "plain", MergeOptions())
    assert plain.max_abs_diff is not None
    assert not torch.equal(read_weights(out)["model.layers.0.mlp.up_proj.weight"],
                           read_weights(tmp_path / "plain")["model.layers.0.mlp.up_proj.weight"])


def test_bits_are_pefts_with_an_adapter_saved_in_bf16(llama: Path, tmp_path: Path, out: Path) -> None:
    adapter = write_adapter(tmp_path / "a", {name: tensor.bfloat16() for name, tensor in lora_tensors().items()})
    merge(llama, adapter, out, MergeOptions())
    assert_equal_bits(read_weights(out), peft_merged(llama, adapter, torch.bfloat16))


def test_tensors_that_the_adapter_does_not_touch_are_the_bases(llama: Path, tmp_path: Path, out: Path) -> None:
    tensors = {name: tensor for name, tensor in lora_tensors().items() if "layers.1.self_attn.q_proj" in name}
    result = merge(llama, write_adapter(tmp_path / "a", tensors), out, MergeOptions())
    base, merged = read_weights(llama), read_weights(out)
    assert base.keys() == merged.keys()
    assert [name for name in base if not torch.equal(base[name], merged[name])] == ["model.layers.1.self_attn.q_proj.weight"]
    assert result.merged == 1


def test_plain_transformers_reads_it_and_its_logits_are_pefts(llama: Path, lora: Path, out: Path) -> None:
    merge(llama, lora, out, MergeOptions())
    merged = AutoModelForCausalLM.from_pretrained(out)
    assert merged.dtype == torch.bfloat16
    peft = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(llama, dtype=torch.bfloat16), str(lora)).merge_and_unload()
    ids = torch.arange(2, 34)[None]
    with torch.no_grad():
        assert torch.equal(merged(ids).logits, peft(ids).logits)


def test_the_config_names_the_dtype_written_and_no_quantisation(tmp_path: Path, llama: Path, lora: Path, out: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(llama, base)
    config = json.loads((base / "config.json").read_text()) | {"torch_dtype": "bfloat16", "quantization_config": {"quant_method": "x"}}
    (base / "config.json").write_text(json.dumps(config))
    merge(base, lora, out, MergeOptions(dtype="fp16", verify="none"))
    written = json.loads((out / "config.json").read_text())
    assert written == {key: value for key, value in config.items() if key != "quantization_config"} | {
        "dtype": "float16", "torch_dtype": "float16"}


def test_the_result_is_returned_and_written_and_the_manifest_holds(llama: Path, lora: Path, out: Path) -> None:
    result = merge(llama, lora, out, MergeOptions())
    assert isinstance(result, MergeResult)
    assert json.loads((out / "merge.json").read_text()) == result.to_json()
    assert result.to_json().keys() >= {"tensors", "merged", "max_abs_diff", "tolerance", "reference", "kl", "top1_agreement",
                                       "peak_rss_bytes", "anonymous_bytes", "seconds", "verify"}
    assert 0 < result.max_abs_diff <= result.tolerance
    assert (result.kl, result.top1_agreement, result.verify) == (None, None, "layers")
    manifest = check_manifest(out)
    assert manifest["base_files"] == {path.name: sha256(path) for path in [llama / "config.json", *llama.glob("*.safetensors")]}
    assert manifest["adapter_files"]["adapter_model.safetensors"] == sha256(lora / "adapter_model.safetensors")
    assert manifest["options"]["dtype"] == "bf16"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_progress_counts_every_byte_once_for_each_pass(llama: Path, lora: Path, tmp_path: Path) -> None:
    size = sum(tensor.nbytes for tensor in read_weights(llama).values())
    for verify, passes in (("none", 1), ("layers", 2)):
        calls: list[tuple[int, int]] = []
        merge(llama, lora, tmp_path / verify, MergeOptions(verify=verify), progress=lambda *call, calls=calls: calls.append(call))
        assert calls[-1] == (passes * size, passes * size)
        assert [done for done, _ in calls] == sorted(done for done, _ in calls)


def with_facts(adapter: Path, folder: Path, **facts: Any) -> Path:
    shutil.copytree(adapter, folder)
    plain = {"base": "some/base", "base_files": {}, "format": "", "context": 128, "quantization": {"type": "nf4"}}
    (folder / "mft.json").write_text(json.dumps(plain | facts))
    return folder


def test_the_base_that_the_adapter_was_trained_on_is_accepted(llama: Path, lora: Path, tmp_path: Path, out: Path) -> None:
    hashes = {path.name: sha256(path) for path in [llama / "config.json", *llama.glob("*.safetensors")]}
    merge(llama, with_facts(lora, tmp_path / "a", base_files=hashes), out, MergeOptions(verify="none"))
    assert check_manifest(out)["base"] == "some/base"


@pytest.mark.parametrize("file", ["config.json", "model-00002-of-00003.safetensors"])
def test_another_base_than_the_adapters_is_refused_by_file(llama: Path, lora: Path, tmp_path: Path, out: Path, file: str) -> None:
    hashes = {path.name: sha256(path) for path in [llama / "config.json", *llama.glob("*.safetensors")]}
    base = tmp_path / "base"
    shutil.copytree(llama, base)
    content = bytearray((base / file).read_bytes())
    if file == "config.json":
        content += b" "   # the same JSON
    else:
        content[-2] ^= 1   # one bit of one weight
    (base / file).write_bytes(content)
    with pytest.raises(ModelError, match=f"{file}: differs from the base that the adapter was trained on"):
        merge(base, with_facts(lora, tmp_path / "a", base_files=hashes), out, MergeOptions())
    assert not out.exists()
    with pytest.raises(ModelError, match=r"gone\.safetensors: is missing; it is part of the base"):
        merge(llama, with_facts(lora, tmp_path / "b", base_files={"gone.safetensors": "0"}), out, MergeOptions())


@pytest.mark.parametrize("text", ["{", "[]", '{"base": "x"}'])
def test_a_damaged_note_of_the_base_is_refused(llama: Path, lora: Path, tmp_path: Path, out: Path, text: str) -> None:
    adapter = with_facts(lora, tmp_path / "a")
    (adapter / "mft.json").write_text(text)
    with pytest.raises(ModelError, match=r"mft.json: damaged"):
        merge(llama, adapter, out, MergeOptions())


def test_quantised_base_weights_are_refused(tmp_path: Path, llama: Path, lora: Path, out: Path) -> None:
    from safetensors.torch import save_file

    base = tmp_path / "base"
    base.mkdir()
    save_file(read_weights(llama) | {"model.layers.0.mlp.up_proj.absmax": torch.ones(3, dtype=torch.uint8)}, base / "model.safetensors")
    config = json.loads((llama / "config.json").read_text()) | {"quantization_config": {"quant_method": "bitsandbytes"}}
    (base / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"is quantised \(bitsandbytes; 'model.layers.0.mlp.up_proj.absmax' is U8\)"):
        merge(base, lora, out, MergeOptions())


def test_an_output_that_holds_something_is_kept_unless_overwritten(llama: Path, lora: Path, out: Path) -> None:
    out.mkdir()
    (out / "note.txt").write_text("mine")
    with pytest.raises(OutputError, match="exists and is not empty"):
        merge(llama, lora, out, MergeOptions())
    assert (out / "note.txt").read_text() == "mine"
    merge(llama, lora, out, MergeOptions(verify="none"), overwrite=True)
    assert not (out / "note.txt").exists()
    check_manifest(out)


def test_the_inputs_are_never_overwritten(llama: Path, lora: Path) -> None:
    for out in (llama, lora, llama.parent):
        with pytest.raises(OutputError, match="is or holds the"):
            merge(llama, lora, out, MergeOptions(), overwrite=True)


def test_a_failed_check_leaves_no_output(llama: Path, lora: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scale: float, *, total: torch.Tensor, out: torch.Tensor) -> None:
        out.copy_(weight)

    monkeypatch.setattr("mft.merging.arithmetic.add_delta", wrong)
    with pytest.raises(CheckFailed):
        merge(llama, lora, out, MergeOptions())
    assert not out.exists()
    assert partials(out.parent) == []


def test_killed_half_way_there_is_no_output_and_a_second_run_succeeds(llama: Path, lora: Path, out: Path) -> None:
    code = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        from mft.merging import merge
        from mft.merging.config import MergeOptions

        def progress(done, total):
            if done > total / 2:
                print("half", flush=True)
                time.sleep(60)

        base, adapter, out = map(Path, sys.argv[1:])
        merge(base, adapter, out, MergeOptions(shard_size="50KB", verify="none"), progress=progress)
    """)
    process = subprocess.Popen([sys.executable, "-c", code, llama, lora, out], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "half\n"
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not out.exists()
    assert len(partials(out.parent)) == 1
    merge(llama, lora, out, MergeOptions())
    check_manifest(out)
    assert partials(out.parent) == []
