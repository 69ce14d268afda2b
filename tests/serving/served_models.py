"""Models that say one thing, and servers of them: what a server was given can then be compared with what training made."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mft.conversation import Message
from mft.release.make import release
from mft.tokenization.compatibility import format_for, stop_ids
from mft.tokenization.encode import encode_prompt
from mft.tokenization.load import load_tokenizer

ANSWER = "it is four"
HERE = Path(__file__).resolve().parent


def write_speaker(folder: Path, tokenizer_folder: Path, format_name: str, *, hidden: int = 128) -> list[int]:
    """A Llama that, after a prompt of this format, says ANSWER, its end mark, and then `x` without end; returns the answer's ids and the
    end mark's.

    Its blocks add nothing to the embedding, and the head has a row for each token of that chain: the embedding of the one before it.
    """
    shutil.copytree(tokenizer_folder, folder)
    tokenizer = load_tokenizer(folder)
    prompt_format = format_for(format_name, tokenizer)
    answer = [*tokenizer.encode_continuation(ANSWER), stop_ids(prompt_format, tokenizer)[0]]
    last = encode_prompt([Message("user", "2+2?")], prompt_format, tokenizer)[-1]
    runs_on = tokenizer.encode_continuation("x")[0]
    chain = [last, *answer, runs_on]
    assert len(set(chain)) == len(chain)
    size = max(tokenizer.backend.get_vocab().values()) + 1
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=size, hidden_size=hidden, intermediate_size=hidden, num_hidden_layers=1, num_attention_heads=hidden // 64,
        num_key_value_heads=1, max_position_embeddings=1024, bos_token_id=1, eos_token_id=2, tie_word_embeddings=False))
    with torch.no_grad():
        for block in model.model.layers:
            block.self_attn.o_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()
        embedding = model.model.embed_tokens.weight.normal_()
        model.lm_head.weight.zero_()
        for before, after in zip(chain, [*chain[1:], runs_on], strict=True):
            model.lm_head.weight[after] += embedding[before]
    model.to(torch.bfloat16).save_pretrained(folder)
    return answer


def released_speaker(place: Path, tokenizer_folder: Path, format_name: str) -> tuple[Path, list[int]]:
    """The same as `mft release` writes it."""
    answer = write_speaker(place / "model", tokenizer_folder, format_name)
    out = place / f"speaks-{format_name}"
    release(place / "model", out, format_name=format_name)
    return out, answer


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def served(folder: Path, log: Path, *arguments: str, wait_s: float = 180) -> Iterator[str]:
    """`mft serve` on this folder; yields its URL. `log`: what `generate` was given and gave back; its words go to `log`.txt."""
    port = free_port()
    command = [sys.executable, "-m", "mft", "serve", "--model", str(folder), "--port", str(port), *arguments]
    environment = os.environ | {"SERVED_IDS": str(log), "PYTHONPATH": str(HERE / "served_process"), "HF_HUB_OFFLINE": "1"}
    words = log.with_suffix(".txt")
    with words.open("w") as stream:
        process = subprocess.Popen(command, env=environment, stdout=stream, stderr=stream)
    try:
        deadline = time.monotonic() + wait_s
        while not answers(port):
            assert process.poll() is None, words.read_text()
            assert time.monotonic() < deadline, words.read_text()
            time.sleep(0.3)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(60)
    assert process.returncode == 0, words.read_text()
    assert not answers(port)


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as response:
            return response.status == 200
    except (urllib.error.URLError, OSError):
        return False


def calls(log: Path) -> list[dict[str, list[list[int]]]]:
    """What the serving process wrote down, call by call."""
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
