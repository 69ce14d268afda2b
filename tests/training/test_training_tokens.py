"""The token cache of a run: never stale, never made anew without cause, made once however many processes ask."""

import json
import subprocess
import sys

import pytest

from mft.data import build
from mft.modeling.config import ModelConfig
from mft.training import tokens as module
from mft.training.tokens import encode_run


@pytest.fixture
def data(tmp_path):
    def make(rows=60, answer="answer"):
        lines = [{"prompt": f"question {index}", "answer": f"{answer} " * (index + 1)} for index in range(rows)]
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (tmp_path / "recipe.yaml").write_text(
            "name: small\ntasks: {chat: {sources: [{type: jsonl, path: rows.jsonl}]}}\nsplit: {validation: 0.2, by: id}\n")
        build(tmp_path / "recipe.yaml", tmp_path / "data", overwrite=True)
        return tmp_path / "data"
    return make


def model(context=256, name="codefuse"):
    return ModelConfig(base="tiny-code-llama", format=name, context=context)


@pytest.fixture
def encodings(monkeypatch):
    """How many rows each encoding was given."""
    counts = []

    def counted(rows, *rest):
        counts.append(len(rows))
        return original(rows, *rest)
    original = module.encode_conversations
    monkeypatch.setattr(module, "encode_conversations", counted)
    return counts


def test_what_was_encoded_is_opened_and_another_context_needs_no_encoding(data, tiny_base, tmp_path, encodings):
    folder = data()
    first = encode_run(folder, tiny_base, model(), tmp_path / "cache")
    assert sum(encodings) == 60
    again = encode_run(folder, tiny_base, model(), tmp_path / "cache")
    shorter = encode_run(folder, tiny_base, model(context=100), tmp_path / "cache")
    assert len(encodings) == 2
    assert list(again.train) == list(first.train)
    assert again.sha256 == first.sha256 != shorter.sha256
    assert 0 < len(shorter.train) < len(first.train)
    assert max(shorter.train.lengths) <= 100
    assert shorter.parts["train"].dropped["over_context"] == len(first.train) - len(shorter.train)


def test_other_rows_another_format_and_a_damaged_file_are_encoded_anew(data, tiny_base, tmp_path, encodings):
    folder, cache = data(), tmp_path / "cache"
    first = encode_run(folder, tiny_base, model(), cache)
    encode_run(folder, tiny_base, model(name="ziya"), cache)
    assert len(encodings) == 4
    encode_run(folder, tiny_base, model(), cache)
    folder = data(answer="another")
    changed = encode_run(folder, tiny_base, model(), cache)
    assert len(encodings) == 8
    assert changed.sha256 != first.sha256
    samples = list(changed.train)   # read now: a store is a map of the files
    ids = cache / "train" / "ids.bin"
    ids.write_bytes(ids.read_bytes()[:-2])
    assert list(encode_run(folder, tiny_base, model(), cache).train) == samples
    assert len(encodings) == 9


def test_of_several_processes_one_encodes_and_the_others_wait(data, tiny_base, tmp_path):
    folder = data()
    program = ("import logging, sys\nfrom pathlib import Path\nfrom mft.modeling.config import ModelConfig\n"
               "from mft.training.tokens import encode_run\nlogging.basicConfig(level=logging.INFO)\n"
               "run = encode_run(Path(sys.argv[1]), Path(sys.argv[2]), ModelConfig(base='x', format='codefuse', context=256), "
               "Path(sys.argv[3]))\nprint(run.sha256, len(run.train))\n")
    command = [sys.executable, "-c", program, str(folder), str(tiny_base), str(tmp_path / "cache")]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    results = [process.communicate(timeout=120) for process in started]
    assert len({out for out, _ in results}) == 1
    assert sum("encoded" in log for _, log in results) == 1


def test_examples_say_where_they_come_from(data, tiny_base, tmp_path):
    run = encode_run(data(), tiny_base, model(), tmp_path / "cache")
    (example,) = run.examples(3)
    assert example["task"] == "chat"
    assert example["origin"].startswith("rows.jsonl:")
    assert [span["trained"] for span in example["spans"]] == [False, True]
