"""Intervals of differences between two models, against theory."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resultAnalyze.bootstrap import UnitMetric, mean_over_seeds, mean_over_users, paired_bootstrap


def test_the_interval_is_the_normal_one_for_many_users():
    random = np.random.default_rng(1)
    one, other = random.normal(0.3, 1, 4000), random.normal(0.2, 1, 4000)
    change, low, high = paired_bootstrap(mean_over_users(one), mean_over_users(other))
    half = 1.96 * (one - other).std() / 4000**0.5
    assert change == pytest.approx((one - other).mean())
    assert (change - low, high - change) == (pytest.approx(half, rel=0.1), pytest.approx(half, rel=0.1))


def test_pairing_removes_what_both_share():
    shared = np.random.default_rng(2).normal(0, 10, 500)
    found = paired_bootstrap(mean_over_users(shared + 0.1), mean_over_users(shared))
    assert found == pytest.approx((0.1, 0.1, 0.1))


def test_rmse_is_the_root_over_all_ratings_and_not_a_mean_over_movies():
    weight = np.array([1.0, 3.0])
    one, other = (UnitMetric(np.array(total), weight, root=True) for total in ([4.0, 0.0], [4.0, 12.0]))
    assert (one.value(), other.value()) == (1.0, 2.0)
    change, low, high = paired_bootstrap(one, other)
    assert change == -1.0 and low == pytest.approx(-2.0) and high == pytest.approx(0.0)  # only movie 2, only movie 1


@settings(max_examples=10, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=5, max_size=30))
def test_a_model_does_not_differ_from_itself(values):
    same = mean_over_users(np.array(values))
    assert paired_bootstrap(same, same) == (0, 0, 0)


def test_the_mean_over_seeds_is_taken_unit_by_unit():
    weight = np.array([1.0, 3.0])
    metrics = [UnitMetric(np.array(total), weight, root=True) for total in ([2.0, 4.0], [4.0, 8.0])]
    found = mean_over_seeds(metrics)
    assert found.total.tolist() == [3.0, 6.0] and found.root and found.weight is weight
    assert found.value() == 1.5
