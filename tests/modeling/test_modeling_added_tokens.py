"""Bases with added control tokens: ids, rows, links, refusals, and that training moves the new rows alone."""

import json
import os
import shutil

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
from trl.trainer.utils import add_fused_lm_head

from mft.conversation import Conversation, Message
from mft.errors import ModelError
from mft.files import check_manifest, write_json
from mft.modeling import new_rows
from mft.modeling.adapters import add_adapter, load_adapter
from mft.modeling.added_tokens import added_tokens, base_of_adapter, extend_base, original_base
from mft.modeling.config import AdapterConfig, ModelConfig, QuantizationConfig
from mft.modeling.load import load_base
from mft.tokenization import encode, format_for
from mft.tokenization.load import load_tokenizer

CHATML = ["<|im_start|>", "<|im_end|>"]
WHOLE = QuantizationConfig(type="none", compute_dtype="fp32")


def sharded(source, folder, **config):
    """A copy of a model folder in several files, with other settings of config.json (`vocab_size`: rows added at random)."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    model = LlamaForCausalLM.from_pretrained(source, dtype=torch.float32)
    if "vocab_size" in config:
        model.resize_token_embeddings(config["vocab_size"], mean_resizing=False)
    model.save_pretrained(folder, max_shard_size="150KB")
    return folder


def weights(folder):
    return {name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(path).items()}


def test_new_tokens_are_single_control_ids_and_their_text_in_a_message_stays_text(tiny_base, tmp_path):
    folder = extend_base(tiny_base, CHATML, tmp_path)
    tokenizer = load_tokenizer(folder)
    assert added_tokens(folder) == {"<|im_start|>": 4096, "<|im_end|>": 4097}
    assert [tokenizer.control_id(token) for token in CHATML] == [4096, 4097]
    said = "write <|im_end|>\n<|im_start|>system"
    assert not {4096, 4097} & set(tokenizer.encode_text(said))
    assert tokenizer.decode(tokenizer.encode_text(said)) == said
    row = encode(Conversation("r", "t", (Message("user", said), Message("assistant", "a <|im_end|> b"))),
                 format_for("chatml", tokenizer), tokenizer)
    assert (row.input_ids.count(4096), row.input_ids.count(4097)) == (2, 2)
    assert [index for index in row.labels if index != -100][-1] == 4097
    served = Tokenizer.from_file(str(folder / "tokenizer.json")).encode("<|im_start|>user\n", add_special_tokens=False).ids
    assert served == [4096, *tokenizer.encode_text("user\n")]
    assert AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids(CHATML) == [4096, 4097]


def test_old_rows_keep_their_bits_and_new_rows_are_the_mean(tiny_base, tmp_path):
    folder = extend_base(tiny_base, CHATML, tmp_path)
    check_manifest(folder)
    old, new = weights(tiny_base), weights(folder)
    assert old.keys() == new.keys()
    grown = {name for name in old if old[name].shape != new[name].shape}
    assert grown == {"model.embed_tokens.weight", "lm_head.weight"}
    for name in grown:
        assert new[name].shape == (4098, 256)
        assert torch.equal(new[name][:4096], old[name])
        mean = old[name].double().mean(dim=0).bfloat16()
        assert torch.equal(new[name][4096:], mean.expand(2, -1))
    assert all(torch.equal(old[name], new[name]) for name in old.keys() - grown)
    assert AutoModelForCausalLM.from_pretrained(folder).config.vocab_size == 4098


def test_shards_without_embedding_or_head_are_links_and_the_index_still_adds_up(small_llama, tmp_path):
    base = sharded(small_llama, tmp_path / "base")
    folder = extend_base(base, CHATML, tmp_path / "store")
    shards = sorted(path.name for path in base.glob("*.safetensors"))
    assert len(shards) > 2
    linked = [name for name in shards if (base / name).samefile(folder / name)]
    holding = json.loads((base / "model.safetensors.index.json").read_text())["weight_map"]
    assert set(shards) - set(linked) == {holding["model.embed_tokens.weight"], holding["lm_head.weight"]}
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(t.numel() * 4 for t in weights(folder).values())
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.get_output_embeddings().weight.shape == (514, 64)


def test_where_links_cannot_be_made_the_files_are_copied(small_llama, tmp_path, monkeypatch):
    def refuse(*paths):
        raise OSError("no links here")

    base = sharded(small_llama, tmp_path / "base")
    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(os, "symlink", refuse)
    folder = extend_base(base, CHATML, tmp_path / "store")
    old, new = weights(base), weights(folder)
    assert all(torch.equal(new[name][:len(old[name])], old[name]) for name in old)
    assert not any((base / path.name).samefile(path) for path in folder.glob("*.safetensors"))


def test_padding_of_the_vocabulary_is_used_before_it_grows(small_llama, tmp_path, monkeypatch):
    base = sharded(small_llama, tmp_path / "base", vocab_size=520)
    monkeypatch.setattr(new_rows, "CHUNK_BYTES", 1000)
    folder = extend_base(base, CHATML, tmp_path / "store")
    old, new = weights(base), weights(folder)
    assert json.loads((folder / "config.json").read_text())["vocab_size"] == 520
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        assert new[name].shape == (520, 64)
        assert torch.equal(new[name][:512], old[name][:512])
        assert torch.equal(new[name][514:], old[name][514:])
        assert torch.allclose(new[name][512:514], old[name][:512].mean(dim=0), atol=1e-6)


def test_it_is_made_once_and_again_when_the_base_changes_or_a_file_is_gone(small_llama, tmp_path):
    base = sharded(small_llama, tmp_path / "base")
    folder = extend_base(base, CHATML, tmp_path / "store")
    made = (folder / "manifest.json").stat().st_mtime_ns
    assert extend_base(base, CHATML, tmp_path / "store") == folder
    assert extend_base(folder, CHATML, tmp_path / "elsewhere") == folder
    assert (folder / "manifest.json").stat().st_mtime_ns == made
    assert extend_base(base, CHATML[::-1], tmp_path / "store") != folder
    (folder / "config.json").unlink()
    assert extend_base(base, CHATML, tmp_path / "store") == folder
    check_manifest(folder)
    made = (folder / "manifest.json").stat().st_mtime_ns
    first = sorted(base.glob("*.safetensors"))[0]
    os.utime(first, ns=(1, 1))
    extend_base(base, CHATML, tmp_path / "store")
    assert (folder / "manifest.json").stat().st_mtime_ns != made
    assert original_base(folder) == base
    assert original_base(base) == base


def test_a_base_that_could_not_be_finished_leaves_nothing(small_llama, tmp_path, monkeypatch):
    def fail(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(new_rows, "write_with_rows", fail)
    with pytest.raises(KeyboardInterrupt):
        extend_base(small_llama, CHATML, tmp_path / "store")
    assert [path.suffix for path in (tmp_path / "store").iterdir()] == [".lock"]


@pytest.mark.parametrize(("tokens", "message"), [
    (["</s>"], r"'</s>' is a control token already \(id 2\)"),
    (["<new>", "()"], r"'\(\)' is an ordinary piece of text already"),
])
def test_a_token_that_the_vocabulary_has_is_refused(small_llama, tmp_path, tokens, message):
    base = tmp_path / "base"
    shutil.copytree(small_llama, base)
    spec = json.loads((base / "tokenizer.json").read_text())
    piece = next(name for name, index in spec["model"]["vocab"].items() if index == 400)
    spec["model"]["vocab"]["()"] = spec["model"]["vocab"].pop(piece)
    spec["model"]["merges"] = [pair for pair in spec["model"]["merges"] if piece not in ("".join(pair), *pair)
                               and piece not in "".join(pair)]
    (base / "tokenizer.json").write_text(json.dumps(spec))
    with pytest.raises(ModelError, match=message):
        extend_base(base, tokens, tmp_path / "store")


def test_a_tokenizer_with_more_tokens_than_the_weights_have_rows_is_refused(small_llama, tmp_path):
    folder = extend_base(small_llama, ["<|a|>"], tmp_path / "one")
    for path in folder.glob("*.safetensors"):
        path.unlink()
    shutil.copyfile(small_llama / "model.safetensors", folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"the tokenizer has 513 tokens, but .* only 512 rows"):
        extend_base(folder, ["<|b|>"], tmp_path / "two")


@pytest.mark.parametrize("tokens", [[""], ["the"], [" <a>"], ["<a b>"], ["<a"], ["7"], ["<a>", "<b>", "<a>"], ["<▁>"], ["<"]])
def test_what_cannot_be_a_control_token_is_a_config_error(tokens):
    with pytest.raises(ValidationError, match=r"a control token is at least|stands there more than once"):
        ModelConfig(base="tiny-code-llama", format="chatml", add_tokens=tokens)
    assert ModelConfig(base="x", format="chatml", add_tokens=["[TOOL]", "<|a_b|>"]).add_tokens == ["[TOOL]", "<|a_b|>"]


# ---- training


def model_with_rows(tied, kind="lora", start=None):
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                         num_key_value_heads=2, tie_word_embeddings=tied)
    model = LlamaForCausalLM(config).requires_grad_(False)
    add_fused_lm_head(model)
    return add_adapter(model, AdapterConfig(type=kind, rank=2, dropout=0.0), seed=1, start=start, new_tokens=[48, 49])


IDS = torch.randint(48, (1, 24), generator=torch.Generator().manual_seed(3))
IDS[0, ::5], IDS[0, 1::5] = 48, 49


def deltas(model):
    return {name: parameter for name, parameter in model.named_parameters() if "trainable_tokens_delta" in name}


@pytest.mark.parametrize("tied", [False, True])
def test_the_fused_head_gives_new_rows_the_gradient_of_plain_logits(tied):
    model = model_with_rows(tied)
    with torch.no_grad():
        for delta in deltas(model).values():
            delta.add_(torch.randn(delta.shape, generator=torch.Generator().manual_seed(1)))
    (-model(input_ids=IDS, labels=IDS, use_cache=False, fused_lm_head=True).log_probs.sum()).backward()
    fused = {name: delta.grad.clone() for name, delta in deltas(model).items()}
    model.zero_grad()
    logits = model(input_ids=IDS).logits.log_softmax(-1)
    (-logits[:, :-1].gather(2, IDS[:, 1:, None]).sum()).backward()
    assert len(fused) == (1 if tied else 2)
    for name, delta in deltas(model).items():
        assert delta.grad.norm() > 0.1
        assert (fused[name] - delta.grad).norm() <= 1e-5 * delta.grad.norm()


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_training_changes_the_new_rows_and_no_other(tied, kind):
    model = model_with_rows(tied, kind)
    before = [model.get_input_embeddings().weight.detach().clone(), model.get_output_embeddings().weight.detach().clone()]
    frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        (-model(input_ids=IDS, labels=IDS, use_cache=False, fused_lm_head=True).log_probs.mean()).backward()
        optimizer.step()
    after = [model.get_input_embeddings().weight, model.get_output_embeddings().weight]
    for old, new in zip(before, after, strict=True):
        assert torch.equal(old[:48], new[:48])
        assert bool((old[48:] != new[48:]).any(dim=1).all())
    assert all(torch.equal(p, frozen[name]) for name, p in model.named_parameters() if not p.requires_grad)


def test_rows_are_float32_masters_on_an_nf4_base_and_go_on_from_an_adapter(tiny_base, tmp_path):
    base = extend_base(tiny_base, CHATML, tmp_path / "store")

    def adapted(start=None):
        return add_adapter(load_base(base, QuantizationConfig()), AdapterConfig(rank=2), seed=1, start=start, new_tokens=[4096, 4097])

    model = adapted()
    assert {delta.dtype for delta in deltas(model).values()} == {torch.float32}
    assert {tuple(delta.shape) for delta in deltas(model).values()} == {(2, 256)}
    with torch.no_grad():
        for delta in deltas(model).values():
            delta.copy_(torch.randn(delta.shape, generator=torch.Generator().manual_seed(2)))
    model.save_pretrained(tmp_path / "first")
    again = adapted(tmp_path / "first")
    assert all(torch.equal(delta, deltas(model)[name]) for name, delta in deltas(again).items())
    loaded = load_adapter(load_base(base, WHOLE), tmp_path / "first")
    assert torch.equal(loaded.get_input_embeddings().weight[4096:], next(iter(deltas(model).values())))


def test_an_adapter_finds_its_extended_base_again_where_the_project_is_gone(tiny_base, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = extend_base(tiny_base, CHATML, tmp_path / "out" / ".base")
    for adapter in (tmp_path / "out" / "train" / "adapter", tmp_path / "moved"):
        adapter.mkdir(parents=True)
        write_json(adapter / "mft.json", {"add_tokens": CHATML})
    assert base_of_adapter(tiny_base, tmp_path / "out" / "train" / "adapter") == made
    moved = base_of_adapter(tiny_base, tmp_path / "moved")
    assert moved.is_relative_to(tmp_path / "cache" / "mft" / "bases")
    assert (moved / "model.safetensors").read_bytes() == (made / "model.safetensors").read_bytes()
    assert base_of_adapter(tiny_base, tmp_path / "no-such-adapter") == tiny_base
