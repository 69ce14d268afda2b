"""The small random model and its tokenizer."""

from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from mft.tokenization.load import TextTokenizer, load_tokenizer


@pytest.fixture(scope="module")
def model(small_llama: Path) -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(small_llama, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def tokenizer(small_llama: Path) -> TextTokenizer:
    return load_tokenizer(small_llama)
