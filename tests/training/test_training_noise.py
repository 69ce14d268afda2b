"""NEFTune: noise of the size of the sample, in training only, gone afterwards, the same from the same generator state."""

import pytest
import torch
from training.small_model import random_samples, small_model

from mft.modeling.modes import without_dropout
from mft.tokenization.collate import collate
from mft.training.noise import noisy_embeddings, sample_lengths

POSITIONS = torch.tensor([[*range(16), *range(4), *range(100)]])
IDS = torch.arange(120)[None] % 101


def embedded(model, alpha):
    """What the first layer sees, less the embeddings themselves: [T, d]."""
    seen = []
    layer = model.base_model.model.model.layers[0]
    handle = layer.register_forward_pre_hook(lambda module, args, kwargs: seen.append((args or (kwargs["hidden_states"],))[0]),
                                             with_kwargs=True)
    with noisy_embeddings(model, alpha):
        model(input_ids=IDS, position_ids=POSITIONS, use_cache=False)
    handle.remove()
    return (seen[0] - model.get_input_embeddings()(IDS))[0].detach()


def test_each_sample_of_a_packed_row_has_the_noise_it_would_have_alone():
    model = small_model().train()
    torch.manual_seed(1)
    noise = embedded(model, alpha=5.0)
    for start, length in ((0, 16), (16, 4), (20, 100)):
        size, part = 5 / (length * 32) ** 0.5, noise[start:start + length]
        assert part.abs().max() <= size
        assert part.abs().max() > 0.9 * size
        assert part.std().item() == pytest.approx(size / 3**0.5, rel=0.15)
        assert abs(part.mean().item()) < 0.2 * size


def test_there_is_no_noise_in_evaluation_nor_after_the_block():
    model = small_model().train()
    with without_dropout(model):
        assert not embedded(model, alpha=5.0).any()
    assert embedded(model, alpha=5.0).any()
    assert not embedded(model, alpha=0.0).any()
    assert not model._forward_pre_hooks
    assert not model.get_input_embeddings()._forward_hooks


def test_the_same_generator_state_gives_the_same_noise():
    model = small_model().train()
    torch.manual_seed(4)
    embedded(model, alpha=5.0)
    state = torch.get_rng_state()
    first = embedded(model, alpha=5.0)
    torch.set_rng_state(state)
    assert torch.equal(embedded(model, alpha=5.0), first)
    assert not torch.equal(embedded(model, alpha=5.0), first)


def test_the_gradients_of_a_trained_step_feel_the_noise():
    batch = collate(random_samples(4))
    model = small_model().train()
    gradients = []
    for alpha in (0.0, 5.0):
        torch.manual_seed(2)
        model.zero_grad()
        with noisy_embeddings(model, alpha):
            output = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], labels=batch["labels"],
                           use_cache=False, fused_lm_head=True)
        (-output.log_probs.sum()).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert not torch.allclose(*gradients)


def test_lengths_are_those_of_the_samples_row_by_row():
    assert sample_lengths(torch.tensor([[0, 1, 2, 0, 1], [0, 0, 1, 2, 3]])).tolist() == [[3, 3, 3, 2, 2], [1, 4, 4, 4, 4]]
    assert sample_lengths(torch.tensor([[5, 6], [7, 8]])).tolist() == [[2, 2], [2, 2]]
