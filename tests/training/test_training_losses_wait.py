"""The loss of a micro-batch asks a GPU for no value: shown with tensors that have shapes and no values, where asking is an error."""

import pytest
import torch
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode

from mft.training.losses import StepCounts, count_step, task_loss, task_sums


@pytest.mark.parametrize("mode", ["token_mean", "sample_mean", "task_token_mean", "task_sample_mean"])
def test_no_mode_waits_for_the_device(mode):
    with FakeTensorMode():
        labels, tasks, samples = (torch.zeros(1, 12, dtype=torch.int64) for _ in range(3))
        losses = torch.zeros(1, 12, requires_grad=True)
        counts = StepCounts(torch.ones(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64))
        weights = [1.0, 2.0, 1.0] if mode.startswith("task_") else None
        task_loss(losses, labels, tasks, samples, mode, weights, num_tasks=3, counts=counts, num_samples=4).backward()
        assert task_sums(losses, labels, tasks, 3).shape == (3,)


def test_the_check_itself_sees_a_wait():
    with FakeTensorMode(), pytest.raises(DynamicOutputShapeException):
        count_step(*(torch.zeros(1, 12, dtype=torch.int64) for _ in range(3)), 3)
