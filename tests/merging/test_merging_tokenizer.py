"""The files beside the weights: the right ids through plain AutoTokenizer, the chat template, how answers end."""

import gzip
import json
import shutil
from pathlib import Path

import pytest
import torch
from merging_folders import lora_tensors, write_adapter, write_llama
from transformers import AutoModelForCausalLM, AutoTokenizer

from mft.errors import FormatError
from mft.merging import merge
from mft.merging.config import MergeOptions


@pytest.fixture(scope="module")
def base(llama2_tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama with the Llama 2 tokenizer and a generation config that samples."""
    folder = write_llama(tmp_path_factory.mktemp("base") / "base", vocabulary=32000, max_shard_size="5GB")
    shutil.copytree(llama2_tokenizer_folder, folder, dirs_exist_ok=True)
    (folder / "generation_config.json").write_text(json.dumps({
        "bos_token_id": 1, "eos_token_id": [2, 13], "pad_token_id": 2, "do_sample": True, "temperature": 0.6, "top_p": 0.9,
        "max_length": 4096, "_from_model_config": True}))
    return folder


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """An adapter that says it was trained with the codefuse format."""
    folder = write_adapter(tmp_path / "adapter", lora_tensors())
    (folder / "mft.json").write_text(json.dumps({"base": "b", "base_files": {}, "format": "codefuse", "context": 128, "quantization": {}}))
    return folder


def test_plain_transformers_tokenizes_and_answers_with_it(base: Path, adapter: Path, tmp_path: Path, shared_data: Path) -> None:
    out = tmp_path / "out"
    merge(base, adapter, out, MergeOptions(verify="none"))
    tokenizer = AutoTokenizer.from_pretrained(out)
    with gzip.open(shared_data / "tokenizer" / "llama_golden.jsonl.gz", "rt", encoding="utf-8") as lines:
        golden = [json.loads(line) for line in lines]
    plain = [row for row in golden if not any(control in row["text"] for control in ("<s>", "</s>", "<unk>"))]
    assert len(plain) == 460
    assert [tokenizer(row["text"])["input_ids"] for row in plain] == [row["ids"] for row in plain]
    chat = [{"role": "user", "content": "2+2?"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == "<|role_start|>human<|role_end|>2+2?<|role_start|>bot<|role_end|>"
    model = AutoModelForCausalLM.from_pretrained(out)
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    assert torch.equal(model.generate(ids, max_new_tokens=4), model.generate(ids, max_new_tokens=4))


def test_answers_end_at_the_formats_mark_are_greedy_and_padded_apart(base: Path, adapter: Path, tmp_path: Path) -> None:
    merge(base, adapter, tmp_path / "out", MergeOptions(verify="none"))
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text()) == {
        "bos_token_id": 1, "eos_token_id": [2, 13], "pad_token_id": 0, "do_sample": False, "max_length": 4096}


def test_a_named_format_counts_more_than_the_adapters(base: Path, adapter: Path, tmp_path: Path) -> None:
    merge(base, adapter, tmp_path / "out", MergeOptions(verify="none"), prompt_format="ziya")
    assert "<human>" in (tmp_path / "out" / "chat_template.jinja").read_text()
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["format"] == "ziya"


def test_an_unknown_format_is_refused_before_anything_is_written(base: Path, adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="codefuze"):
        merge(base, adapter, tmp_path / "out", MergeOptions(), prompt_format="codefuze")
    assert not (tmp_path / "out").exists()


def test_without_a_format_the_bases_files_are_copied_as_they_are(base: Path, adapter: Path, tmp_path: Path) -> None:
    (adapter / "mft.json").unlink()
    merge(base, adapter, tmp_path / "out", MergeOptions(verify="none"))
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (base / name).read_bytes()
    assert not (tmp_path / "out" / "chat_template.jinja").exists()
