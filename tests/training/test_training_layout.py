"""Law 6: loss and gradients of one optimizer step do not depend on how its samples are laid out."""

import json

import pytest
import torch
from training.small_model import make_trainer, random_samples, rows_of, small_model
from transformers import TrainerCallback

from mft.tokenization.packing import pack

ALONE = [[index] for index in range(12)]
LAYOUTS = {
    "1x12": (ALONE, 12), "3x4": (ALONE, 4), "12x1": (ALONE, 1), "reversed": (ALONE[::-1], 5),
    "packed in rows of 128": (None, 1), "one row": ([list(range(12))], 1), "two uneven rows": ([list(range(9)), [11, 10, 9]], 1),
}


class KeepGradients(TrainerCallback):
    """The gradients that the optimizer is about to use, before clipping has changed anything but their scale."""

    def __init__(self):
        self.gradients = {}

    def on_pre_optimizer_step(self, args, state, control, model=None, **_):
        self.gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


def one_step(layout, micro, folder, balance):
    samples = random_samples()
    layout = layout or pack([len(sample.input_ids) for sample in samples], 128, seed=4)
    weights = {"b": 2.0} if balance.startswith("task_") else None
    trainer = make_trainer(small_model(), rows_of(samples, layout), folder, micro=micro, balance=balance, weights=weights)
    trainer.args.max_grad_norm = 1e9
    keep = KeepGradients()
    trainer.add_callback(keep)
    trainer.train()
    line = json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])
    return line, keep.gradients


@pytest.mark.parametrize("balance", ["task_token_mean", "token_mean", "sample_mean", "task_sample_mean"])
def test_loss_and_every_adapter_gradient_are_equal_for_every_layout(balance, tmp_path):
    results = {}
    for name, (layout, micro) in LAYOUTS.items():
        folder = tmp_path / name.replace(" ", "-")
        folder.mkdir()
        results[name] = one_step(layout, micro, folder, balance)
    reference_line, reference = results.pop("1x12")
    assert len(reference) == 2 * 7 * 2
    assert all(gradient.norm() > 0 for gradient in reference.values())
    for name, (line, gradients) in results.items():
        assert line["loss"] == pytest.approx(reference_line["loss"], rel=1e-5), name
        for task in "abc":
            assert line[f"loss/task/{task}"] == pytest.approx(reference_line[f"loss/task/{task}"], rel=1e-5), name
            assert line[f"tokens/task/{task}"] == reference_line[f"tokens/task/{task}"]
        worst = max(((gradients[key] - reference[key]).norm() / reference[key].norm()).item() for key in reference)
        assert worst <= 1e-5, f"{name}: {worst}"


def test_the_step_loss_is_the_formula_written_out(tmp_path):
    line, _ = one_step(ALONE, 3, tmp_path, "task_token_mean")
    weights = {"a": 1.0, "b": 2.0, "c": 1.0}
    written_out = sum(weights[task] / 4.0 * line[f"loss/task/{task}"] for task in "abc")
    assert line["loss"] == pytest.approx(written_out, rel=1e-6)


def test_a_sample_seen_with_a_cache_or_a_mask_would_break_the_law(tmp_path):
    model = small_model().eval()
    samples = random_samples(2)
    ids = torch.tensor([samples[0].input_ids + samples[1].input_ids])
    positions = torch.tensor([[*range(len(samples[0].input_ids)), *range(len(samples[1].input_ids))]])
    with torch.no_grad():
        alone = model(input_ids=torch.tensor([samples[1].input_ids]), use_cache=False).logits[0]
        packed = model(input_ids=ids, position_ids=positions, use_cache=False).logits[0, len(samples[0].input_ids):]
        leaking = model(input_ids=ids, position_ids=positions, attention_mask=torch.ones_like(ids)).logits[0, len(samples[0].input_ids):]
    assert (packed - alone).abs().max() < 1e-5
    assert (leaking - alone).abs().max() > 1e-3
