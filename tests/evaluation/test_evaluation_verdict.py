"""The paired difference and what is called a fall and a rise."""

import math
import random
import statistics

import pytest

from mft.config.load import parse_config
from mft.errors import CheckFailed, ConfigError
from mft.evaluation.config import LossOptions
from mft.evaluation.loss import LossResult, check
from mft.evaluation.paired import PairedDifference, mean_loss, paired_difference
from mft.evaluation.verdict import LossTable, judge, loss_table
from mft.scoring.loss import SampleScore


def scores(nll: list[float], tokens: list[int]) -> list[SampleScore]:
    return [SampleScore(value, count, 0) for value, count in zip(nll, tokens, strict=True)]


def table(mean: float, se: float | None, rows: int = 100, name: str = "train") -> LossTable:
    return LossTable(rows, 1000, {"base": 2.0, name: 2.0 + mean}, {name: PairedDifference(mean, se, None)})


def test_paired_difference_by_hand():
    tokens = [2, 3, 1]
    found = paired_difference(scores([3.0, 1.0, 2.0], tokens), scores([4.0, 3.0, 1.5], tokens))
    assert found.mean == pytest.approx(-2.5 / 6)
    assert found.se == pytest.approx(0.2441444, abs=1e-7)
    assert found.ci95 == pytest.approx((-0.8951809, 0.0618476), abs=1e-6)


def test_with_rows_of_one_token_it_is_the_error_of_a_mean():
    values = [0.3, -1.2, 0.8, 2.0, -0.4]
    found = paired_difference(scores(values, [1] * 5), scores([0.0] * 5, [1] * 5))
    assert found.mean == pytest.approx(statistics.mean(values))
    assert found.se == pytest.approx(statistics.stdev(values) / math.sqrt(5))


def test_the_standard_error_is_that_of_resampled_rows():
    draw = random.Random(7)
    tokens = [draw.randrange(1, 60) for _ in range(150)]
    change = [draw.gauss(-0.02, 0.1) * count + draw.gauss(0, 0.5) for count in tokens]
    found = paired_difference(scores(change, tokens), scores([0.0] * 150, tokens))
    means = []
    for _ in range(1500):
        rows = draw.choices(range(150), k=150)
        means.append(sum(change[row] for row in rows) / sum(tokens[row] for row in rows))
    assert found.se == pytest.approx(statistics.stdev(means), rel=0.08)


def test_rows_of_different_difficulty_do_not_blur_a_constant_gain():
    hard, tokens = [100.0, 1.0, 40.0, 7.0], [10, 10, 10, 10]
    found = paired_difference(scores([value - 1.0 for value in hard], tokens), scores(hard, tokens))
    assert found.mean == pytest.approx(-0.1)
    assert found.se == pytest.approx(0.0, abs=1e-12)


def test_one_row_has_no_standard_error():
    assert paired_difference(scores([1.0], [2]), scores([2.0], [2])) == PairedDifference(-0.5, None, None)


def test_mean_loss_weighs_tokens():
    assert mean_loss(scores([6.0, 0.5], [3, 1])) == 1.625
    assert mean_loss([]) is None


def test_table_compares_every_later_model_with_the_first():
    found = loss_table({"base": scores([4.0, 4.0], [2, 2]), "train": scores([2.0, 3.0], [2, 2]), "merged": scores([5.0, 4.0], [2, 2])})
    assert (found.rows, found.tokens, found.loss) == (2, 4, {"base": 2.0, "train": 1.25, "merged": 2.25})
    assert {name: difference.mean for name, difference in found.difference.items()} == {"train": -0.75, "merged": 0.25}


@pytest.mark.parametrize(("mean", "ok"), [(-0.21, True), (-0.2, False), (-0.1, False), (0.0, False), (0.3, False)])
def test_overall_must_fall_by_more_than_two_standard_errors(mean, ok):
    found = judge({}, table(mean, 0.1))
    assert found.ok is ok
    assert ok or (len(found.faults) == 1 and found.faults[0].startswith("overall, train: the loss did not fall clearly"))


@pytest.mark.parametrize(("mean", "ok"), [(-1.0, True), (0.0, True), (0.1, True), (0.11, False)])
def test_no_task_may_rise_by_more_than_one_standard_error(mean, ok):
    found = judge({"chat": table(-0.5, 0.1), "docstring": table(mean, 0.1)}, table(-1.0, 0.1))
    assert found.ok is ok
    assert ok or found.faults == (
        "task 'docstring', train: the loss rose by more than 1 standard error: 2.0000 for base, 2.1100 for train, "
        "difference +0.1100 with standard error 0.1000",)


def test_too_few_rows_are_noted_and_prove_nothing():
    found = judge({"chat": table(0.5, None, rows=1), "none": LossTable(0, 0, {"base": None, "train": None}, {})}, table(-1.0, 0.1))
    assert found.ok
    assert found.notes == ("task 'chat': 1 held-out rows, too few to judge", "task 'none': 0 held-out rows, too few to judge")
    assert not judge({}, table(-1.0, None, rows=1)).ok


def test_one_model_alone_is_ok_and_says_that_nothing_was_compared():
    found = judge({}, LossTable(5, 10, {"base": 2.0}, {}))
    assert found.ok
    assert found.notes == ("one model (base): nothing to compare",)


def test_a_failed_check_exits_with_3_and_names_task_and_model():
    overall, tasks = table(-0.1, 0.1, name="merged"), {"usage": table(0.3, 0.1, name="merged")}
    result = LossResult(("base", "merged"), tasks, overall, judge(tasks, overall), {})
    with pytest.raises(CheckFailed, match=r"overall, merged[\s\S]*task 'usage', merged") as caught:
        check(result)
    assert caught.value.exit_code == 3
    good = LossResult(("base", "merged"), {}, table(-1, 0.1), judge({}, table(-1, 0.1)), {})
    assert check(good) is None


def test_options_say_what_is_wrong_with_the_models():
    options = parse_config(LossOptions, "benchmark: loss\nmodels: [base, train, merged]\n")
    assert (options.models, options.generations, options.max_new_tokens) == (["base", "train", "merged"], 3, 128)
    with pytest.raises(ConfigError, match=r"2: models: each model once; base"):
        parse_config(LossOptions, "benchmark: loss\nmodels: [base, train, base]\n")
    with pytest.raises(ConfigError, match="models"):
        parse_config(LossOptions, "benchmark: loss\nmodels: []\n")
