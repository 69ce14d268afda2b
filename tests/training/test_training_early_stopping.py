"""Early stopping and the best adapter follow the validation loss, and go on over a resumption as if there had been none."""

import json
import math

import pytest
from training.linear_trainer import LinearTrainer

from mft.training.config import EarlyStoppingConfig
from mft.training.early_stopping import BestEvaluation


def follow(losses, **settings):
    """(the step that is best, the step at which patience is used up) with an evaluation at steps 1, 2, ..."""
    best = BestEvaluation(EarlyStoppingConfig(**settings))
    for step, loss in enumerate(losses, start=1):
        best.improved(step, loss)
        if best.is_over:
            return best.step, step
    return best.step, None


@pytest.mark.parametrize(("losses", "settings", "expected"), [
    ([3, 2, 2.5, 2.1, 2.05, 1], {"patience": 3}, (2, 5)),
    ([3, 2, 2.5, 2.1, 1.9, 2, 2, 2], {"patience": 3}, (5, 8)),
    ([3, 2, 2, 1], {"patience": 1}, (2, 3)),                            # equal is no improvement
    ([3.0, 2.95, 2.92, 2.0], {"patience": 2, "min_delta": 0.1}, (3, 3)),    # small steps stall, yet the best is the lowest
    ([3.0, 2.95, 2.89, 2.88], {"patience": 2, "min_delta": 0.1}, (4, None)),  # together they are an improvement
    ([math.nan, math.nan], {"patience": 2}, (None, 2)),
    ([2, math.nan, math.inf], {"patience": 2}, (1, 3)),
    ([3, 2, 1], {"patience": 1}, (3, None)),
])
def test_training_stops_after_patience_evaluations_in_a_row_without_improvement(losses, settings, expected):
    assert follow(losses, **settings) == expected


LOSSES = [3.0, 2.0, 2.5, 1.5, 1.6, 1.7, 1.8, 1.0]


def train(folder, best, losses, resume=None, steps=8):
    trainer = LinearTrainer(folder, steps=steps, callbacks=[best], eval_strategy="steps", eval_steps=1, save_strategy="steps", save_steps=5,
                            evaluation_losses=losses)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def test_the_trainer_keeps_each_new_best_stops_and_saves(tmp_path):
    kept = []
    best = BestEvaluation(EarlyStoppingConfig(patience=3), lambda step, loss: kept.append((step, loss)))
    trainer = train(tmp_path, best, LOSSES)
    assert kept == [(1, 3.0), (2, 2.0), (4, 1.5)]
    assert trainer.state.global_step == best.stopped_at == 7
    assert (best.step, best.loss) == (4, 1.5)
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-5", "checkpoint-7"]


def test_the_counter_goes_on_over_a_resumption_and_an_ended_run_stays_ended(tmp_path):
    train(tmp_path, BestEvaluation(EarlyStoppingConfig(patience=3)), LOSSES)
    state = json.loads((tmp_path / "checkpoint-5" / "trainer_state.json").read_text())["stateful_callbacks"]["BestEvaluation"]
    assert state["attributes"] == {"step": 4, "loss": 1.5, "reference": 1.5, "stalled": 1, "stopped_at": None}
    kept = []
    best = BestEvaluation(EarlyStoppingConfig(patience=3), lambda step, loss: kept.append(step))
    trainer = train(tmp_path, best, LOSSES[5:], resume=str(tmp_path / "checkpoint-5"))
    assert (trainer.state.global_step, best.stopped_at, kept) == (7, 7, [])
    again = BestEvaluation(EarlyStoppingConfig(patience=3))
    trainer = train(tmp_path, again, [0.1], resume=str(tmp_path / "checkpoint-7"))
    assert (trainer.state.global_step, again.stopped_at, again.step) == (7, 7, 4)


def test_without_early_stopping_the_best_is_kept_and_training_goes_to_its_end(tmp_path):
    kept = []
    trainer = train(tmp_path, BestEvaluation(None, lambda step, loss: kept.append(step)), LOSSES)
    assert trainer.state.global_step == 8
    assert kept == [1, 2, 4, 8]
