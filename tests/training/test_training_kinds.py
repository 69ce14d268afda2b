"""Each kind of adapter learns on an NF4 base with LoRA+, noise and either optimizer, is gone on with, and merges onto the original."""

import pytest
import torch

from mft.merging import merge
from mft.merging.config import MergeOptions
from mft.modeling.adapters import add_adapter, load_adapter
from mft.modeling.config import AdapterConfig, QuantizationConfig
from mft.modeling.load import load_base
from mft.training.config import TrainingConfig
from mft.training.noise import noisy_embeddings
from mft.training.optimizers import make_optimizer, make_schedule

IDS = torch.randint(100, 4000, (1, 64), generator=torch.Generator().manual_seed(7))
STEPS = 8


def train(model, training):
    """The loss at every step on one text learnt by heart."""
    optimizer = make_optimizer(model, training)
    schedule, losses = make_schedule(optimizer, training, STEPS), []
    torch.manual_seed(1)
    with noisy_embeddings(model, training.neftune_alpha):
        for _ in range(STEPS):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = model(input_ids=IDS, labels=IDS, use_cache=False).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
    return losses


@pytest.mark.parametrize(("kind", "optimizer"), [("lora", "adamw_8bit"), ("rslora", "adamw"), ("dora", "adamw")])
def test_an_adapter_learns_is_gone_on_with_and_merges(tiny_base, tmp_path, kind, optimizer):
    config = AdapterConfig(type=kind, rank=8, alpha=8, dropout=0.0, targets="release_2023")
    training = TrainingConfig(learning_rate=5e-3, lora_plus_ratio=4, neftune_alpha=5, optimizer=optimizer, warmup=2)
    model = add_adapter(load_base(tiny_base, QuantizationConfig()), config, seed=1).train()
    first = train(model, training)
    assert first[-1] < first[0] - 1
    model.save_pretrained(tmp_path / "first")

    model = add_adapter(load_base(tiny_base, QuantizationConfig()), config, seed=2, start=tmp_path / "first").train()
    second = train(model, training)
    assert second[0] < first[0] - 1
    model.save_pretrained(tmp_path / "second")

    result = merge(tiny_base, tmp_path / "second", tmp_path / "merged", MergeOptions(verify="logits"))
    assert result.merged == 6 * 7
    assert result.max_abs_diff <= result.tolerance
    original = QuantizationConfig(type="none", compute_dtype="fp32")
    with torch.no_grad():
        unmerged = load_adapter(load_base(tiny_base, original), tmp_path / "second")(input_ids=IDS, labels=IDS).loss
        merged = load_base(tmp_path / "merged", original)(input_ids=IDS, labels=IDS).loss
    assert merged.item() == pytest.approx(unmerged.item(), rel=0.01)


def test_every_weight_of_a_full_model_learns(tiny_base):
    model = add_adapter(load_base(tiny_base, QuantizationConfig(type="none", compute_dtype="fp32")), AdapterConfig(type="full"), seed=1)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    losses = train(model.train(), TrainingConfig(learning_rate=1e-3, optimizer="adamw_8bit", warmup=2))
    assert losses[-1] < losses[0] - 1
    assert all(p.dtype == torch.float32 and not torch.equal(p, before[name]) for name, p in model.named_parameters())
