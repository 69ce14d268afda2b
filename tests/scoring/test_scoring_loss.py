"""Scores are the model's own, whatever the packing, and scoring leaves no trace."""

import math
import random
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaForCausalLM

from mft.errors import DataError
from mft.scoring import loss as scoring
from mft.scoring.loss import SampleScore, score_samples, task_losses
from mft.tokenization.encode import IGNORE_INDEX, TokenizedSample


@pytest.fixture
def model(small_llama: Path) -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(small_llama, dtype=torch.float32).eval()


@pytest.fixture
def peft_model(model: LlamaForCausalLM) -> PeftModel:
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, lora_dropout=0.5, target_modules="all-linear"))
    torch.manual_seed(3)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return adapted


def random_samples(number: int, seed: int = 0) -> list[TokenizedSample]:
    draw = random.Random(seed)
    samples = []
    for index in range(number):
        ids = tuple(draw.randrange(3, 512) for _ in range(draw.randrange(2, 40)))
        first = draw.randrange(1, len(ids))
        labels = tuple(token if place == first or (place > first and draw.random() < 0.7) else IGNORE_INDEX
                       for place, token in enumerate(ids))
        samples.append(TokenizedSample(ids, labels, index % 3, f"row-{index}"))
    return samples


def alone(model: torch.nn.Module, sample: TokenizedSample) -> float:
    """The sample's loss sum from full logits of the sample by itself."""
    with torch.no_grad():
        log_probs = model(torch.tensor([sample.input_ids]), use_cache=False).logits[0].double().log_softmax(-1)
    return -sum(float(log_probs[place - 1, label]) for place, label in enumerate(sample.labels) if label != IGNORE_INDEX)


def test_score_equals_the_full_logits_of_the_sample_alone_in_the_order_given(model):
    samples = random_samples(40)
    scores = score_samples(model, samples, context=128)
    for sample, score in zip(samples, scores, strict=True):
        assert score.nll_sum == pytest.approx(alone(model, sample), abs=1e-5 * score.tokens)
        assert score.tokens == sum(label != IGNORE_INDEX for label in sample.labels)
        assert score.task_id == sample.task_id


def test_score_does_not_depend_on_the_packing(model):
    samples = random_samples(30, seed=1)
    wide, narrow = (score_samples(model, samples, context=context) for context in (512, 40))
    for one, other in zip(wide, narrow, strict=True):
        assert one.nll_sum == pytest.approx(other.nll_sum, abs=1e-5 * one.tokens)


def test_score_does_not_depend_on_how_many_logits_are_held_at_once(model, monkeypatch):
    samples = random_samples(10)
    whole = score_samples(model, samples, context=256)
    monkeypatch.setattr(scoring, "LOGITS_AT_ONCE", 512 * 3)
    for one, other in zip(whole, score_samples(model, samples, context=256), strict=True):
        assert one.nll_sum == pytest.approx(other.nll_sum, abs=1e-6)


def test_an_adapter_counts_and_its_dropout_does_not(peft_model):
    samples = random_samples(12)
    peft_model.train()
    scores = score_samples(peft_model, samples, context=200)
    peft_model.eval()
    for sample, score in zip(samples, scores, strict=True):
        assert score.nll_sum == pytest.approx(alone(peft_model, sample), abs=1e-5 * score.tokens)
    with peft_model.disable_adapter():
        base = score_samples(peft_model, samples, context=200)
    assert max(abs(one.nll_sum - other.nll_sum) for one, other in zip(scores, base, strict=True)) > 0.1


def test_a_model_patched_with_the_fused_head_scores_the_same(small_llama):
    from trl.trainer.utils import add_fused_lm_head

    model = LlamaForCausalLM.from_pretrained(small_llama, dtype=torch.float32)
    samples = random_samples(5)
    plain = score_samples(model, samples, context=100)
    add_fused_lm_head(model)
    assert score_samples(model, samples, context=100) == plain


def test_scoring_leaves_modes_random_state_and_gradients_alone(peft_model):
    peft_model.train()
    peft_model.get_base_model().lm_head.eval()
    modes = [module.training for module in peft_model.modules()]
    assert True in modes
    assert False in modes
    before, python_before = torch.get_rng_state(), random.getstate()
    score_samples(peft_model, random_samples(4), context=100)
    assert [module.training for module in peft_model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), before)
    assert random.getstate() == python_before
    assert all(parameter.grad is None for parameter in peft_model.parameters())
    assert any(parameter.requires_grad for parameter in peft_model.parameters())


def test_modes_are_restored_when_scoring_fails(model):
    model.train()
    with pytest.raises(IndexError):
        score_samples(model, [TokenizedSample((5, 100_000), (IGNORE_INDEX, 7), 0, "broken")], context=16)
    assert all(module.training for module in model.modules())


def test_a_sample_longer_than_the_context_is_an_error_and_not_cut(model):
    with pytest.raises(DataError, match="17"):
        score_samples(model, [TokenizedSample((5,) * 17, (IGNORE_INDEX,) * 16 + (5,), 0, "long")], context=16)


def test_progress_is_told_of_every_row(model):
    seen = []
    score_samples(model, random_samples(20), context=64, progress=lambda done, rows: seen.append((done, rows)))
    assert [done for done, _ in seen] == list(range(1, seen[0][1] + 1))
    assert len(seen) > 3


def test_task_loss_is_the_mean_over_tokens_not_over_rows():
    # The worked example: A: [1, 2, 3] and [.5]; B: [2, 2, 2, 2] and [1, 0]; C: [4, 5]; a fourth task has no row.
    scores = [SampleScore(6.0, 3, 0), SampleScore(8.0, 4, 1), SampleScore(0.5, 1, 0), SampleScore(1.0, 2, 1), SampleScore(9.0, 2, 2)]
    losses = task_losses(scores, num_tasks=4)
    assert losses[:3] == [1.625, 1.5, 4.5]
    assert math.isnan(losses[3])
