"""Fixtures that several areas share."""

import gzip
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("GOMP_SPINCOUNT", "3000")

# The same cases in every run; HYPOTHESIS_PROFILE=default draws others.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


@pytest.fixture(autouse=True)
def gradients_are_left_on() -> Iterator[None]:
    """A test that leaves gradients switched off fails itself, not the ones after it."""
    yield
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        left_on = torch.is_grad_enabled()
        torch.set_grad_enabled(True)
        assert left_on, "gradients were switched off and not on again"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of public test data beside the checkout, or a skip that says so."""
    folder = Path(os.environ.get("MFT_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"public test data not found at {folder}")
    return folder


@pytest.fixture(scope="session")
def llama2_tokenizer_folder(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face style folder of the Llama 2 tokenizer (32,000 pieces), unpacked."""
    return unpacked(shared_data / "tokenizer" / "llama2", tmp_path_factory.mktemp("llama2"))


@pytest.fixture(scope="session")
def codellama70b_tokenizer_folder(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with CodeLlama-70B-Instruct's 16 further tokens, `<step>` among them."""
    return unpacked(shared_data / "tokenizer" / "codellama70b", tmp_path_factory.mktemp("codellama70b"))


def unpacked(source: Path, folder: Path) -> Path:
    for path in source.iterdir():
        if path.suffix == ".gz":
            with gzip.open(path) as packed, (folder / path.stem).open("wb") as plain:
                shutil.copyfileobj(packed, plain)
        else:
            shutil.copyfile(path, folder / path.name)
    return folder


@pytest.fixture(scope="session")
def deepseek_tokenizer_folder(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the DeepSeek Coder tokenizer: byte-level BPE, unpacked."""
    folder = tmp_path_factory.mktemp("deepseek")
    source = shared_data / "tokenizer"
    with gzip.open(source / "deepseek_coder_tokenizer.json.gz") as packed, (folder / "tokenizer.json").open("wb") as plain:
        shutil.copyfileobj(packed, plain)
    shutil.copyfile(source / "deepseek_coder_tokenizer_config.json", folder / "tokenizer_config.json")
    return folder


@pytest.fixture(scope="session")
def tiny_base() -> Path:
    """The folder of the built-in base model."""
    folder = ROOT / "mft" / "assets" / "tiny-code-llama"
    if not (folder / "model.safetensors").is_file():
        pytest.skip("the tiny base model has not been made: scripts/train_tiny_base.py")
    return folder


@pytest.fixture(scope="session")
def small_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder made on the spot: a random Llama (2 layers, 64 wide, float32) and a Llama-style BPE of 512 pieces."""
    import json

    import torch
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("small-llama")
    control = ["<unk>", "<s>", "</s>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split("\n", "removed"), pre_tokenizers.Split(Regex("▁+(?=▁[^▁])|▁?[a-z]+|."), "isolated")])
    text = Path(json.__file__).with_name("encoder.py").read_text(encoding="utf-8")
    tokenizer.train_from_iterator([text], trainers.BpeTrainer(
        vocab_size=512, special_tokens=[*control, *(f"<0x{byte:02X}>" for byte in range(256))], show_progress=False))
    spec = json.loads(tokenizer.to_str())
    spec["pre_tokenizer"] = None
    spec["added_tokens"] = spec["added_tokens"][:3]
    spec["decoder"] = json.loads(decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]).__getstate__())
    (folder / "tokenizer.json").write_text(json.dumps(spec), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(
        {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=512, rope_theta=1e6, tie_word_embeddings=False, bos_token_id=1, eos_token_id=2, pad_token_id=0,
        initializer_range=0.2)
    LlamaForCausalLM(config).float().save_pretrained(folder)
    return folder
