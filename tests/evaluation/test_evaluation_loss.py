"""Held-out loss of a base, an adapter and a merged model, from folders to result."""

import gc
import json
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from mft import formats
from mft.conversation import Conversation, Message
from mft.errors import CheckFailed, DataError, ModelError
from mft.evaluation.loss import evaluate_loss
from mft.evaluation.models import ModelUnderTest, loaded_in_turn
from mft.evaluation.samples import generate_samples, pick_exercises
from mft.modeling.adapters import AdapterFacts, add_adapter, write_adapter_facts
from mft.modeling.config import AdapterConfig, QuantizationConfig
from mft.modeling.load import load_base
from mft.scoring.loss import score_samples
from mft.tokenization.collate import collate
from mft.tokenization.encode import encode
from mft.tokenization.load import load_tokenizer

NF4 = QuantizationConfig(compute_dtype="fp32")
FP32 = QuantizationConfig(type="none", compute_dtype="fp32")
TASKS = ["chat", "text2code", "unused"]


@pytest.fixture(scope="module")
def tokenizer(small_llama: Path):
    return load_tokenizer(small_llama)


@pytest.fixture(scope="module")
def rows() -> list[Conversation]:
    out = []
    for index in range(12):
        task, question, answer = ("chat", f"number {index}?", f"It is {index}.")
        if index % 3 == 0:
            task, question, answer = ("text2code", f"def f{index}():", f"    return {index}\n")
        out.append(Conversation(f"row-{index}", task, (Message("user", question), Message("assistant", answer))))
    return out


@pytest.fixture(scope="module")
def samples(rows, tokenizer):
    return [encode(row, formats.get("codefuse"), tokenizer, TASKS.index(row.task)) for row in rows]


@pytest.fixture(scope="module")
def folders(small_llama: Path, samples, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The base, an adapter that was trained for a few steps on it in NF4, and the two merged by hand."""
    root = tmp_path_factory.mktemp("folders")
    model = add_adapter(load_base(small_llama, NF4), AdapterConfig(rank=4, alpha=8, dropout=0.0), seed=0)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.02)
    batch = collate(samples)
    for _ in range(25):
        optimizer.zero_grad()
        model(batch["input_ids"], position_ids=batch["position_ids"], labels=batch["labels"], use_cache=False).loss.backward()
        optimizer.step()
    model.save_pretrained(root / "adapter")
    write_adapter_facts(root / "adapter", AdapterFacts(str(small_llama), {}, "codefuse", 256, NF4))
    from peft import PeftModel

    whole = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(small_llama, dtype=torch.float32), root / "adapter")
    whole.merge_and_unload().save_pretrained(root / "merged")
    return {"base": small_llama, "train": root / "adapter", "merged": root / "merged"}


@pytest.fixture(scope="module")
def models(folders) -> list[ModelUnderTest]:
    return [ModelUnderTest("base", folders["base"], NF4), ModelUnderTest("train", folders["train"]),
            ModelUnderTest("merged", folders["merged"], FP32)]


@pytest.fixture(scope="module")
def result(samples, models, tokenizer):
    return evaluate_loss(samples, TASKS, models, context=256, prompt_format=formats.get("codefuse"), tokenizer=tokenizer)


def test_the_result_is_the_documented_json(result):
    found = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert set(found) == {"benchmark", "models", "tasks", "overall", "verdict", "protocol", "divergence"}
    assert found["benchmark"] == "loss"
    assert found["models"] == ["base", "train", "merged"]
    assert set(found["tasks"]) == {"chat", "text2code", "unused"}
    for part in (found["tasks"]["chat"], found["overall"]):
        assert set(part) == {"rows", "tokens", "loss", "difference"}
        assert set(part["loss"]) == {"base", "train", "merged"}
        assert set(part["difference"]) == {"train", "merged"}
        assert set(part["difference"]["train"]) == {"mean", "se", "ci95"}
    assert (found["tasks"]["chat"]["rows"], found["tasks"]["text2code"]["rows"], found["overall"]["rows"]) == (8, 4, 12)
    assert found["tasks"]["unused"] == {"rows": 0, "tokens": 0, "loss": {"base": None, "train": None, "merged": None}, "difference": {}}


def test_losses_add_up_and_training_shows(result, samples):
    tasks, overall = result.tasks, result.overall
    assert overall.tokens == tasks["chat"].tokens + tasks["text2code"].tokens == sum(sample.trained_tokens for sample in samples)
    for name in result.models:
        total = sum(tasks[task].loss[name] * tasks[task].tokens for task in ("chat", "text2code"))
        assert overall.loss[name] == pytest.approx(total / overall.tokens)
    for name in ("train", "merged"):
        assert overall.difference[name].mean == pytest.approx(overall.loss[name] - overall.loss["base"])
        assert overall.difference[name].mean < -1
    assert result.verdict.ok
    assert result.verdict.notes == ("task 'unused': 0 held-out rows, too few to judge",)


def test_the_base_is_held_as_it_was_while_training(result, folders, samples):
    held, original = (score_samples(load_base(folders["base"], how), samples, context=256) for how in (NF4, FP32))
    tokens = sum(score.tokens for score in held)
    nf4_loss, original_loss = (sum(score.nll_sum for score in those) / tokens for those in (held, original))
    assert result.overall.loss["base"] == pytest.approx(nf4_loss, abs=1e-9)
    assert abs(nf4_loss - original_loss) > 1e-3


def test_the_protocol_says_what_was_done(result, folders, tokenizer):
    protocol = result.protocol
    assert (protocol["format"], protocol["context"], protocol["tokenizer_sha256"]) == ("codefuse", 256, tokenizer.sha256)
    assert protocol["models"]["base"]["quantization"] == {"type": "nf4", "double_quant": True, "compute_dtype": "fp32"}
    assert protocol["models"]["train"]["kind"] == "adapter"
    assert protocol["models"]["train"]["quantization"]["type"] == "nf4"
    assert protocol["models"]["merged"]["quantization"]["type"] == "none"
    assert {"mft", "python", "torch", "transformers", "peft", "bitsandbytes"} <= set(protocol["versions"])


def test_swapped_models_fail_the_check(samples, models, tokenizer):
    found = evaluate_loss(samples, TASKS, [models[1], models[0]], context=256, prompt_format=formats.get("codefuse"), tokenizer=tokenizer)
    assert not found.verdict.ok
    assert [fault.split(":")[0] for fault in found.verdict.faults] == ["overall, base", "task 'chat', base", "task 'text2code', base"]


def test_a_model_is_freed_before_the_next_is_loaded(models):
    alive: list[weakref.ref] = []
    for _name, model in loaded_in_turn(models[:1] * 3):
        gc.collect()
        assert [ref for ref in alive if ref() is not None] == []
        alive.append(weakref.ref(model))
        del model
    assert len(alive) == 3


def test_each_model_is_visited_once_while_it_is_loaded(samples, models, tokenizer):
    seen, steps = [], []
    evaluate_loss(samples[:4], TASKS, models[:2], context=256, prompt_format=formats.get("codefuse"), tokenizer=tokenizer,
                  visit=lambda name, model: seen.append((name, type(model).__name__)),
                  progress=lambda name, done, rows: steps.append((name, done, rows)))
    assert seen == [("base", "LlamaForCausalLM"), ("train", "PeftModelForCausalLM")]
    assert steps[0][:2] == ("base", 1)
    assert steps[-1][0] == "train"
    assert steps[-1][1] == steps[-1][2]


def test_a_loss_that_is_not_a_number_fails_by_name(samples, tokenizer, small_llama, tmp_path):
    for path in small_llama.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckFailed, match=r"model 'broken': the loss of 12 of 12 rows is not a number \(first: 'row-0'\)"):
        evaluate_loss(samples, TASKS, [ModelUnderTest("broken", tmp_path, FP32)], context=256,
                      prompt_format=formats.get("codefuse"), tokenizer=tokenizer)


def test_no_rows_and_a_quantised_adapter_are_mistakes(models, folders, tokenizer):
    with pytest.raises(DataError, match="no held-out row"):
        evaluate_loss([], TASKS, models, context=256, prompt_format=formats.get("codefuse"), tokenizer=tokenizer)
    with pytest.raises(ModelError, match="says itself how its base is held"):
        ModelUnderTest("train", folders["train"], NF4)


def test_exercises_take_the_tasks_in_turn_whatever_the_order_of_rows(rows, tokenizer):
    def pick(those, **options):
        return pick_exercises(those, formats.get("codefuse"), tokenizer, max_prompt_tokens=400, **options)

    three = pick(rows, number=3)
    assert [exercise.task for exercise in three] == ["chat", "text2code", "chat"]
    assert pick(list(reversed(rows)), number=3) == three
    assert {exercise.id for exercise in pick(rows, number=3, seed=1)} != {exercise.id for exercise in three}
    assert pick(rows, number=0) == []
    everything = pick(rows, number=99)
    assert sorted(exercise.id for exercise in everything) == sorted(row.id for row in rows)


def test_an_exercise_is_the_served_prompt_and_the_answer_of_the_data(rows, tokenizer):
    long = Conversation("a-long-one", "long", (Message("user", "why " * 200), Message("assistant", "so")))
    turns = (Message("user", "a"), Message("assistant", "b"), Message("user", "c"), Message("assistant", "d"))
    two_rounds = Conversation("two", "rounds", turns)
    found = {exercise.task: exercise for exercise in pick_exercises(
        [*rows, long, two_rounds], formats.get("codefuse"), tokenizer, number=4, max_prompt_tokens=200)}
    assert set(found) == {"chat", "rounds", "text2code"}
    assert found["rounds"].reference == "d"
    assert found["rounds"].prompt == ("<|role_start|>human<|role_end|>a<|role_start|>bot<|role_end|>b</s>"
                                      "<|role_start|>human<|role_end|>c<|role_start|>bot<|role_end|>")
    assert tokenizer.decode(found["rounds"].prompt_ids) == found["rounds"].prompt


def test_a_trained_model_answers_its_exercises(rows, tokenizer, models):
    exercises = pick_exercises(rows, formats.get("codefuse"), tokenizer, number=2, max_prompt_tokens=400)
    found = generate_samples(models[1].load(), "train", exercises, formats.get("codefuse"), tokenizer, max_new_tokens=16)
    assert [set(sample.to_json()) for sample in found] == [
        {"task", "id", "prompt", "reference", "completion", "finish_reason", "model"}] * 2
    assert [(sample.task, sample.model) for sample in found] == [("chat", "train"), ("text2code", "train")]
    assert found[0].completion.startswith("It is")
    assert found[1].completion.startswith("    return")
