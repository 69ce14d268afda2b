"""Merging adapters with trained token rows: the rows take their places, everything else is as without them, and faults are found."""

from pathlib import Path

import pytest
import torch
from merging_folders import lora_tensors, read_weights, write_adapter, write_llama
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from mft.errors import CheckFailed, ModelError
from mft.merging import arithmetic, merge
from mft.merging.config import MergeOptions

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
IDS = [3, 64, 319]
"""In the first, the second and the last block of 64 rows."""


def delta(module):
    return f"base_model.model.{module}.token_adapter.trainable_tokens_delta"


def row_tensors(seed=5, shape=(3, 64)):
    generator = torch.Generator().manual_seed(seed)
    return {delta(module): torch.randn(shape, generator=generator) for module in ("model.embed_tokens", "lm_head")}


def with_rows(folder: Path, tensors=None, ids=None, **config) -> Path:
    setting = {"model.embed_tokens": IDS, "lm_head": IDS} if ids is None else ids
    rows = row_tensors() if tensors is None else tensors
    return write_adapter(folder, lora_tensors() | rows, trainable_token_indices=setting, **config)


@pytest.mark.parametrize(("dtype", "torch_dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16), ("fp32", torch.float32)])
def test_rows_take_their_places_and_the_rest_is_as_without_them(llama, lora, tmp_path, dtype, torch_dtype):
    options = MergeOptions(dtype=dtype, verify="layers")
    result = merge(llama, with_rows(tmp_path / "a"), tmp_path / "out", options)
    assert (result.merged, result.tensors) == (16, 21)
    merge(llama, lora, tmp_path / "plain", options)
    found, plain, rows = read_weights(tmp_path / "out"), read_weights(tmp_path / "plain"), row_tensors()
    for name, tensor in plain.items():
        if name in (EMBEDDING, HEAD):
            tensor[IDS] = rows[delta(name.removesuffix(".weight"))].to(torch_dtype)
        assert torch.equal(found[name], tensor), name


def test_the_merge_is_bit_for_bit_that_of_peft_and_passes_by_logits(tmp_path):
    base = write_llama(tmp_path / "base", dtype=torch.float32)
    adapter = with_rows(tmp_path / "a")
    result = merge(base, adapter, tmp_path / "out", MergeOptions(dtype="fp32", verify="logits"))
    assert result.max_abs_diff <= result.tolerance
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(adapter)).merge_and_unload()
    theirs, ours = model.state_dict(), read_weights(tmp_path / "out")
    assert torch.equal(ours[EMBEDDING], theirs[EMBEDDING])
    assert torch.equal(ours[HEAD], theirs[HEAD])


def test_rows_of_a_tied_head_are_those_of_the_embedding(tmp_path):
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=130, hidden_size=64, intermediate_size=96, num_hidden_layers=1, num_attention_heads=4,
                         num_key_value_heads=2, tie_word_embeddings=True)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "base")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), LoraConfig(
        r=4, target_modules=["q_proj"], task_type="CAUSAL_LM", trainable_token_indices={"embed_tokens": [128, 129], "lm_head": [128, 129]}))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name or "trainable_tokens_delta" in name:
                parameter.copy_(torch.randn(parameter.shape) * 0.1)
    model.save_pretrained(tmp_path / "a")
    ids = torch.tensor([[1, 128, 5, 129, 77]])
    merge(tmp_path / "base", tmp_path / "a", tmp_path / "out", MergeOptions(dtype="fp32", verify="logits"))
    with torch.no_grad():
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out")(ids).logits
        assert torch.allclose(merged, model.eval()(ids).logits, atol=1e-4)


@pytest.mark.parametrize("fault", ["rows left out", "a row too many"])
@pytest.mark.parametrize("verify", ["layers", "logits"])
def test_verification_finds_rows_that_are_not_right(llama, tmp_path, monkeypatch, fault, verify):
    put = arithmetic.put_rows

    def wrong(block, rows, values, weight):
        if fault == "a row too many":
            put(block, rows, values, weight)
            weight[0] += 1

    monkeypatch.setattr(arithmetic, "put_rows", wrong)
    with pytest.raises(CheckFailed, match="are neither those of the base nor the trained token rows of the adapter"):
        merge(llama, with_rows(tmp_path / "a"), tmp_path / "out", MergeOptions(verify=verify))
    assert not (tmp_path / "out").exists()


def test_rows_that_equal_the_base_after_merging_are_a_fault(llama, tmp_path):
    tensors = row_tensors()
    tensors[delta("model.embed_tokens")] = read_weights(llama)[EMBEDDING][IDS].float()
    with pytest.raises(CheckFailed, match=r"'model\.embed_tokens\.weight': equals the base after merging"):
        merge(llama, with_rows(tmp_path / "a", tensors), tmp_path / "out", MergeOptions())


NAN = row_tensors() | {delta("lm_head"): torch.full((3, 64), torch.nan)}


@pytest.mark.parametrize(("tensors", "ids", "message"), [
    (None, {"model.embed_tokens": [3, 64, 320], "lm_head": IDS}, r"has 320 rows in the base, and the adapter's go up to 320"),
    (None, {"model.embed_tokens": [3, 64], "lm_head": IDS}, r"is \[3, 64\] of F32; 2 rows"),
    (None, {"model.embed_tokens": [3, 3, 64], "lm_head": IDS}, "expected different whole numbers"),
    (None, {"model.embed_tokens": IDS}, r"'lm_head' has token rows, but .*says trainable_token_indices"),
    (None, {"model.embed_tokens": IDS, "lm_head": IDS, "other": [1]}, "'other': adapter_config.json says trainable_token_indices"),
    ({}, None, r"trainable_token_indices=.*has token rows for no module"),
    ({delta("lm_head"): torch.ones(3, 64)}, None, "'model.embed_tokens': adapter_config.json says"),
    (row_tensors(shape=(3, 32)), None, r"'lm_head.weight' is \[320, 64\] in the base; the adapter has rows of 32"),
    (NAN, None, "values that are not finite"),
    (row_tensors() | {"base_model.model.lm_head.lora_A.weight": torch.ones(8, 64),
                      "base_model.model.lm_head.lora_B.weight": torch.ones(320, 8)}, None,
     "'lm_head.weight' is changed by a LoRA pair and by token rows"),
])
def test_rows_that_do_not_fit_are_refused_by_name(llama, tmp_path, tensors, ids, message):
    with pytest.raises(ModelError, match=message):
        merge(llama, with_rows(tmp_path / "a", tensors, ids), tmp_path / "out", MergeOptions())


def test_rows_that_the_config_does_not_name_are_refused(llama, tmp_path):
    with pytest.raises(ModelError, match=r"trainable_token_indices=None, but .* has token rows for lm_head, model\.embed_tokens"):
        merge(llama, write_adapter(tmp_path / "a", lora_tensors() | row_tensors()), tmp_path / "out", MergeOptions())
