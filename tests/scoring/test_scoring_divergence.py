"""KL and first choices between two models: against a sum written out, whatever the packing, in memory and through a file."""

import math

import pytest
import torch

from mft.errors import DataError, ModelError
from mft.modeling.config import QuantizationConfig
from mft.modeling.load import load_base
from mft.scoring.divergence import compare, divergence, record
from mft.tokenization.encode import TokenizedSample

SAMPLES = [TokenizedSample(tuple(range(start, start + length)), (-100, *range(start + 1, start + length)), 0, f"s{start}")
           for start, length in ((5, 9), (40, 17), (100, 4), (260, 30))]


@pytest.fixture(scope="module")
def models(small_llama):
    original = load_base(small_llama, QuantizationConfig(type="none", compute_dtype="fp32"))
    changed = load_base(small_llama, QuantizationConfig(type="none", compute_dtype="fp32"))
    for name, weight in changed.named_parameters():
        if name.endswith("_proj.weight"):
            weight.data += 0.02 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(len(name)))
    return original, changed


def by_hand(p_model, q_model):
    """KL of every trained token, one sample at a time, in float64."""
    kls, same = [], []
    for sample in SAMPLES:
        ids = torch.tensor([sample.input_ids])
        with torch.no_grad():
            p, q = (model(ids).logits[0, :-1].double().softmax(-1) for model in (p_model, q_model))
        kls += [sum(float(a) * (math.log(a) - math.log(b)) for a, b in zip(*rows, strict=True)) for rows in zip(p, q, strict=True)]
        same += (p.argmax(-1) == q.argmax(-1)).tolist()
    return sum(kls) / len(kls), sum(same) / len(same), len(kls)


def test_it_is_the_sum_that_the_formula_says(models):
    kl, same, tokens = by_hand(*models)
    found = divergence(*models, SAMPLES, context=64)
    assert found.tokens == tokens == 56
    assert found.kl == pytest.approx(kl, rel=1e-4)
    assert found.top1_agreement == pytest.approx(same)
    assert found.kl > 1e-4


def test_it_does_not_depend_on_how_samples_are_packed(models):
    loose, tight = (divergence(*models, SAMPLES, context=context) for context in (30, 512))
    assert loose.kl == pytest.approx(tight.kl, rel=1e-4)
    assert loose.loss == pytest.approx(tight.loss, rel=1e-5)


def test_through_a_file_is_as_in_memory(models, tmp_path):
    reference = record(models[0], SAMPLES, tmp_path / "reference.bin", context=64)
    assert (tmp_path / "reference.bin").stat().st_size == 4 * 56 * 512
    assert compare(reference, models[1], SAMPLES, context=64).kl == pytest.approx(divergence(*models, SAMPLES, context=64).kl, rel=1e-6)


def test_a_model_is_not_far_from_itself_and_kl_is_not_symmetric(models):
    own = divergence(models[0], models[0], SAMPLES, context=64)
    assert (own.kl, own.top1_agreement, own.loss) == (0.0, 1.0, own.reference_loss)
    assert divergence(*models, SAMPLES, context=64).kl != divergence(*reversed(models), SAMPLES, context=64).kl


def test_the_loss_is_that_of_the_model_not_of_the_reference(models):
    found, turned = divergence(*models, SAMPLES, context=64), divergence(*reversed(models), SAMPLES, context=64)
    assert (found.loss, found.reference_loss) == pytest.approx((turned.reference_loss, turned.loss))
    assert found.perplexity == pytest.approx(math.exp(found.loss))


def test_other_samples_than_were_recorded_are_refused(models, tmp_path):
    reference = record(models[0], SAMPLES, tmp_path / "reference.bin", context=64)
    with pytest.raises(ModelError, match="27 trained tokens, but 56 were recorded"):
        compare(reference, models[1], SAMPLES[:3], context=64)


def test_samples_without_a_trained_token_are_refused(models, tmp_path):
    untrained = [TokenizedSample((1, 2, 3), (-100, -100, -100), 0, "u")]
    with pytest.raises(DataError, match="no token of these samples is trained"):
        divergence(*models, untrained, context=64)


def test_gradients_and_modes_are_as_before_also_while_it_runs(models):
    models[1].train()
    seen = []
    divergence(*models, SAMPLES, context=30, progress=lambda done, total: seen.append(torch.is_grad_enabled()))
    assert set(seen) == {True}
    assert torch.is_grad_enabled()
    assert (models[0].training, models[1].training) == (False, True)
    models[1].eval()
