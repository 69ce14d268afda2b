"""Every sample once an epoch and every validation sample once, on any number of ranks; the order depends on the seed alone."""

import pytest
import torch
from training.small_model import random_samples, rows_of, small_model

from mft.scoring.loss import score_samples, task_losses
from mft.training.rows import DealtBatches, PackedRows, RankLoader
from mft.training.validation import task_sums_of, validation_losses

SAMPLES = random_samples(50)


def batches(ranks: int, micro: int = 1, seed: int = 1, epoch: int = 0, global_rows: int = 12) -> list[list[list[int]]]:
    rows = rows_of(SAMPLES, [[index] for index in range(50)])
    dealt = [DealtBatches(rows, seed, global_rows=global_rows, micro_rows=micro, rank=rank, ranks=ranks) for rank in range(ranks)]
    for one in dealt:
        one.set_epoch(epoch)
    made = [list(one) for one in dealt]
    assert [len(one) for one in dealt] == [len(one) for one in made]
    return made


def steps(made: list[list[list[int]]], micro_steps: int) -> list[set[int]]:
    """The rows of each optimizer step, over all ranks."""
    return [{row for own in made for batch in own[start:start + micro_steps] for row in batch}
            for start in range(0, len(made[0]), micro_steps)]


@pytest.mark.parametrize(("ranks", "micro"), [(1, 1), (2, 1), (3, 1), (2, 2), (4, 3), (12, 1)])
def test_every_row_once_an_epoch_and_the_same_ones_in_each_step_on_any_number_of_ranks(ranks, micro):
    made = batches(ranks, micro)
    assert sorted(row for own in made for batch in own for row in batch) == list(range(50))
    assert len({len(own) for own in made}) == 1   # or a rank would wait for ever
    assert all(len(batch) <= micro for own in made for batch in own)
    assert steps(made, 12 // (ranks * micro)) == steps(batches(1), 12)


def test_seed_and_epoch_decide_the_order_and_nothing_else():
    assert batches(2) == batches(2)
    assert batches(2, epoch=1) != batches(2)
    assert batches(2, seed=2) != batches(2)


def test_an_empty_micro_batch_holds_one_sample_of_which_nothing_is_trained():
    rows = rows_of(SAMPLES, [[0, 1], [2]])
    batch = rows.batch([])
    assert batch["samples"].tolist() == []
    assert batch["input_ids"].shape == (1, len(SAMPLES[0].input_ids))
    assert (batch["labels"] == -100).all()
    assert rows.batch([[0, 1], [2]])["samples"].tolist() == [0, 1, 2]


def test_a_loader_gives_the_rows_of_its_rank_and_of_the_epoch_that_is_set():
    rows = rows_of(SAMPLES, [[index] for index in range(50)])
    loader = RankLoader(rows, DealtBatches(rows, 1, global_rows=12, micro_rows=2, rank=1, ranks=3))
    loader.set_epoch(1)
    wanted = batches(3, micro=2, epoch=1)[1]
    assert [batch["samples"].tolist() for batch in loader] == wanted
    assert len(loader) == len(wanted)


class OneOf:
    """A rank among several, whose reduction keeps what each of them has given."""

    device = torch.device("cpu")

    def __init__(self, rank: int, ranks: int) -> None:
        self.process_index, self.num_processes, self.given = rank, ranks, None

    def reduce(self, tensor: torch.Tensor, reduction: str) -> torch.Tensor:
        self.given = tensor.clone()
        return tensor


@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
def test_every_validation_sample_is_scored_once_and_all_ranks_run_as_many_passes(ranks):
    model, passes = small_model().eval(), []
    model.register_forward_hook(lambda *_: passes.append(1))
    wanted = task_losses(score_samples(model, SAMPLES, context=64), 3)
    passes_of, parts = [], []
    for rank in range(ranks):
        passes.clear()
        one = OneOf(rank, ranks)
        task_sums_of(model, SAMPLES, range(50), num_tasks=3, context=64, ranks=one)
        passes_of.append(len(passes))
        parts.append(one.given)
    totals = torch.stack(parts).sum(0)
    assert len(set(passes_of)) == 1
    assert totals[1].sum() == sum(sample.trained_tokens for sample in SAMPLES)
    losses = validation_losses(totals, ["a", "b", "c"])
    assert [losses[f"eval/loss/task/{name}"] for name in "abc"] == pytest.approx(wanted, rel=1e-6)


def test_a_task_without_a_validation_sample_has_no_loss():
    losses = validation_losses(torch.tensor([[6.0, 0.0], [3.0, 0.0]]), ["a", "b"])
    assert losses == {"eval/loss": 2.0, "eval/loss/task/a": 2.0, "eval/perplexity/task/a": pytest.approx(7.38905609893065),
                      "eval/tokens/task/a": 3}


def test_rows_that_are_packed_hold_every_sample_once():
    rows = PackedRows(SAMPLES, 64, seed=3)
    assert sorted(index for row in rows.rows for index in row) == list(range(50))
