"""CoBa and self-paced weights: the worked examples, the properties that hold for any losses, state that survives JSON."""

import json
import random

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from mft.errors import CheckFailed, CheckpointError, ConfigError
from mft.training.balancing import balancer_of, check_balance, check_balance_acts
from mft.training.coba import CobaBalancer
from mft.training.config import TASK_MODES, WEIGHED_MODES, CobaConfig, SelfPacedConfig, TasksConfig, loss_mode
from mft.training.losses import task_loss
from mft.training.self_paced import SelfPacedBalancer
from mft.training.slopes import slope

# Losses of A and B at steps 1 to 6; both begin at 1, so that they are their own ratios.
FALLING = [(1, 1), (.9, .98), (.8, .96), (.75, .95), (.7, .96), (.68, .97)]
# step: slopes of A and B, RCS_A, ACS_A, DF, mix_A, w_A
COBA_TABLE = {
    3: ((-.1, -.02), .208609, .5, 1.0, .208609, .237657), 4: ((-.085, -.017), .208609, .5, .615435, .320667, .327981),
    5: ((-.065, -.007), .166434, .575109, .026014, .564478, .564123), 6: ((-.041, .004), .119203, .710314, .000141, .710230, .698659)}


def coba(names="AB", **settings):
    return CobaBalancer(CobaConfig(**{"warmup_probes": 3, "history_probes": 4, **settings}), list(names))


def feed(balancer, rows, every=1):
    for place, losses in enumerate(rows):
        balancer.observe((place + 1) * every, losses)
    return balancer


def wandering(tasks, probes, seed):
    """Losses that fall at rates of their own, with noise: rows of `tasks` numbers."""
    chance = random.Random(seed)
    rates = [chance.uniform(-.05, .01) for _ in range(tasks)]
    return [[2.5 + task + rate * probe + chance.uniform(-.05, .05) for task, rate in enumerate(rates)] for probe in range(probes)]


def test_coba_gives_the_worked_table_to_six_digits():
    balancer = coba()
    for step, losses in enumerate(FALLING, start=1):
        balancer.observe(step, losses)
        if step < 3:
            assert balancer.weights() == [.5, .5]
            continue
        slopes, own, past, share, mix, weight = COBA_TABLE[step]
        found = balancer.relative_scores()[0], balancer.absolute_scores()[0], balancer.divergence_factor()
        assert balancer.slopes() == pytest.approx(slopes, abs=5e-7)
        assert found == pytest.approx((own, past, share), abs=5e-7)
        assert balancer.weights() == pytest.approx([weight, 1 - weight], abs=5e-7)
        assert found[2] * found[0] + (1 - found[2]) * found[1] == pytest.approx(mix, abs=5e-7)


def test_own_past_is_the_last_n_slopes_and_the_divergence_factor_looks_back_to_the_warm_up():
    """Two more rows of the table, computed apart with NumPy: by then more slopes were taken than N."""
    balancer = feed(coba(), [*FALLING, (.67, .94)])
    assert balancer.divergence_factor() == pytest.approx(.000504, abs=5e-7)  # over the last 4 slopes alone: .000181
    balancer.observe(8, (.6, .9))
    assert balancer.absolute_scores()[0] == pytest.approx(.153183, abs=5e-7)  # over all 6 slopes: .224407
    assert balancer.divergence_factor() == 1.0
    assert balancer.weights()[0] == pytest.approx(.406141, abs=5e-7)


def test_the_paper_variant_stops_at_the_mix_and_takes_the_largest_slope():
    balancer = feed(coba(variant="paper"), FALLING[:4])
    assert balancer.worst_slopes == pytest.approx([-.02, -.017])
    assert balancer.weights()[0] == pytest.approx(.320667, abs=5e-7)
    crossing = [(1, 1), (.5, .9), (.9, .5), (.6, .6)]  # the largest ratios are 1, .9, .9, .6
    for variant, worst in (("code", -.12), ("paper", -.08)):
        balancer = feed(coba(warmup_probes=4, variant=variant), crossing)
        assert balancer.slopes() == pytest.approx([-.08, -.16])
        assert balancer.worst_slopes == pytest.approx([worst])


def test_the_divergence_factor_never_exceeds_one():
    """Slopes -1 and -3 of the worst task would give 1.987."""
    balancer = coba("A", warmup_probes=2, history_probes=2)
    feed(balancer, [(10,), (9,)])
    balancer.worst_slopes = [-1.0, -3.0]
    assert balancer.divergence_factor() == 1.0
    balancer.worst_slopes = [-3.0, -1.0]
    assert balancer.divergence_factor() == pytest.approx(2 / (1 + np.exp(5)))
    balancer = feed(coba("A", warmup_probes=2, history_probes=2, tau=2), [(10,), (9,)])
    balancer.worst_slopes = [-3.0, -1.0]
    assert balancer.divergence_factor() == pytest.approx(2 / (1 + np.exp(2)))


@pytest.mark.parametrize("variant", ["code", "paper"])
@pytest.mark.parametrize("seed", range(4))
def test_permuted_tasks_have_permuted_weights_to_the_bit(variant, seed):
    rows = wandering(5, 12, seed)
    order = [3, 0, 4, 1, 2]
    plain = feed(coba("abcde", variant=variant), rows).weights()
    mixed = feed(coba("daebc", variant=variant), [[row[task] for task in order] for row in rows]).weights()
    assert mixed == [plain[task] for task in order]
    assert len(set(plain)) == 5


@pytest.mark.parametrize("seed", range(6))
def test_weights_sum_to_one_and_never_fall_below_the_floor(seed):
    balancer = coba("abcd", tau=20)
    lowest = 1.0
    for step, losses in enumerate(wandering(4, 20, seed), start=1):
        balancer.observe(step, losses)
        assert sum(balancer.weights()) == pytest.approx(1, abs=1e-12)
        lowest = min(lowest, *balancer.weights())
    assert lowest >= 1 / 40


def test_the_floor_lifts_a_weight_that_would_fall_below_it():
    """K = 4 and ACS (1, 0, 0, 0): softmax of (4, 0, 0, 0) leaves .01739 for each of the others, below 1/40."""
    rows = [(1, 1, 1, 1)] * 6 + [(.9, 1.1, 1.1, 1.1)]
    balancer = feed(coba("abcd", history_probes=50), rows)
    raw = np.exp(4) / (np.exp(4) + 3), 1 / (np.exp(4) + 3)
    assert balancer.weights() == pytest.approx([.9 * raw[0] + .025, *[.9 * raw[1] + .025] * 3], rel=.02)
    assert min(balancer.weights()) > .025


@pytest.mark.parametrize("factor", [.25, 8.0, 1024.0])
def test_the_scale_of_the_losses_does_not_matter_to_coba(factor):
    rows = wandering(3, 10, 1)
    assert feed(coba("abc"), [[factor * loss for loss in row] for row in rows]).weights() == feed(coba("abc"), rows).weights()
    assert feed(coba("abc"), [[3 * row[0], .7 * row[1], row[2]] for row in rows]).weights() == pytest.approx(
        feed(coba("abc"), rows).weights())


def test_equal_slopes_give_equal_weights():
    rows = [(level, 2 * level, 4 * level) for level in (1, .9, .85, .7, .9, .6)]
    assert feed(coba("abc"), rows).weights() == pytest.approx([1 / 3] * 3, abs=1e-15)
    assert feed(coba("abc"), [(1, 2, 3)] * 6).weights() == pytest.approx([1 / 3] * 3, abs=1e-15)


def test_the_faster_task_scores_lower_against_the_others_and_the_rising_one_against_itself():
    balancer = feed(coba(), [(1, 1), (.8, .95), (.6, .9), (.4, .85)])
    assert balancer.relative_scores()[0] < .5 < balancer.weights()[1]
    balancer = feed(coba(), [(1, 1), (.9, .9), (.8, .8), (.7, .7), (.6, .9), (.5, 1.1)])
    assert balancer.absolute_scores()[1] < .1
    assert balancer.divergence_factor() < .01
    assert balancer.weights()[1] < .5


def test_slopes_are_taken_over_real_steps_so_that_an_interval_changes_no_weight():
    dense, sparse = feed(coba(), FALLING), feed(coba(), FALLING, every=4)
    assert sparse.slopes() == pytest.approx([value / 4 for value in dense.slopes()])
    assert sparse.weights() == pytest.approx(dense.weights(), abs=1e-12)
    assert slope([(1, 1.0), (2, .9), (4, .7), (10, .1)]) == pytest.approx(-.1)


def test_a_task_that_a_probe_leaves_out_adds_no_point_and_its_slope_does_not_steepen():
    every = feed(coba(warmup_probes=7, history_probes=10), [(1 - .01 * step, 1 - .02 * step) for step in range(13)])
    seldom = feed(coba(warmup_probes=7, history_probes=10),
                  [(1 - .01 * step, 1 - .02 * step if step % 4 == 0 else None) for step in range(13)])
    assert len(every.points[1]) == 10
    assert list(seldom.points[1]) == [(1, 1.0), (5, pytest.approx(.92)), (9, pytest.approx(.84)), (13, pytest.approx(.76))]
    assert every.slopes() == pytest.approx([-.01, -.02])
    assert seldom.slopes() == pytest.approx([-.01, -.02])


def test_a_task_measured_less_than_twice_has_slope_zero_and_one_that_went_away_keeps_its_slope():
    balancer = feed(coba(), [(1, None), (.9, None), (.8, 3), (.7, None)])
    assert balancer.slopes() == pytest.approx([-.1, 0])
    balancer = feed(coba(), [(1, 2), (.9, 1.8), (.8, 1.6), (.7, None), (.6, None), (.5, None), (.4, None), (.3, None)])
    assert balancer.slopes() == pytest.approx([-.1, -.1])
    assert [value for _, value in balancer.worst] == pytest.approx([.8] * 4)


def self_paced(names="AB", **settings):
    return SelfPacedBalancer(SelfPacedConfig(**settings), list(names))


def test_self_paced_gives_the_worked_example():
    balancer = feed(self_paced(), [(2 - .03 * step, 1 - .01 * step) for step in range(5)])
    assert balancer.slopes() == pytest.approx([-.03, -.01])
    assert balancer.weights() == pytest.approx([.8692, .1308], abs=5e-5)
    assert feed(self_paced(scale=1), [(2, 1), (1.97, .99)]).weights()[0] == pytest.approx(1 / (1 + np.exp(.3655294 - .4034118)), abs=1e-6)


def test_self_paced_is_equal_until_something_moves_and_forgets_what_is_too_old():
    assert feed(self_paced(), [(2, 1)]).weights() == [.5, .5]
    assert feed(self_paced(), [(2, 1), (2, 1)]).weights() == [.5, .5]
    assert feed(self_paced(history_probes=3), [(9, 9), (5, 3), (2, 1), (1.97, .99), (1.94, .98)]).slopes() == pytest.approx([-.03, -.01])


@pytest.mark.parametrize("make", [coba, self_paced])
@pytest.mark.parametrize("stop", [1, 2, 5, 9])
def test_a_resumed_balancer_equals_one_that_never_stopped_to_the_bit(make, stop):
    tasks = np.array([0, 1, 1, 0, 1, 1, 1, 0])
    rows = [(*row[:1], row[1] if place % 3 else None) for place, row in enumerate(wandering(2, 14, 3))]
    whole, half, rest = make(), make(), make()
    for step, losses in enumerate(rows, start=1):
        drawn = whole.probe(tasks)
        if step == stop + 1:
            rest.load_state_dict(json.loads(json.dumps(half.state_dict())))
            assert rest.weights() == whole.weights()
        other = half if step <= stop else rest
        assert other.probe(tasks) == drawn
        whole.observe(step, losses)
        other.observe(step, losses)
        assert other.weights() == whole.weights()
    assert rest.state_dict() == whole.state_dict()


def test_a_state_of_another_balance_of_other_tasks_or_settings_is_refused():
    state = feed(coba(), FALLING).state_dict()
    for other, key in ((self_paced(), "balance"), (coba("AC"), "tasks"), (coba(tau=2), "settings")):
        with pytest.raises(CheckpointError, match=f"of the checkpoint has {key} "):
            other.load_state_dict(state)


def test_a_probe_goes_through_all_samples_of_every_task_and_starts_again():
    tasks = np.array([0] * 5 + [1] * 2 + [0] * 3)
    balancer = coba(validation_rows=3)
    probes = [balancer.probe(tasks) for _ in range(5)]
    of_a = [[index for index in probe if tasks[index] == 0] for probe in probes]
    assert [len(part) for part in of_a] == [3] * 5
    assert sorted(of_a[0] + of_a[1] + of_a[2][:2]) == [0, 1, 2, 3, 4, 7, 8, 9]
    assert of_a[2][2:] + of_a[3][:2] == of_a[0]
    assert [sorted(index for index in probe if tasks[index] == 1) for probe in probes] == [[5, 6]] * 5
    assert of_a[0] != [0, 1, 2]
    assert coba(validation_rows=3).probe(tasks) == probes[0]


def test_a_task_without_a_validation_sample_is_named_before_anything_is_measured():
    tasks = np.array([0, 0, 2])
    for mode in ("coba", "self_paced"):
        config = TasksConfig(balance=mode)
        with pytest.raises(ConfigError, match=f"{mode} weighs.*'chat' has no validation sample.*split.validation"):
            check_balance(config, ["add", "chat", "name"], tasks)
        with pytest.raises(ConfigError, match="'chat' has no"):
            balancer_of(config, ["add", "chat", "name"]).probe(tasks)
        with pytest.raises(ConfigError) as found:
            check_balance(config, ["add", "chat"], np.array([]))
        assert len(found.value.problems) == 2
    check_balance(TasksConfig(balance="task_token_mean"), ["add", "chat", "name"], tasks)


def test_a_run_that_ends_before_a_weight_could_change_is_refused():
    short = TasksConfig(balance="coba", coba={"warmup_probes": 10, "every": 4})
    with pytest.raises(ConfigError, match=r"after step 40, 10 \(warmup_probes\) times 4 \(every\), but the run has 40 steps"):
        check_balance_acts(short, 40)
    check_balance_acts(short, 41)
    with pytest.raises(ConfigError, match=r"after step 6, 2 \(the probes that a slope needs\) times 3"):
        check_balance_acts(TasksConfig(balance="self_paced", self_paced={"every": 3}), 6)
    check_balance_acts(TasksConfig(balance="self_paced", self_paced={"every": 3}), 7)
    check_balance_acts(TasksConfig(), 1)


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), -1.0])
def test_a_loss_that_is_no_loss_stops_and_leaves_the_state_as_it_was(loss):
    balancer = feed(coba(), FALLING[:3])
    state = json.dumps(balancer.state_dict())
    with pytest.raises(CheckFailed, match="step 4: the validation loss of task 'B' is"):
        balancer.observe(4, [.5, loss])
    assert json.dumps(balancer.state_dict()) == state
    with pytest.raises(CheckFailed, match="task 'A' is 0"):
        coba().observe(1, [0.0, 1.0])


def test_steps_that_do_not_grow_and_a_wrong_number_of_losses_are_refused():
    balancer = feed(coba(), FALLING[:2])
    for step, losses in ((2, [1, 1]), (3, [1]), (3, [None, None])):
        with pytest.raises(ValueError, match=r"steps must grow|one for each task"):
            balancer.observe(step, losses)


def test_each_mode_has_its_balancer_and_its_loss():
    for mode in ("token_mean", "sample_mean", "task_token_mean", "task_sample_mean"):
        assert balancer_of(TasksConfig(balance=mode), ["a"]) is None
        assert loss_mode(mode) == mode
    made = balancer_of(TasksConfig(balance="coba", coba={"every": 5, "tau": 2}), ["a", "b"])
    assert (type(made), made.every, made.settings.tau, made.settings.variant) == (CobaBalancer, 5, 2.0, "code")
    assert type(balancer_of(TasksConfig(balance="self_paced"), ["a"])) is SelfPacedBalancer
    assert loss_mode("coba") == loss_mode("self_paced") == "task_token_mean"
    assert TASK_MODES == ("task_token_mean", "task_sample_mean")
    assert WEIGHED_MODES == ("task_token_mean", "task_sample_mean", "coba", "self_paced")


@pytest.mark.parametrize("mode", ["coba", "self_paced"])
def test_the_loss_of_a_measured_mode_is_the_task_token_mean_under_its_weights(mode):
    losses = torch.tensor([[1.0, 2.0, 6.0, 4.0]])
    labels, tasks, samples = torch.ones(1, 4, dtype=torch.long), torch.tensor([[0, 0, 0, 1]]), torch.tensor([[0, 0, 1, 2]])
    assert task_loss(losses, labels, tasks, samples, mode, [.75, .25]).item() == pytest.approx(.75 * 3 + .25 * 4)


def test_a_resolved_config_shows_the_settings_of_its_balance_alone():
    assert TasksConfig(balance="coba").model_dump() == {
        "balance": "coba", "weights": {}, "self_paced": None,
        "coba": {"every": 1, "validation_rows": 4, "history_probes": 200, "warmup_probes": 100, "tau": 5.0, "variant": "code"}}
    resolved = TasksConfig(balance="self_paced", self_paced={"scale": 10}).model_dump()
    assert resolved["coba"] is None
    assert resolved["self_paced"] == {"every": 1, "validation_rows": 4, "history_probes": 100, "scale": 10.0}
    assert TasksConfig.model_validate(resolved).model_dump() == resolved
    assert TasksConfig().model_dump() == {"balance": "task_token_mean", "weights": {}, "coba": None, "self_paced": None}


@pytest.mark.parametrize(("given", "message"), [
    ({"balance": "token_mean", "coba": {}}, "block coba would not act: balance is token_mean; set balance: coba"),
    ({"coba": {"tau": 3}}, "block coba would not act: balance is task_token_mean"),
    ({"balance": "coba", "self_paced": {}}, "block self_paced would not act: balance is coba"),
    ({"balance": "coba", "weights": {"a": 2}}, "weights act in task_token_mean and task_sample_mean only; balance is coba"),
    ({"balance": "self_paced", "weights": {"a": 2}}, "only; balance is self_paced"),
    ({"balance": "token_mean", "weights": {"a": 2}}, "only; balance is token_mean"),
    ({"balance": "coba", "coba": {"warmup_probes": 1}}, "greater than or equal to 2"),
    ({"balance": "famo"}, "'token_mean', 'sample_mean', 'task_token_mean', 'task_sample_mean', 'coba' or 'self_paced'"),
])
def test_settings_that_would_not_act_are_refused_with_both_names(given, message):
    with pytest.raises(ValidationError, match=message):
        TasksConfig(**given)
