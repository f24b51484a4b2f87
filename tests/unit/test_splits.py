"""Splits: the rows of the protocol, no row in two parts, nothing of the future in training if the split is by time."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from helpers import RATIOS
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from Models.inputs import RatingScale
from Models.ratings_data import RatingsData, split_rows
from utils.files import UserError
from utils.splits import SPLITS, TEST, TRAIN, VAL, Split, share_before_training_end


def made(user, time=None, n_given_train=None) -> RatingsData:
    """Data of these users, in which each rating has its own movie."""
    n = len(user)
    time = None if time is None else np.array(time, np.int64)
    movies = pd.DataFrame({"movie": range(n)})
    columns = (np.array(user, np.int64), np.arange(n), np.ones(n, np.float32))
    return RatingsData(
        "made", *columns, time, sorted(set(user)), np.zeros((n, 0)), movies, None, RatingScale(1, 1), n_given_train
    )


shares = st.tuples(st.integers(1, 8), st.integers(0, 8), st.integers(1, 8)).map(
    lambda parts: tuple(part / sum(parts) for part in parts)
)
histories = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), min_size=40, max_size=80)


@settings(max_examples=60, deadline=None)
@given(rows=histories, ratios=shares, name=st.sampled_from(list(SPLITS)))
def test_every_row_is_in_just_one_part(rows, ratios, name):
    user, time = zip(*rows, strict=True)
    user = np.unique(user, return_inverse=True)[1]
    data = made(user, time)
    try:
        split = split_rows(data, name, ratios)
    except UserError as error:  # a part may be too small to have a row
        assert "too small for these ratios" in str(error)
        assume(False)
    assert sorted(np.concatenate([split.train, split.val, split.test])) == list(range(len(rows)))
    if name == "random":
        assert len(split.test) == round(len(rows) * ratios[2])
    if name == "time":
        assert data.time[split.train].max() <= data.time[split.test].min()
        if len(split.val):
            assert data.time[split.train].max() <= data.time[split.val].min()
            assert data.time[split.val].max() <= data.time[split.test].min()
    if name == "leave-one-out":
        assert len(set(data.user[split.test])) == len(split.test)
        for row in split.test:
            others = data.user[split.train] == data.user[row]
            assert others.any() and (data.time[split.train][others] <= data.time[row]).all()


@pytest.mark.parametrize(
    ("name", "ratios", "part"),
    [("random", (0.9, 0.05, 0.05), "test"), ("user-time", (0.8, 0.01, 0.19), "validation")],
)
def test_a_part_without_rows_is_refused(name, ratios, part):
    with pytest.raises(UserError, match=f"made is too small for these ratios: no {part} rows"):
        split_rows(made([0] * 8, range(8)), name, ratios)


def test_every_row_knows_its_part():
    split = Split(np.array([3, 0]), np.array([2]), np.array([1, 4]), "by hand")
    assert split.parts(5).tolist() == [TRAIN, TEST, VAL, TRAIN, TEST]


def test_time_within_each_user_by_hand():
    user, time = [0] * 10 + [1] * 3, [5, 4, 3, 2, 1, 0, 9, 8, 7, 6, 1, 2, 3]
    split = split_rows(made(user, time), "user-time", RATIOS)
    assert split.test.tolist() == [7, 6] and split.val.tolist() == [0, 9, 8]  # user 1: a fifth of 3 is none


def test_cold_movies_and_users_are_held_out_with_all_their_ratings():
    random = np.random.default_rng(0)
    pairs = np.unique(random.integers(0, [40, 30], size=(900, 2)), axis=0)
    for name, column, n in (("cold-users", 0, 40), ("cold-movies", 1, 30)):
        data = dataclasses.replace(made([0] * len(pairs)), user=pairs[:, 0], movie=pairs[:, 1])
        split = split_rows(data, name, (0.6, 0.2, 0.2))
        ids = pairs[:, column]
        cold = set(ids[split.test]) - set(ids[split.train])
        assert len(cold) == n * 0.2
        assert set(np.flatnonzero(np.isin(ids, list(cold)))) <= set(split.test)
        assert len(set(ids[split.val]) - set(ids[split.train])) == n * 0.2
        assert set(ids[split.test]) & set(ids[split.train])  # warm rows, too


def test_the_share_of_test_rows_older_than_the_newest_training_row():
    data = made([0] * 100, range(100))
    assert share_before_training_end(data.time, split_rows(data, "time", RATIOS)) == 0
    assert share_before_training_end(data.time, split_rows(data, "random", RATIOS)) > 0.8
    assert share_before_training_end(None, split_rows(made([0] * 100), "random", RATIOS)) is None


def test_random_rows_are_those_of_the_protocol():
    split = split_rows(made([0] * 1000), "random", RATIOS)
    rows = np.random.default_rng(42).permutation(1000)
    np.testing.assert_array_equal(split.test, rows[:200])
    np.testing.assert_array_equal(split.val, rows[200:500])
    np.testing.assert_array_equal(split.train, rows[500:])


def test_leave_one_out_by_hand():
    user, time = [0, 0, 0, 0, 1, 1, 1, 2, 2], [5, 9, 9, 1, 3, 2, 1, 1, 2]
    split = split_rows(made(user, time), "leave-one-out", RATIOS)
    assert split.test.tolist() == [2, 4]  # of equal times the later line; user 2 has too few ratings
    assert split.val.tolist() == [1, 5]
    split = split_rows(made(user, time), "leave-one-out", (0.8, 0, 0.2))
    assert split.test.tolist() == [2, 4, 8] and len(split.val) == 0


def test_given_files_test_just_the_test_file():
    split = split_rows(made([0] * 100, n_given_train=80), "random", RATIOS)
    assert split.test.tolist() == list(range(80, 100))
    assert len(split.val) == 30 and sorted([*split.train, *split.val]) == list(range(80))


@pytest.mark.parametrize("ratios", [(0.5, 0.3, 0.3), (0, 0.5, 0.5), (1, 0, 0), (1.2, -0.4, 0.2), (1, 0, float("nan"))])
def test_ratios_that_do_not_sum_to_1_or_leave_a_part_empty_are_refused(ratios):
    with pytest.raises(UserError, match="--ratios"):
        split_rows(made([0] * 10), "random", ratios)


@pytest.mark.parametrize("name", ["time", "user-time", "leave-one-out"])
def test_splits_by_time_need_times(name):
    with pytest.raises(UserError, match="no times"):
        split_rows(made([0] * 10), name, RATIOS)
