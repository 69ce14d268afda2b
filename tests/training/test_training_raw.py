"""Continued training on plain text: `format: raw` trains every token of a text and its end."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from mft.report.page import write_report
from mft.runs.config import load_project
from mft.runs.project import Project, run_project

TEXTS = [f"def f_{n}(x):\n    return x + {n}\n" + "# one more line\n" * (n % 4) for n in range(12)]
RECIPE = "name: texts\ntasks: {code: {sources: [{type: jsonl, path: texts.jsonl, converter: text}]}}\nsplit: {validation: 0, by: id}\n"
CONFIG = """
name: raw
model: {base: tiny-code-llama, format: raw, context: 128}
stages:
  - {kind: data, name: data, recipe: recipe.yaml}
  - kind: train
    name: train
    data: data
    quantization: {type: none, compute_dtype: fp32}
    adapter: {rank: 2, dropout: 0.0}
    training: {max_steps: 1, global_batch_rows: 64, warmup: 0, evaluate_every: 0, checkpoint_every: 0, recompute: none}
"""


def plain_loss(base):
    """Mean over all tokens but the first of each text, which nothing predicts; by transformers alone: (nats, tokens)."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(base / "tokenizer.json"))
    model, total, count = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), 0.0, 0
    for text in TEXTS:
        ids = torch.tensor([[1, *tokenizer.encode(text, add_special_tokens=False), 2]])
        with torch.no_grad():
            total += model(input_ids=ids, labels=ids).loss.item() * (ids.shape[1] - 1)
        count += ids.shape[1] - 1
    return total / count, count


def test_every_token_of_a_text_and_its_end_is_trained(tiny_base, tmp_path):
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"id": f"t{n}", "text": text}) + "\n" for n, text in enumerate(TEXTS)))
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "config.yaml").write_text(CONFIG)
    config = tmp_path / "config.yaml"
    run_project(Project(load_project(config), config, tmp_path / "out", write_report), until="train")
    line = next(line for line in map(json.loads, (tmp_path / "out" / "train" / "metrics.jsonl").open()) if "loss" in line)
    loss, tokens = plain_loss(tiny_base)
    assert line["tokens/task/code"] == tokens
    assert line["loss"] == pytest.approx(loss, rel=1e-5)
