"""pass@k, intervals and the paired test against values worked out elsewhere."""

import pytest

from mft.errors import DataError
from mft.evaluation.mcnemar import compare, mcnemar
from mft.evaluation.passk import bootstrap, interval, mean_pass_at_k, pass_at_k, wilson


@pytest.mark.parametrize(("n", "c", "k", "value"), [
    (20, 5, 1, 0.25), (20, 5, 10, 0.983746), (10, 3, 5, 0.916667), (5, 0, 3, 0.0), (5, 5, 1, 1.0), (5, 3, 3, 1.0), (1, 1, 1, 1.0)])
def test_pass_at_k_is_the_unbiased_estimate(n: int, c: int, k: int, value: float):
    assert pass_at_k(n, c, k) == pytest.approx(value, abs=1e-6)


def test_k_above_the_samples_is_refused():
    with pytest.raises(DataError, match="pass@2 needs at least 2 samples of each problem; there are 1"):
        pass_at_k(1, 1, 2)
    with pytest.raises(DataError, match="'b' has 1"):
        mean_pass_at_k({"a": 1, "b": 0}, {"a": 2, "b": 1}, 2)


def test_wilsons_interval_of_published_scores():
    assert (wilson(122, 164).low, wilson(122, 164).high) == (0.672052, 0.804588)
    assert (wilson(0, 164).low, wilson(164, 164).high) == (0.0, 1.0)
    assert wilson(0, 164).high == pytest.approx(0.022887, abs=1e-6)


def test_several_samples_have_a_bootstrap_over_problems_which_repeats():
    values = [0.0] * 50 + [1.0] * 50
    first = bootstrap(values)
    assert first == bootstrap(values)
    assert first.low == pytest.approx(0.40, abs=0.02)
    assert first.high == pytest.approx(0.60, abs=0.02)
    assert interval({"a": 1, "b": 0}, {"a": 2, "b": 2}, 1).method.startswith("bootstrap over problems")
    assert interval({"a": 1, "b": 0}, {"a": 1, "b": 1}, 1).method == "wilson"


@pytest.mark.parametrize(("gained", "lost", "p"), [(0, 0, 1.0), (5, 5, 1.0), (1, 0, 1.0), (8, 1, 0.0390625), (10, 0, 0.001953125)])
def test_mcnemar_is_the_exact_two_sided_binomial(gained: int, lost: int, p: float):
    assert mcnemar(gained, lost) == p
    assert mcnemar(lost, gained) == p


def test_a_comparison_lists_the_flips():
    found = compare({"a": True, "b": False, "c": True, "d": False}, {"a": True, "b": True, "c": False, "d": False})
    assert (found.both, found.neither, found.gained, found.lost, found.p) == (1, 1, ("b",), ("c",), 1.0)


def test_scores_of_other_problems_are_not_compared():
    with pytest.raises(DataError, match="not of the same problems: 2 are in one of them alone, such as 'b'"):
        compare({"a": True, "b": True}, {"a": True, "c": True})
