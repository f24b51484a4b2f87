"""Splits: the rows that PROTOCOLS prescribe, no row in two parts, nothing of the future where time parts."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import tiny_ratings, write_dat
from hypothesis import given, settings
from hypothesis import strategies as st

from Models.dataLoader import BatchSampler, RatingsData, load_data, make_loader, split_rows
from Models.splits import SPLITS, share_of_past
from utils.files import UserError


def made(user, time=None, n_given_train=None) -> RatingsData:
    """Data of these users, each rating another movie."""
    n = len(user)
    time = None if time is None else np.array(time, np.int64)
    movies = pd.DataFrame({"movie": range(n)})
    columns = (np.array(user, np.int64), np.arange(n), np.ones(n, np.float32))
    return RatingsData("made", *columns, time, sorted(set(user)), np.zeros((n, 0)), movies, None, n_given_train)


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
        assert "empty" in str(error)
        return
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


def test_time_within_each_user_by_hand():
    user, time = [0] * 10 + [1] * 3, [5, 4, 3, 2, 1, 0, 9, 8, 7, 6, 1, 2, 3]
    split = split_rows(made(user, time), "user-time", (0.5, 0.3, 0.2))
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


def test_what_was_trained_on_of_the_future_is_counted():
    data = made([0] * 100, range(100))
    assert share_of_past(data.time, split_rows(data, "time", (0.5, 0.3, 0.2))) == 0
    assert share_of_past(data.time, split_rows(data, "random", (0.5, 0.3, 0.2))) > 0.8
    assert share_of_past(None, split_rows(made([0] * 100), "random", (0.5, 0.3, 0.2))) is None


def test_random_rows_are_the_protocol_s():
    split = split_rows(made([0] * 1000), "random", (0.5, 0.3, 0.2))
    rows = np.random.default_rng(42).permutation(1000)
    np.testing.assert_array_equal(split.test, rows[:200])
    np.testing.assert_array_equal(split.val, rows[200:500])
    np.testing.assert_array_equal(split.train, rows[500:])


def test_leave_one_out_by_hand():
    user, time = [0, 0, 0, 0, 1, 1, 1, 2, 2], [5, 9, 9, 1, 3, 2, 1, 1, 2]
    split = split_rows(made(user, time), "leave-one-out", (0.5, 0.3, 0.2))
    assert split.test.tolist() == [2, 4]  # of equal times the later line; user 2 has too few ratings
    assert split.val.tolist() == [1, 5]
    split = split_rows(made(user, time), "leave-one-out", (0.8, 0, 0.2))
    assert split.test.tolist() == [2, 4, 8] and len(split.val) == 0


def test_given_files_test_just_the_test_file():
    split = split_rows(made([0] * 100, n_given_train=80), "random", (0.5, 0.3, 0.2))
    assert split.test.tolist() == list(range(80, 100))
    assert len(split.val) == 30 and sorted([*split.train, *split.val]) == list(range(80))


@pytest.mark.parametrize("ratios", [(0.5, 0.3, 0.3), (0, 0.5, 0.5), (1, 0, 0), (1.2, -0.4, 0.2), (1, 0, float("nan"))])
def test_ratios_that_are_none_are_refused(ratios):
    with pytest.raises(UserError, match="--ratios"):
        split_rows(made([0] * 10), "random", ratios)


def test_time_splits_need_times():
    with pytest.raises(UserError, match="no times"):
        split_rows(made([0] * 10), "time", (0.5, 0.3, 0.2))


def test_a_repeated_pair_is_refused(tmp_path, tiny_features):
    user, movie, _, _ = tiny_ratings()[5]
    folder = write_dat(tmp_path / "tiny", [*tiny_ratings(), (user, movie, 1, 9)])
    with pytest.raises(UserError, match=f"user {user} rates movie {movie} more than once"):
        load_data(folder, tiny_features)


def test_a_pair_in_both_given_files_is_refused(tmp_path, tiny_features):
    folder = write_dat(tmp_path / "tiny", tiny_ratings())
    lines = (folder / "ratings.dat").read_text().splitlines()
    (folder / "a.train").write_text("\n".join(lines[:200]) + "\n")
    (folder / "a.test").write_text("\n".join(lines[199:]) + "\n")
    with pytest.raises(UserError, match="both trained on and tested"):
        load_data(folder, tiny_features, folder / "a.train", folder / "a.test")
    with pytest.raises(UserError, match="give both"):
        load_data(folder, tiny_features, folder / "a.train")


def test_positions_lead_back_to_the_user_s_ids(tiny, tiny_features):
    data = load_data(tiny, tiny_features)
    rows = [
        (data.user_ids[u], data.movies["movie"][m], int(r))
        for u, m, r in zip(data.user, data.movie, data.rating, strict=True)
    ]
    assert rows == [row[:3] for row in tiny_ratings()]
    assert len(data.movies) == 27  # never-rated movies are part of the catalogue


def test_a_loader_hands_over_whole_batches(tiny, tiny_features):
    data = load_data(tiny, tiny_features)
    rows = np.arange(100)
    batches = list(make_loader(data, rows, 32))
    assert [len(batch["user"]) for batch in batches] == [32, 32, 32, 4]
    assert torch.cat([batch["rating"] for batch in batches]).tolist() == data.rating[:100].tolist()


def test_order_depends_on_seed_and_epoch_alone():
    def order(seed, epoch):
        sampler = BatchSampler(np.arange(50), 16, seed)
        sampler.set_epoch(epoch)
        torch.rand(3)  # what else drew random numbers does not matter
        return torch.cat(list(sampler)).tolist()

    assert order(0, 1) == order(0, 1) != order(0, 2)
    assert order(0, 1) != order(1, 1)
    assert sorted(order(0, 1)) == list(range(50))
