"""The exact multi-task loss: REFERENCE's worked example, and the same loss for any layout of the step."""

import pytest
import torch

from mft.training.losses import StepCounts, coefficients, count_step, task_loss

# Samples s1..s5 of tasks A, A, B, B, C and their token losses; the worked example of the loss table.
SAMPLES = [(0, [1.0, 2.0, 3.0]), (0, [0.5]), (1, [2.0, 2.0, 2.0, 2.0]), (1, [1.0, 0.0]), (2, [4.0, 5.0])]
EXPECTED = {
    "token_mean": (2.0416667, [1 / 12] * 5), "sample_mean": (1.9, [.0666667, .2, .05, .1, .1]),
    "task_token_mean": (2.5416667, [.0833333, .0833333, .0555556, .0555556, .1666667]),
    "task_sample_mean": (2.3333333, [.0555556, .1666667, .0416667, .0833333, .1666667]),
}


def row(indices, context=1):
    """Tensors [1, T] of samples laid side by side, each behind `context` untrained tokens, and one padding token."""
    losses, labels, tasks, samples = [], [], [], []
    for place, index in enumerate(indices):
        task, values = SAMPLES[index]
        losses += [9.9] * context + values
        labels += [-100] * context + [7] * len(values)
        tasks += [task] * (context + len(values))
        samples += [place] * (context + len(values))
    columns = ([*losses, 9.9], [*labels, -100], [*tasks, 0], [*samples, -1])
    return tuple(torch.tensor([column]) for column in columns)


@pytest.mark.parametrize("mode", EXPECTED)
def test_the_worked_example_gives_the_published_loss_and_coefficients(mode):
    losses, labels, tasks, samples = row(range(5))
    expected, per_sample = EXPECTED[mode]
    assert task_loss(losses, labels, tasks, samples, mode).item() == pytest.approx(expected, abs=1e-6)
    scale = coefficients(labels, tasks, samples, mode, count_step(labels, tasks, samples, 3))
    assert [scale[0][(samples[0] == index) & (labels[0] != -100)][0].item() for index in range(5)] == pytest.approx(per_sample, abs=1e-6)
    assert scale[labels == -100].abs().sum() == 0


@pytest.mark.parametrize(("mode", "expected"), [("task_token_mean", 2.3125), ("task_sample_mean", 2.0625)])
def test_weights_act_in_the_task_modes(mode, expected):
    assert task_loss(*row(range(5)), mode, [2.0, 1.0, 1.0]).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("mode", EXPECTED)
@pytest.mark.parametrize("layout", [[[0, 2], [1, 3, 4]], [[4], [3], [2], [1], [0]], [[0, 1, 2, 3, 4]], [[4, 0], [1, 3], [2]]])
def test_micro_batches_add_up_to_the_loss_of_the_step_whatever_the_layout(mode, layout):
    batches = [row(indices) for indices in layout]
    counts = StepCounts(torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64))
    for batch in batches:
        counts = counts + count_step(*batch[1:], 3)
    parts = [task_loss(*batch, mode, num_tasks=3, counts=counts).item() for batch in batches]
    assert sum(parts) == pytest.approx(EXPECTED[mode][0], abs=1e-6)


def test_the_two_rank_example_has_the_published_partial_sums():
    ranks = [row([0, 2]), row([1, 3, 4])]
    counts = count_step(*ranks[0][1:], 3) + count_step(*ranks[1][1:], 3)
    parts = [task_loss(*batch, "task_token_mean", num_tasks=3, counts=counts).item() for batch in ranks]
    assert parts == pytest.approx([.9444444, 1.5972222], abs=1e-6)


def test_a_task_that_is_absent_from_the_step_takes_no_part():
    batch = row([0, 1])
    assert task_loss(*batch, "task_token_mean", [1.0, 5.0, 5.0]).item() == pytest.approx(6.5 / 4)


def test_one_task_balanced_by_tokens_is_the_token_mean():
    losses, labels, tasks, samples = row(range(5))
    alone = torch.zeros_like(tasks)
    assert task_loss(losses, labels, alone, samples, "task_token_mean").item() == pytest.approx(24.5 / 12)


def test_bad_calls_are_refused():
    losses, labels, tasks, samples = row(range(5))
    with pytest.raises(ValueError, match="weights act in"):
        task_loss(losses, labels, tasks, samples, "token_mean", [1.0, 1.0, 1.0])
    with pytest.raises(ValueError, match="shapes differ"):
        task_loss(losses[:, 1:], labels, tasks, samples, "token_mean")
    with pytest.raises(ValueError, match="no token"):
        task_loss(losses, torch.full_like(labels, -100), tasks, samples, "token_mean")


def test_a_loss_that_is_not_a_number_outside_the_trained_tokens_does_no_harm():
    losses, labels, tasks, samples = row(range(5))
    losses = losses.masked_fill(labels == -100, float("nan"))
    assert task_loss(losses, labels, tasks, samples, "token_mean").item() == pytest.approx(24.5 / 12)
