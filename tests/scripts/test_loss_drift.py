"""The drift study computes both losses as they are defined, on an example worked out by hand."""

import importlib.util
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
A, B, C = 0, 1, 2


@pytest.fixture(scope="module")
def study():
    spec = importlib.util.spec_from_file_location("loss_drift", ROOT / "scripts" / "loss_drift.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, spec.name, module)
        spec.loader.exec_module(module)
        yield module


def row(study, *samples, width=3):
    tasks = torch.tensor([task for task, losses in samples for _ in losses])
    losses = torch.tensor([loss for _, losses in samples for loss in losses], dtype=torch.float64)
    return study.Row(tasks, losses, losses[:, None].float() * torch.ones(1, width), torch.ones(len(losses), 2))


def worked_example(study):
    return [row(study, (A, [1, 2, 3]), (B, [2, 2, 2, 2])), row(study, (A, [0.5]), (B, [1, 0]), (C, [4, 5]))]


def test_the_exact_loss_and_the_one_of_each_micro_batch_are_those_worked_out_by_hand(study):
    rows = worked_example(study)
    losses = torch.cat([one.losses for one in rows])
    assert float((study.exact(rows, 3) * losses).sum()) == pytest.approx(2.5416667)
    for ranks, micro in ((1, 1), (2, 1)):
        assert float((study.per_micro_batch(rows, 3, ranks, micro) * losses).sum()) == pytest.approx(1.9166667)


def test_one_micro_batch_on_one_rank_is_exact(study):
    rows = worked_example(study)
    assert torch.equal(study.per_micro_batch(rows, 3, 1, 2), study.exact(rows, 3))


def test_effective_weights_and_relative_differences_of_a_step(study, monkeypatch):
    monkeypatch.setattr(study, "LAYOUTS", [(2, 1)])
    step = study.drift_of_step(worked_example(study), 3)
    assert step["tokens"] == [4, 6, 2]
    assert step["exact"] == pytest.approx([1 / 3] * 3)
    drift = step["2 x 1"]
    assert drift["weights"] == pytest.approx([5 / 12, 5 / 12, 2 / 12])   # halves of (1/2, 1/2, 0) and (1/3, 1/3, 1/3)
    assert drift["loss"] == pytest.approx(0.625 / 2.5416667)
    assert drift["gradient"] == pytest.approx(0.625 / 2.5416667)   # each token's gradient is its loss times ones


def test_rows_keep_their_coefficients_when_they_are_dealt_to_ranks_in_turn(study):
    rows = [row(study, (A, [1.0])), row(study, (B, [1.0, 1.0])), row(study, (A, [1.0])), row(study, (A, [1.0, 1.0, 1.0]))]
    # Rank 0 has rows 0 and 2, rank 1 rows 1 and 3: two micro-batches of two rows, each worth a half.
    assert study.per_micro_batch(rows, 2, 2, 2).tolist() == pytest.approx([1 / 4, 1 / 8, 1 / 8, 1 / 4, 1 / 12, 1 / 12, 1 / 12])


def test_rows_that_no_layout_can_share_are_refused(study, capsys):
    assert study.main(["--data", "x.jsonl", "--rows", "12"]) == 2
    assert "multiple of 32" in capsys.readouterr().err
