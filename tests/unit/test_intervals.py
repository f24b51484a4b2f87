"""Intervals of metrics and differences, against theory and where the truth is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t

from resultAnalyze.intervals import UnitMetric, difference, estimate, gap, mean_over_users


def drawn(random, n_seeds: int, n_units: int, of_seed: float, of_both: float, unit: np.ndarray) -> list[UnitMetric]:
    """Training runs whose metric has an effect of the unit, one of the seed and one of both."""
    seed, both = of_seed * random.normal(size=(n_seeds, 1)), of_both * random.normal(size=(n_seeds, n_units))
    return [mean_over_users(values) for values in unit + seed + both]


def test_of_single_trainings_it_is_students_over_the_pairs():
    random = np.random.default_rng(1)
    one, other = random.normal(0.3, 1, 40), random.normal(0.2, 1, 40)
    found = difference([mean_over_users(one)], [mean_over_users(other)])
    half = t.ppf(0.975, 39) * (one - other).std(ddof=1) / 40**0.5
    assert found.value == pytest.approx((one - other).mean())
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half))
    alone = estimate([mean_over_users(one)])
    half = t.ppf(0.975, 39) * one.std(ddof=1) / 40**0.5
    assert tuple(alone[:3]) == pytest.approx((one.mean(), one.mean() - half, one.mean() + half))


def test_pairing_removes_what_both_share():
    shared = np.random.default_rng(2).normal(0, 10, 500)
    found = difference([mean_over_users(shared + 0.1)], [mean_over_users(shared)])
    assert tuple(found[:3]) == pytest.approx((0.1, 0.1, 0.1), abs=1e-6)


def test_where_units_are_alike_it_is_welchs_over_the_seeds():
    """Each user has the seed's value: Welch's t interval of two small samples."""
    one, other = np.array([0.3, 0.5, 0.4]), np.array([0.1, 0.2, 0.6])
    metrics = [[mean_over_users(np.full(50, value)) for value in values] for values in (one, other)]
    found = difference(*metrics)
    parts = one.var(ddof=1) / 3, other.var(ddof=1) / 3
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / 2 + parts[1] ** 2 / 2)
    half = t.ppf(0.975, freedom) * sum(parts) ** 0.5
    assert tuple(found[:3]) == pytest.approx((0.1, 0.1 - half, 0.1 + half))
    assert found.p == pytest.approx(2 * t.sf(0.1 / sum(parts) ** 0.5, freedom))
    assert tuple(difference(*metrics, over_seeds=False)[:3]) == pytest.approx((0.1, 0.1, 0.1))


def test_rmse_is_the_root_over_all_ratings_and_not_a_mean_over_movies():
    """Its interval, by the delta method, agrees with redrawing the 2,000 movies many times."""
    weight = np.array([1.0, 3.0])
    assert [UnitMetric(np.array(total), weight, root=True).value() for total in ([4.0, 0.0], [4.0, 12.0])] == [1, 2]
    random = np.random.default_rng(3)
    weight = random.integers(1, 30, 2000).astype(float)
    one, other = (UnitMetric(weight * random.gamma(2, scale, 2000), weight, root=True) for scale in (0.4, 0.45))
    found = difference([one], [other])
    redrawn = []
    for _ in range(400):
        units = random.integers(0, 2000, 2000)
        values = [UnitMetric(m.total[units], weight[units], root=True).value() for m in (one, other)]
        redrawn.append(values[0] - values[1])
    assert found.value == one.value() - other.value()
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * np.std(redrawn), rel=0.12)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=5, max_size=30))
def test_a_model_does_not_differ_from_itself(values):
    same = [mean_over_users(np.array(values))]
    assert difference(same, same) == (0, 0, 0, 1)


@pytest.mark.parametrize("n_seeds", [3, 5])
@pytest.mark.parametrize(("of_seed", "of_both"), [(0.0, 1.0), (0.05, 1.0), (0.3, 0.3)])
def test_where_nothing_differs_at_most_one_in_twenty_intervals_excludes_0(n_seeds, of_seed, of_both):
    """Both models are drawn alike, with randomness in the seeds, in the pairs of seed and user, or in both.

    If all of it is in the pairs, the variance over users is more than there is, and fewer intervals exclude 0.
    """
    random, n = np.random.default_rng(4), 1500
    units = random.normal(size=60)
    wrong = {True: 0, False: 0}
    for _ in range(n):
        models = [drawn(random, n_seeds, 60, of_seed, of_both, units) for _ in range(2)]
        for over_seeds in wrong:
            found = difference(*models, over_seeds=over_seeds)
            wrong[over_seeds] += not found.low <= 0 <= found.high
    assert wrong[True] / n < 0.06  # .05 and twice the standard error of 1,500 draws
    if of_seed > 0.1:
        assert wrong[True] / n > 0.03 and wrong[False] / n > 0.3  # over users alone, far too many do


def test_a_true_difference_is_covered_as_often():
    """The models' difference varies between users; 95 % of the intervals contain its mean over all users."""
    random, n, covered = np.random.default_rng(5), 1500, 0
    for _ in range(n):
        unit = random.normal(size=80)
        one = drawn(random, 3, 80, 0.1, 0.5, unit + 0.5 + random.normal(0, 0.6, 80))
        other = drawn(random, 3, 80, 0.1, 0.5, unit)
        found = difference(one, other)
        covered += found.low <= 0.5 <= found.high
    assert 0.94 < covered / n < 0.975


def test_a_baseline_without_chance_has_no_part_in_it():
    """One training stands for all: the interval is that of the other model's seeds, around a fixed value."""
    values = np.array([0.3, 0.5, 0.4])
    found = difference([mean_over_users(np.full(50, value)) for value in values], [mean_over_users(np.full(50, 0.2))])
    half = t.ppf(0.975, 2) * values.std(ddof=1) / 3**0.5
    assert tuple(found[:3]) == pytest.approx((0.2, 0.2 - half, 0.2 + half))


@pytest.mark.parametrize("kind", ["estimate", "gap"])
def test_means_and_gaps_between_groups_are_covered_as_often(kind):
    """Users differ, runs differ, and the gap between groups differs from run to run."""
    random, n, covered = np.random.default_rng(6), 1500, 0
    for _ in range(n):
        units = [random.normal(loc, 1, size) for loc, size in ((0.5, 70), (0.2, 40))]
        one, other = (drawn(random, 3, len(unit), 0.2, 0.5, unit) for unit in units)
        found = estimate(one) if kind == "estimate" else gap(one, other)
        covered += found.low <= (0.5 if kind == "estimate" else 0.3) <= found.high
    assert 0.93 < covered / n < 0.98


def test_what_all_trainings_share_is_no_part_of_a_gap():
    """A seed that is better for everyone shifts both groups."""
    values = np.array([0.3, 0.5, 0.4])
    one, other = ([mean_over_users(np.full(20, value + more)) for value in values] for more in (0.1, 0.0))
    assert tuple(gap(one, other)[:3]) == pytest.approx((0.1, 0.1, 0.1), abs=1e-6)


def test_the_widest_of_two_is_students_and_of_more_wider():
    one, other = ([mean_over_users(random) for random in np.random.default_rng(k).random((3, 50))] for k in (0, 1))
    widths = [difference(one, other, among=n).high - difference(one, other, among=n).low for n in (2, 3, 8)]
    assert widths[0] < widths[1] < widths[2]
    assert difference(one, other, among=8).p > difference(one, other).p


def test_the_widest_gap_of_equal_groups_is_hardly_ever_shown():
    random, wrong = np.random.default_rng(7), 0
    for _ in range(60):
        groups = [drawn(random, 3, 40, 0.05, 0.3, random.normal(size=40)) for _ in range(6)]
        ordered = sorted(groups, key=lambda one: np.mean([training.value() for training in one]))
        found = gap(ordered[-1], ordered[0], among=6)
        wrong += not found.low <= 0 <= found.high
    assert wrong <= 7  # 3 expected


def test_of_one_unit_no_interval_is_known():
    found = difference([mean_over_users([0.5])] * 3, [mean_over_users([0.2])])
    assert found.value == pytest.approx(0.3) and np.isnan([found.low, found.high, found.p]).all()
