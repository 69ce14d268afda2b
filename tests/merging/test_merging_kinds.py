"""Every kind of LoRA adapter that PEFT writes merges to PEFT's own weights: bit for bit in bf16, within 1e-6 in fp32.

PEFT's `merge_and_unload(safe_merge=False)` of an fp32 adapter rounds once, as the merge does, but for embeddings, whose delta it
rounds first: there the merge is within one step of bf16, and has the bits of PEFT's merge of an fp32 copy, rounded once. PEFT is not the
reference where it changes a tied weight twice.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from merging_folders import read_weights
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from mft.errors import CheckFailed, ModelError
from mft.merging import merge
from mft.merging.config import MergeOptions
from mft.merging.writer import ShardWriter

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
Q, EMBEDDING, HEAD = "model.layers.0.self_attn.q_proj.weight", "model.embed_tokens.weight", "lm_head.weight"
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def write_base(folder: Path, *, tied: bool = False, dtype: torch.dtype = torch.bfloat16) -> Path:
    """A random Llama of 2 layers."""
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=320, hidden_size=64, intermediate_size=160, num_hidden_layers=2, num_attention_heads=4,
                         num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=tied)
    LlamaForCausalLM(config).to(dtype).save_pretrained(folder, max_shard_size="100KB")
    return folder


def train(model: PreTrainedModel, folder: Path, *, seed: int = 1, **options: Any) -> Path:
    """An adapter as PEFT writes it, whose every trainable number has been moved at random."""
    config = LoraConfig(**({"r": 4, "lora_alpha": 8, "task_type": "CAUSAL_LM", "target_modules": ["q_proj", "up_proj"]} | options))
    adapted = get_peft_model(model, config)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in adapted.named_parameters():
        if parameter.requires_grad:
            drawn = torch.randn(parameter.shape, generator=generator) * 0.02
            parameter.data.copy_(parameter.data.float() + (drawn.abs() if "magnitude" in name else drawn))   # in place: it may be tied
    adapted.save_pretrained(folder)
    return folder


def load(folder: Path, dtype: torch.dtype = torch.bfloat16, rows: int | None = None) -> PreTrainedModel:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    if rows:
        model.resize_token_embeddings(rows, mean_resizing=False)
    return model


def peft_merged(base: Path, adapter: Path, dtype: torch.dtype, rows: int | None = None) -> dict[str, torch.Tensor]:
    model = PeftModel.from_pretrained(load(base, dtype, rows), str(adapter))
    merged = model.merge_and_unload(safe_merge=False)
    return {name: tensor.to(dtype) for name, tensor in merged.state_dict().items()}


def assert_like_peft(out: Path, wanted: dict[str, torch.Tensor], dtype: str) -> None:
    """bf16: equal bits. fp32: within 1e-6."""
    found = read_weights(out)
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert found[name].dtype == DTYPES[dtype], name
        if dtype == "bf16":
            assert torch.equal(found[name], tensor), name
        else:
            assert torch.allclose(found[name], tensor, rtol=0, atol=1e-6), name


KINDS: dict[str, dict[str, Any]] = {
    "lora": {"target_modules": ALL},
    "rslora": {"use_rslora": True},
    "rank_and_alpha_of_each_module": {"target_modules": ALL, "rank_pattern": {"layers.0.self_attn.q_proj": 6, "down_proj": 2},
                                      "alpha_pattern": {"^model.layers.1.mlp.up_proj": 3, "q_proj": 5}},
    "rslora_with_patterns": {"use_rslora": True, "rank_pattern": {"q_proj": 7}, "alpha_pattern": {"q_proj": 5}},
    "some_layers": {"layers_to_transform": [1]},
    "modules_to_save": {"modules_to_save": ["embed_tokens", "lm_head", "norm"]},
    "embedding_and_head": {"target_modules": ["q_proj", "embed_tokens", "lm_head"]},
    "token_rows": {"trainable_token_indices": {"embed_tokens": [3, 7], "lm_head": [3, 7]}},
}


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_those_of_peft(tmp_path: Path, kind: str, dtype: str) -> None:
    base = write_base(tmp_path / "base", dtype=DTYPES[dtype])
    adapter = train(load(base, DTYPES[dtype]), tmp_path / "adapter", **KINDS[kind])
    result = merge(base, adapter, tmp_path / "out", MergeOptions(dtype=dtype))  # type: ignore[arg-type]
    wanted = peft_merged(base, adapter, DTYPES[dtype])
    if kind == "embedding_and_head" and dtype == "bf16":
        one_step = 2**-7 * (read_weights(base)[EMBEDDING].abs() + wanted[EMBEDDING].abs()).float()
        assert bool(((read_weights(tmp_path / "out")[EMBEDDING].float() - wanted[EMBEDDING].float()).abs() <= one_step).all())
        wanted = {name: tensor.bfloat16() for name, tensor in peft_merged(base, adapter, torch.float32).items()}
    assert_like_peft(tmp_path / "out", wanted, dtype)
    assert 0 < result.max_abs_diff <= result.tolerance


@pytest.mark.parametrize("kind", KINDS)
def test_the_merged_model_says_what_base_and_adapter_say(tmp_path: Path, kind: str) -> None:
    base = write_base(tmp_path / "base")
    adapter = train(load(base), tmp_path / "adapter", **KINDS[kind])
    result = merge(base, adapter, tmp_path / "out", MergeOptions(verify="logits"))
    assert result.kl < 1e-4


def test_dora_is_pefts_within_the_rounding_of_fp32(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", dtype=torch.float32)
    adapter = train(load(base, torch.float32), tmp_path / "adapter", use_dora=True, rank_pattern={"q_proj": 6}, target_modules=ALL)
    merge(base, adapter, tmp_path / "out", MergeOptions(dtype="fp32"))
    assert_like_peft(tmp_path / "out", peft_merged(base, adapter, torch.float32), "fp32")


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_a_resized_vocabulary_is_taken_from_the_adapter(tmp_path: Path, dtype: str) -> None:
    base = write_base(tmp_path / "base", dtype=DTYPES[dtype])
    adapter = train(load(base, DTYPES[dtype], 328), tmp_path / "adapter")
    merge(base, adapter, tmp_path / "out", MergeOptions(dtype=dtype, verify="logits"))  # type: ignore[arg-type]
    wanted = peft_merged(base, adapter, DTYPES[dtype], 328)
    assert wanted[EMBEDDING].shape == wanted[HEAD].shape == (328, 64)
    assert_like_peft(tmp_path / "out", wanted, dtype)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").config.vocab_size == 328


@pytest.mark.parametrize("kind", ["modules_to_save", "embedding_and_head"])
def test_a_resized_vocabulary_may_be_trained_too(tmp_path: Path, kind: str) -> None:
    base = write_base(tmp_path / "base")
    adapter = train(load(base, rows=328), tmp_path / "adapter", **KINDS[kind])
    merge(base, adapter, tmp_path / "out", MergeOptions(verify="logits"))
    wanted = {name: tensor.bfloat16() for name, tensor in peft_merged(base, adapter, torch.float32, 328).items()}
    assert_like_peft(tmp_path / "out", wanted, "bf16")


@pytest.mark.parametrize(("options", "stays_tied"), [
    ({"modules_to_save": ["embed_tokens"]}, False),
    ({"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}, True),
    ({"target_modules": ["q_proj", "embed_tokens"]}, False),
    ({"target_modules": ["q_proj", "embed_tokens"], "ensure_weight_tying": True}, False),
    ({"target_modules": ["q_proj", "lm_head"]}, False),
    ({"trainable_token_indices": {"embed_tokens": [3, 7]}}, True)])
def test_a_tied_base_is_untied_where_the_adapter_changed_one_end(tmp_path: Path, options: dict[str, Any], stays_tied: bool) -> None:
    """Judged by logits: PEFT's own merge would change the other end too."""
    base = write_base(tmp_path / "base", tied=True)
    adapter = train(load(base), tmp_path / "adapter", **options)
    if len(options) == 2 and "target_modules" in options:   # PEFT holds such a pair once, and the loop above drew it twice
        tensors, prefix = load_file(adapter / "adapter_model.safetensors"), "base_model.model."
        adapter = with_tensors(adapter, tmp_path / "tied", {
            f"{prefix}model.embed_tokens.lora_embedding_{end}": tensors[f"{prefix}lm_head.lora_{other}.weight"].T.contiguous()
            for end, other in (("A", "B"), ("B", "A"))})
    result = merge(base, adapter, tmp_path / "out", MergeOptions(verify="logits", dtype="fp32"))
    assert result.kl < 1e-9
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert merged.config.tie_word_embeddings is stays_tied
    assert (HEAD in read_weights(tmp_path / "out")) is not stays_tied


def test_conv1d_weights_are_merged_as_they_lie(tmp_path: Path) -> None:
    """GPT-2 keeps [in, out]; a square one too."""
    torch.manual_seed(0)
    base = tmp_path / "base"
    GPT2LMHeadModel(GPT2Config(n_embd=64, n_layer=2, n_head=4, vocab_size=320, n_positions=64, bos_token_id=0,
                               eos_token_id=1)).bfloat16().save_pretrained(base)
    adapter = train(load(base), tmp_path / "adapter", target_modules=["c_attn", "c_proj", "c_fc"], fan_in_fan_out=True)
    merge(base, adapter, tmp_path / "out", MergeOptions(verify="logits"))
    wanted = peft_merged(base, adapter, torch.bfloat16)
    del wanted[HEAD]
    assert_like_peft(tmp_path / "out", wanted, "bf16")


def combined(base: Path, adapters: list[Path], weights: list[float]) -> dict[str, torch.Tensor]:
    """PEFT's own combination of adapters, in fp32."""
    model = PeftModel.from_pretrained(load(base, torch.float32), str(adapters[0]), adapter_name="a0")
    for number, adapter in enumerate(adapters[1:], 1):
        model.load_adapter(str(adapter), adapter_name=f"a{number}")
    model.add_weighted_adapter([f"a{number}" for number in range(len(adapters))], weights, "sum", combination_type="cat")
    model.set_adapter("sum")
    return dict(model.merge_and_unload(safe_merge=False, adapter_names=["sum"]).state_dict())


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_several_adapters_are_combined_with_their_weights_as_pefts_cat(tmp_path: Path, dtype: str) -> None:
    base = write_base(tmp_path / "base", dtype=DTYPES[dtype])
    adapters = [train(load(base, DTYPES[dtype]), tmp_path / "a", r=4, seed=1, target_modules=ALL),
                train(load(base, DTYPES[dtype]), tmp_path / "b", r=6, use_rslora=True, seed=2, target_modules=ALL)]
    result = merge(base, adapters, tmp_path / "out", MergeOptions(dtype=dtype), weights=[0.75, -0.5])  # type: ignore[arg-type]
    wanted = {name: tensor.to(DTYPES[dtype]) for name, tensor in combined(base, adapters, [0.75, -0.5]).items()}
    assert_like_peft(tmp_path / "out", wanted, dtype)
    assert [(Path(entry["folder"]).name, entry["weight"]) for entry in result.adapters] == [("a", 0.75), ("b", -0.5)]


def test_several_adapters_pass_by_logits_and_may_touch_different_layers(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    adapters = [train(load(base), tmp_path / "a", target_modules=["q_proj", "down_proj"], seed=1),
                train(load(base), tmp_path / "b", target_modules=["q_proj"], seed=2),
                train(load(base), tmp_path / "c", target_modules=["o_proj"], modules_to_save=["norm"], seed=3)]
    result = merge(base, adapters, tmp_path / "out", MergeOptions(verify="logits"), weights=[0.5, 0.25, 1])
    assert result.kl < 1e-4
    assert result.merged == 11   # 6 layers, and 5 norms, whose names all end in `norm`


def test_one_adapter_may_have_a_weight(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    adapter = train(load(base), tmp_path / "adapter")
    merge(base, adapter, tmp_path / "out", MergeOptions(), weights=[0.5])
    model = PeftModel.from_pretrained(load(base), str(adapter))
    for module in model.modules():
        if isinstance(module, LoraLayer):
            module.set_scale("default", 0.5)
    assert_like_peft(tmp_path / "out", dict(model.merge_and_unload().state_dict()), "bf16")


def with_tensors(adapter: Path, folder: Path, tensors: dict[str, torch.Tensor], without: str = "never") -> Path:
    """A copy of an adapter with other tensors."""
    folder.mkdir()
    kept = {name: tensor for name, tensor in load_file(adapter / "adapter_model.safetensors").items() if without not in name}
    save_file(kept | tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text((adapter / "adapter_config.json").read_text())
    return folder


def test_changes_that_do_not_go_together_are_refused_by_tensor(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    saved = train(load(base), tmp_path / "saved", modules_to_save=["lm_head"])
    head = train(load(base), tmp_path / "head", target_modules=["lm_head"])
    dora = train(load(base), tmp_path / "dora", use_dora=True, target_modules=["q_proj"])
    plain = train(load(base), tmp_path / "plain", target_modules=["q_proj"])
    out = tmp_path / "out"
    with pytest.raises(ModelError, match=r"'lm_head.weight' is changed by another adapter too"):
        merge(base, [saved, head], out, MergeOptions())
    with pytest.raises(ModelError, match=r"head: 'model.layers.\d.self_attn.q_proj.weight' is changed|plain: 'model.layers.0.self_attn"):
        merge(base, [dora, plain], out, MergeOptions())
    with pytest.raises(ModelError, match=r"for 'lm_head.weight', which a weight of 0.5 means nothing for; give it weight 1"):
        merge(base, [saved], out, MergeOptions(), weights=[0.5])
    with pytest.raises(ModelError, match="1 weights for 2 adapters"):
        merge(base, [plain, head], out, MergeOptions(), weights=[0.5])
    assert not out.exists()


def test_whole_tensors_that_are_missing_have_no_place_or_another_shape_are_refused(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    adapter = train(load(base), tmp_path / "a", modules_to_save=["lm_head", "norm"])
    prefix = "base_model.model."
    cases = {
        "says modules_to_save=.* but there is no tensor of 'lm_head'": with_tensors(adapter, tmp_path / "b", {}, "lm_head"),
        r"'model.norm.weight' is \[64\] in the base, \[32\] in the adapter": with_tensors(
            adapter, tmp_path / "c", {f"{prefix}model.norm.weight": torch.ones(32)}),
        "'model.other.norm.weight' is not a tensor of the base": with_tensors(
            adapter, tmp_path / "d", {f"{prefix}model.other.norm.weight": torch.ones(64)}),
        "'model.embed_tokens.weight' and 'lm_head.weight' would have 320 and 328 rows": with_tensors(
            adapter, tmp_path / "e", {f"{prefix}lm_head.weight": torch.ones(328, 64)}),
        r"'lm_head.weight' is \[320, 64\] in the base, \[320, 32\] in the adapter": with_tensors(
            adapter, tmp_path / "f", {f"{prefix}lm_head.weight": torch.ones(320, 32)}),
    }
    for message, folder in cases.items():
        with pytest.raises(ModelError, match=message):
            merge(base, folder, tmp_path / "out", MergeOptions())


def test_dora_on_an_embedding_is_refused_by_name(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    adapter = train(load(base), tmp_path / "adapter", use_dora=True, target_modules=["q_proj", "embed_tokens"])
    with pytest.raises(ModelError, match=r"embed_tokens' is an embedding with DoRA"):
        merge(base, adapter, tmp_path / "out", MergeOptions())


def test_a_square_matrix_of_doubtful_orientation_is_refused(tmp_path: Path) -> None:
    """fan_in_fan_out says [in, out], and the other layers of the adapter say [out, in]."""
    base = write_base(tmp_path / "base")
    adapter = train(load(base), tmp_path / "adapter")
    config = adapter / "adapter_config.json"
    config.write_text(config.read_text().replace('"fan_in_fan_out": false', '"fan_in_fan_out": true'))
    with pytest.raises(ModelError, match=r"q_proj.weight' is square, and fan_in_fan_out=True is not what the shapes"):
        merge(base, adapter, tmp_path / "out", MergeOptions())


def test_a_damaged_copy_of_a_whole_tensor_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = write_base(tmp_path / "base")
    adapter = train(load(base), tmp_path / "adapter", modules_to_save=["norm"])
    write = ShardWriter.write

    def wrong(self: ShardWriter, name: str, start: int, data: torch.Tensor) -> None:
        if name == "model.norm.weight":
            data = torch.bitwise_xor(data, torch.tensor(1, dtype=torch.uint8))
        write(self, name, start, data)

    monkeypatch.setattr(ShardWriter, "write", wrong)
    with pytest.raises(CheckFailed, match=r"'model.norm.weight': .* not those of the adapter, which holds this tensor whole"):
        merge(base, adapter, tmp_path / "out", MergeOptions())
