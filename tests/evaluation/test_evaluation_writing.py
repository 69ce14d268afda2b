"""Writing samples: resumed without a double or a missing one, shared by ranks, the same whoever is killed when."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from evaluation_problems import ADD, ROUND

from mft import formats
from mft.conversation import Message
from mft.evaluation.protocol import Protocol
from mft.evaluation.protocols import protocol
from mft.evaluation.writers import EndpointWriter, ModelWriter, Written, prompt_ids
from mft.evaluation.writing import collect_samples, endings, units, write_samples
from mft.generation.openai_endpoint import Endpoints
from mft.modeling.config import QuantizationConfig
from mft.modeling.load import load_base
from mft.problems.problem import Problem
from mft.tokenization.compatibility import format_for
from mft.tokenization.encode import encode_prompt
from mft.tokenization.load import load_tokenizer

TEN = [Problem(f"HumanEval/{n}", "HumanEval", "python", "completion", f"def f{n}():\n" + "    #\n" * (n % 4), "    return 1\n", f"f{n}",
               ("def check(candidate):\n    pass\n",)) for n in range(10)]


class Killed(BaseException):
    """What a killed process would have been."""


class FakeWriter:
    """Answers with the problem, the seed and the batch, so that a test sees what an answer depended on."""

    def __init__(self, batch: int, streams: bool, die_after: int | None = None) -> None:
        self.batch, self.streams, self.left = batch, streams, die_after
        self.asked: list[str] = []

    def write(self, problems: Sequence[Problem], rules: Protocol, seed: int) -> Iterator[tuple[int, Written]]:
        for index, problem in reversed(list(enumerate(problems))):
            if self.left is not None:
                self.left -= 1
                if self.left < 0:
                    raise Killed
            self.asked.append(problem.id)
            together = "" if self.streams else ",".join(each.id for each in problems)
            yield index, Written(f"{problem.id} {seed} {together}", "stop", 1)

    def facts(self) -> dict[str, Any]:
        return {}


def answers(folder: Path, samples: int) -> list[tuple[str, int, str]]:
    return [(sample.problem, sample.number, sample.answer) for sample in collect_samples(folder, TEN, samples)]


@pytest.mark.parametrize(("batch", "streams"), [(3, False), (1 << 20, True)])
@pytest.mark.parametrize("killed_after", [0, 1, 4, 7, 19])
def test_killed_and_resumed_equals_never_killed(tmp_path: Path, batch: int, streams: bool, killed_after: int):
    rules = protocol("openai", changes={"temperature": 0.8})
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    write_samples(TEN, rules, FakeWriter(batch, streams), whole, samples=2)
    with pytest.raises(Killed):
        write_samples(TEN, rules, FakeWriter(batch, streams, killed_after), killed, samples=2)
    part = killed / "samples.part0.jsonl"
    if part.exists() and part.stat().st_size:
        part.write_bytes(part.read_bytes()[:-3])      # the last line was not finished
    write_samples(TEN, rules, FakeWriter(batch, streams), killed, samples=2)
    assert answers(killed, 2) == answers(whole, 2)
    rows = [json.loads(line) for line in part.read_text().splitlines()]
    assert len({(row["task_id"], row["sample"]) for row in rows}) == len(rows) == 20


def test_ranks_share_the_work_and_draw_what_one_would(tmp_path: Path):
    rules = protocol("openai", changes={"temperature": 0.8})
    for name, ranks in (("one", 1), ("three", 3)):
        (tmp_path / name).mkdir()
        writers = [FakeWriter(3, streams=False) for _ in range(ranks)]
        for rank, writer in enumerate(writers):
            write_samples(TEN, rules, writer, tmp_path / name, samples=1, rank=rank, ranks=ranks)
        assert sorted(name for writer in writers for name in writer.asked) == sorted(problem.id for problem in TEN)
    assert answers(tmp_path / "one", 1) == answers(tmp_path / "three", 1)
    assert endings(tmp_path / "three") == {"stop": 10}


def test_longest_prompts_come_first_and_every_batch_has_its_seed():
    work = units(TEN, protocol("openai"), 2, 4)
    lengths = [len(problem.prompt) for unit in work[:3] for problem in unit.problems]
    assert lengths == sorted(lengths, reverse=True)
    assert len({unit.seed for unit in work}) == len(work) == 6


def test_the_samples_file_is_in_evalplus_layout(tmp_path: Path):
    write_samples(TEN, protocol("openai"), FakeWriter(4, streams=False), tmp_path)
    collect_samples(tmp_path, TEN, 1)
    rows = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert [row["task_id"] for row in rows] == [problem.id for problem in TEN]
    assert all(isinstance(row["completion"], str) for row in rows)


def test_a_model_is_given_the_ids_that_a_server_gives_it(small_llama: Path):
    tokenizer = load_tokenizer(small_llama)
    rules = protocol("codefuse")
    ids = prompt_ids(ADD, rules, format_for("codefuse", tokenizer), tokenizer)
    text = "<|role_start|>human<|role_end|># language: Python\n" + ADD.prompt + "<|role_start|>bot<|role_end|>"
    assert ids == tokenizer.encode_text(text)


def test_a_prefill_is_encoded_with_the_prompt_before_it(small_llama: Path):
    tokenizer = load_tokenizer(small_llama)
    codefuse = format_for("codefuse", tokenizer)
    ids = encode_prompt([Message("user", "add")], codefuse, tokenizer, prefill="Here:\n```python\n")
    assert ids == tokenizer.encode_text("<|role_start|>human<|role_end|>add<|role_start|>bot<|role_end|>Here:\n```python\n")
    llama2 = format_for("llama2", tokenizer)
    assert encode_prompt([Message("user", "add")], llama2, tokenizer, prefill=" x") == [
        tokenizer.control_id("<s>"), *tokenizer.encode_text("[INST] add [/INST] x")]


def test_a_prompt_that_leaves_no_room_is_said_and_not_cut(small_llama: Path):
    tokenizer = load_tokenizer(small_llama)
    model = load_base(small_llama, QuantizationConfig(type="none", compute_dtype="fp32"))
    writer = ModelWriter(model, tokenizer, format_for("raw", tokenizer), 2)
    long = Problem("HumanEval/9", "HumanEval", "python", "completion", "x" * 600 + "\n", "", "f", ("",))
    near = Problem("HumanEval/8", "HumanEval", "python", "completion", "x" * 495 + "\n", "", "f", ("",))
    rules = protocol("openai", changes={"max_new_tokens": 40})
    found = dict(writer.write([long, near, ROUND], rules, 0))
    assert found[0] == Written("", "no_room", 0)
    assert (found[1].tokens or 0) <= 512 - 495
    assert found[2].finish_reason in ("stop", "length")


def test_an_endpoint_gets_text_with_every_control_token_once_or_messages():
    rules = protocol("ziya")
    writer = EndpointWriter(Endpoints(["http://localhost/v1"], "m"), formats.get("ziya"))
    asked = "<s><human>: \nPlease Complete the given function below according to the docstring: \n"
    assert writer._prompt(ADD, rules) == f"{asked}{ADD.prompt}\n<bot>: \n"
    chat = EndpointWriter(Endpoints(["http://localhost/v1"], "m"))._prompt(ADD, protocol("evalplus"))
    assert [message["role"] for message in chat] == ["user", "assistant"]      # type: ignore[index]
    assert EndpointWriter(Endpoints(["http://localhost/v1"], "m"))._prompt(ADD, protocol("openai")) == ADD.prompt
