"""The optimizer: what decays, what learns faster, what a machine cannot run, its state over a restart, the rate of every step."""

import copy

import pytest
import torch
from pydantic import ValidationError
from training.small_model import small_model
from transformers import LlamaConfig, LlamaForCausalLM

from mft.errors import ConfigError, DependencyError
from mft.modeling.adapters import add_adapter
from mft.modeling.config import AdapterConfig
from mft.training.config import TrainingConfig
from mft.training.optimizers import (
    check_optimizer,
    machine_faults,
    make_optimizer,
    make_schedule,
    optimizer_faults,
    parameter_groups,
    rate_factor,
)

SHAPE = {"vocab_size": 101, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4,
         "num_key_value_heads": 2, "attention_bias": True}


def model_of(kind, **options):
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SHAPE)).requires_grad_(False)
    return add_adapter(model, AdapterConfig(type=kind, **options), seed=1)


def described(model, training):
    """(rate, decay) -> ends of the names of the group's weights."""
    names = {id(p): name for name, p in model.named_parameters()}
    return {(group["lr"], group["weight_decay"]): {names[id(p)] for p in group["params"]} for group in parameter_groups(model, training)}


def ends(names, *endings):
    return all(name.endswith(endings) for name in names)


def test_lora_matrices_decay_and_doras_magnitudes_do_not():
    groups = described(model_of("dora", rank=2), TrainingConfig(learning_rate=0.5, weight_decay=0.1))
    assert groups.keys() == {(0.5, 0.1), (0.5, 0.0)}
    assert ends(groups[0.5, 0.1], "lora_A.default.weight", "lora_B.default.weight")
    assert len(groups[0.5, 0.1]) == 14
    assert ends(groups[0.5, 0.0], "lora_magnitude_vector.default.weight")
    assert len(groups[0.5, 0.0]) == 7


def test_of_a_full_model_norms_and_biases_do_not_decay():
    groups = described(model_of("full"), TrainingConfig(learning_rate=0.5, weight_decay=0.1))
    assert ends(groups[0.5, 0.0], "norm.weight", "layernorm.weight", ".bias")
    assert len(groups[0.5, 0.0]) == 3 + 4
    assert ends(groups[0.5, 0.1], "_proj.weight", "embed_tokens.weight", "lm_head.weight")


def test_frozen_weights_are_in_no_group_and_every_trained_one_in_one():
    model = model_of("lora", rank=2)
    grouped = [p for group in parameter_groups(model, TrainingConfig(lora_plus_ratio=4)) for p in group["params"]]
    trained = [p for p in model.parameters() if p.requires_grad]
    assert sorted(map(id, grouped)) == sorted(map(id, trained))


def test_lora_plus_gives_b_its_own_rate():
    groups = described(model_of("dora", rank=2), TrainingConfig(learning_rate=0.5, weight_decay=0.1, lora_plus_ratio=16))
    assert groups.keys() == {(0.5, 0.1), (8.0, 0.1), (0.5, 0.0)}
    assert ends(groups[0.5, 0.1], "lora_A.default.weight")
    assert ends(groups[8.0, 0.1], "lora_B.default.weight")
    assert ends(groups[0.5, 0.0], "lora_magnitude_vector.default.weight")


def test_the_first_step_of_lora_plus_moves_b_ratio_times_as_far():
    """Adam's first step is rate * sign(gradient), whatever the gradient's size."""
    model = small_model()
    before = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    optimizer = make_optimizer(model, TrainingConfig(learning_rate=1e-3, weight_decay=0, lora_plus_ratio=8))
    for p in model.parameters():
        if p.requires_grad:
            p.grad = torch.ones_like(p)
    optimizer.step()
    for name, p in model.named_parameters():
        if p.requires_grad:
            expected = 8e-3 if "lora_B" in name else 1e-3
            torch.testing.assert_close(before[name] - p, torch.full_like(p, expected), rtol=1e-3, atol=1e-6)


def test_adamw_is_torchs_with_the_configs_betas():
    optimizer = make_optimizer(small_model(), TrainingConfig(betas=(0.8, 0.9), learning_rate=0.25, weight_decay=0.5))
    assert type(optimizer) is torch.optim.AdamW
    assert [(g["lr"], g["betas"], g["weight_decay"]) for g in optimizer.param_groups] == [(0.25, (0.8, 0.9), 0.5)]
    with pytest.raises(ValidationError, match=r"betas"):
        TrainingConfig(betas=(0.9, 1.0))


class Wide(torch.nn.Module):
    """A matrix and an embedding large enough for 8-bit state (4096 numbers), and a vector that is not."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = torch.nn.Embedding(128, 64)
        self.linear = torch.nn.Linear(64, 128)

    def losses(self, optimizer, steps):
        found = []
        for step in range(steps):
            ids = torch.arange(step, step + 32) % 128
            loss = (self.linear(self.embedding(ids)) - 1).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found.append(loss.item())
        return found


def test_eight_bit_state_is_held_in_eight_bits_but_for_embeddings_and_small_tensors():
    model = Wide()
    optimizer = make_optimizer(model, TrainingConfig(optimizer="adamw_8bit", learning_rate=1e-2))
    assert model.losses(optimizer, 20)[-1] < 0.7
    assert optimizer.state[model.linear.weight]["state1"].dtype == torch.uint8
    assert optimizer.state[model.embedding.weight]["state1"].dtype == torch.float32
    assert optimizer.state[model.linear.bias]["state1"].dtype == torch.float32


@pytest.mark.parametrize("name", ["adamw", "adamw_8bit"])
def test_a_restarted_optimizer_goes_on_to_the_bit(name, tmp_path):
    training = TrainingConfig(optimizer=name, learning_rate=1e-2, weight_decay=0.1)
    model = Wide()
    optimizer = make_optimizer(model, training)
    model.losses(optimizer, 3)
    other = copy.deepcopy(model)
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    restarted = make_optimizer(other, training)
    restarted.load_state_dict(torch.load(tmp_path / "optimizer.pt", weights_only=True))
    assert other.losses(restarted, 3) == model.losses(optimizer, 3)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine can run paged optimizers")
@pytest.mark.parametrize(("name", "instead"), [("paged_adamw", "adamw"), ("paged_adamw_8bit", "adamw_8bit")])
def test_a_paged_optimizer_without_cuda_is_refused_at_once(name, instead):
    with pytest.raises(ConfigError, match=f"training.optimizer: {name}: .* no CUDA device; use {instead}$"):
        check_optimizer(name)
    assert len(machine_faults(name)) == 1
    with pytest.raises(ConfigError, match="no CUDA device"):
        make_optimizer(small_model(), TrainingConfig(optimizer=name))


def test_a_missing_bitsandbytes_is_named_with_the_command(monkeypatch):
    monkeypatch.setattr("mft.training.optimizers.find_spec", lambda name: None)
    check_optimizer("adamw")
    with pytest.raises(DependencyError, match=r"adamw_8bit needs the package 'bitsandbytes'.*pip install"):
        check_optimizer("adamw_8bit")


def test_settings_that_would_not_act_are_named():
    assert optimizer_faults(TrainingConfig(lora_plus_ratio=16), AdapterConfig()) == []
    assert optimizer_faults(TrainingConfig(optimizer="adamw_8bit"), AdapterConfig(type="full")) == []
    (fault,) = optimizer_faults(TrainingConfig(lora_plus_ratio=16), AdapterConfig(type="full"))
    assert fault.startswith("training.lora_plus_ratio: LoRA+ sets the rate of an adapter's B matrices, but adapter.type is full")


def rates(steps, **options):
    """The rate that each step is taken with, through the optimizer itself."""
    training = TrainingConfig(learning_rate=1.0, **options)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=training.learning_rate)
    schedule, found = make_schedule(optimizer, training, steps), []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_warm_up_begins_above_zero_and_ends_at_the_full_rate():
    assert rates(8, schedule="constant", warmup=4) == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]
    assert rates(3, schedule="constant", warmup=0) == [1, 1, 1]
    assert rates(8, schedule="constant", warmup=0.5) == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]


def test_cosine_falls_towards_the_floor_which_the_step_after_the_last_would_have():
    falling = [0.1 + 0.9 * share for share in (0.9045084972, 0.6545084972, 0.3454915028, 0.0954915028)]
    assert rates(7, warmup=3, min_learning_rate=0.1) == pytest.approx([1 / 3, 2 / 3, 1, *falling])
    assert rates(5, warmup=0, min_learning_rate=0.1) == pytest.approx([1, *falling])
    assert min(rates(100, warmup=0.03)) > 0


def test_linear_falls_towards_zero_which_no_step_has():
    assert rates(5, schedule="linear", warmup=2) == pytest.approx([0.5, 1, 0.75, 0.5, 0.25])
    assert rates(4, schedule="linear", warmup=0) == pytest.approx([1, 0.75, 0.5, 0.25])


def test_the_shortest_runs_and_warm_ups_longer_than_the_run_have_a_rate_for_every_step():
    assert rates(1, warmup=0) == [1]
    assert rates(1, warmup=0.03) == [1]
    assert rates(3, warmup=300) == pytest.approx([1 / 300, 2 / 300, 3 / 300])
    assert rate_factor(TrainingConfig(learning_rate=1.0, min_learning_rate=0.1, warmup=2), 5)(99) == pytest.approx(0.1)


def test_the_floor_of_lora_plus_is_in_proportion():
    training = TrainingConfig(learning_rate=0.5, min_learning_rate=0.05, lora_plus_ratio=4, warmup=0)
    optimizer = make_optimizer(small_model(), training)
    schedule = make_schedule(optimizer, training, 2)
    optimizer.step()
    schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.275, 1.1])
