"""Layers that are computed again give the gradients of layers that are kept, to the bit, whatever is chosen."""

import sys
from pathlib import Path

import pytest
import torch
from peft.tuners.lora import LoraLayer
from trl.trainer.utils import add_fused_lm_head

from mft.errors import ModelError
from mft.modeling.adapters import add_adapter, quantization_of_base
from mft.modeling.config import AdapterConfig, QuantizationConfig
from mft.modeling.modes import uncast_inputs
from mft.modeling.recompute import LEVELS, Recompute, candidates, cheapest, every
from mft.modeling.recompute_layers import recompute_all, recompute_layers

ROOT = Path(__file__).resolve().parents[2]
SHAPE = {"model_type": "llama", "num_hidden_layers": 3, "hidden_size": 128, "intermediate_size": 320, "num_attention_heads": 4,
         "num_key_value_heads": 2, "vocab_size": 96, "max_position_embeddings": 128}
KINDS = {
    "NF4, LoRA, dropout, bf16": (AdapterConfig(rank=4, dropout=0.3), QuantizationConfig()),
    "NF4, DoRA, dropout, bf16": (AdapterConfig(rank=4, dropout=0.3, type="dora"), QuantizationConfig()),
    "float32": (AdapterConfig(rank=4, dropout=0.1), QuantizationConfig(type="none", compute_dtype="fp32")),
    "all weights, bf16": (AdapterConfig(type="full"), QuantizationConfig(type="none"))}
CHOICES = [*(every(level, 3) for level in LEVELS), Recompute(("full", "norms", "keep")), Recompute(("mlp", "attention", "keep"))]


@pytest.fixture(scope="module")
def random_llama():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "scripts" / "bench"))
        import random_llama

        yield random_llama.random_llama
        sys.modules.pop("random_llama", None)


def trained(random_llama, kind, recompute):
    """Loss and gradients of two micro-batches of packed samples, with the same dropout each time."""
    adapter, quantization = KINDS[kind]
    model = random_llama(SHAPE, quantization_of_base(adapter, quantization), torch.device("cpu"), "sdpa")
    add_fused_lm_head(model)
    model = add_adapter(model, adapter, seed=1).train()
    if recompute is not None:
        recompute_layers(model, recompute)
    bf16 = quantization.compute_dtype == "bf16"
    generator = torch.Generator().manual_seed(3)
    torch.manual_seed(9)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    layers = [layer for layer in model.modules() if isinstance(layer, LoraLayer)] if bf16 else []
    losses = []
    with uncast_inputs(layers):
        for tokens in (40, 25):
            ids = torch.randint(0, 96, (1, tokens), generator=generator)
            positions = torch.cat([torch.arange(15), torch.arange(tokens - 15)])[None]
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
                loss = -model(input_ids=ids, position_ids=positions, labels=ids, use_cache=False, fused_lm_head=True).log_probs.mean()
            loss.backward()
            losses.append(loss.item())
    return losses, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}, torch.get_rng_state()


@pytest.mark.parametrize("kind", KINDS)
def test_loss_gradients_and_random_numbers_are_those_of_no_recomputation_to_the_bit(random_llama, kind):
    losses, gradients, random = trained(random_llama, kind, None)
    assert all(gradient.abs().max() > 0 for name, gradient in gradients.items() if "lora" in name)
    for choice in CHOICES:
        again = trained(random_llama, kind, choice)
        assert again[0] == losses, choice
        assert again[1].keys() == gradients.keys()
        assert all(torch.equal(again[1][name], gradient) for name, gradient in gradients.items()), choice
        assert torch.equal(again[2], random)


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_each_level_runs_again_what_it_says_and_nothing_else(random_llama, choice):
    model = random_llama(SHAPE, QuantizationConfig(type="none", compute_dtype="fp32"), torch.device("cpu"), "sdpa")
    model = add_adapter(model, AdapterConfig(rank=4), seed=1).train()
    runs = {}
    for index, layer in enumerate(model.model.model.layers):
        for part in ("input_layernorm", "self_attn", "mlp"):
            inner = {"self_attn": layer.self_attn.q_proj, "mlp": layer.mlp.gate_proj, "input_layernorm": layer.input_layernorm}[part]
            forward = inner.forward

            def counted(*args, _key=(index, part), _forward=forward, **options):
                runs[_key] = runs.get(_key, 0) + 1
                return _forward(*args, **options)

            inner.forward = counted
    recompute_layers(model, choice)
    ids = torch.arange(20)[None]
    model(input_ids=ids, use_cache=False).logits.sum().backward()
    again = {"keep": (), "norms": ("input_layernorm",), "attention": ("input_layernorm", "self_attn"), "mlp": ("input_layernorm", "mlp"),
             "full": ("input_layernorm", "self_attn", "mlp")}
    for (index, part), number in runs.items():
        first_norm = index == 0 and part == "input_layernorm" and choice.levels[0] != "full"   # no gradient flows into it
        assert number == (2 if part in again[choice.levels[index]] and not first_norm else 1), (index, part)
    before = dict(runs)
    with torch.no_grad():
        model(input_ids=ids, use_cache=False)
    assert runs == {key: number + 1 for key, number in before.items()}


def test_a_plan_for_another_number_of_layers_is_refused(random_llama):
    model = random_llama(SHAPE, QuantizationConfig(type="none", compute_dtype="fp32"), torch.device("cpu"), "sdpa")
    with pytest.raises(ModelError, match="has 3 layers that can be recomputed, and the plan is one for 4"):
        recompute_layers(model, every("full", 4))
    assert recompute_all(model) == every("full", 3)
    with pytest.raises(ModelError, match=r"no layers that can be recomputed; set training\.recompute: none"):
        recompute_all(torch.nn.Linear(2, 2))


def test_the_cheapest_is_taken_of_what_fits_and_more_room_never_costs_more():
    choices = list(candidates(4))
    assert {choice.levels for choice in choices} >= {
        ("full",) * 4, ("keep",) * 4, ("full", "keep", "keep", "keep"), ("mlp", "mlp", "norms", "norms")}
    assert all(choice.levels == tuple(sorted(choice.levels, key=LEVELS.index)) for choice in choices)
    kept = {"full": 1, "mlp": 4, "attention": 6, "norms": 9, "keep": 10}
    cost = {"full": 10.0, "mlp": 7.0, "attention": 3.0, "norms": 0.5, "keep": 0.0}
    costs = []
    for room in range(4, 41):
        chosen = cheapest(choices, lambda choice: sum(cost[level] for level in choice.levels),
                          lambda choice, room=room: sum(kept[level] for level in choice.levels) <= room)
        costs.append(sum(cost[level] for level in chosen.levels))
    assert costs == sorted(costs, reverse=True)
    assert (costs[0], costs[-1]) == (40.0, 0.0)
