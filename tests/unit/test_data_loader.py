"""From files to batches: ids and their indices, fingerprints, the note on order, model inputs and loaders."""

import dataclasses

import numpy as np
import pytest
import torch
from helpers import RATIOS, shuffle_ratings, test_metrics, tiny_ratings, write_dat

from Models.dataLoader import BatchSampler, UserBatchSampler, make_loader
from Models.Dataset import UserBatches
from Models.features import FeatureConfig
from Models.inputs import RatingScale
from Models.ratings_data import load_data, model_inputs, note_on_order, split_fingerprint, split_rows
from utils.files import UserError
from utils.splits import Split

# --- reading -------------------------------------------------------------------------------------


def test_indices_lead_back_to_the_ids_of_the_files(data):
    ids = data.ids(data.user, data.movie)
    rows = zip(ids["userId"].tolist(), ids["movieId"].tolist(), data.rating.astype(int).tolist(), strict=True)
    assert list(rows) == [row[:3] for row in tiny_ratings()]
    assert data.user_ids == sorted({row[0] for row in tiny_ratings()})
    assert len(data.movies) == 27  # never-rated movies are part of the catalogue


def test_a_repeated_pair_is_refused(tmp_path, tiny_features):
    user, movie, _, _ = tiny_ratings()[5]
    folder = write_dat(tmp_path / "tiny", [*tiny_ratings(), (user, movie, 1, 978_300_009)])
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


def test_demographics_are_one_hot_and_zero_where_unknown(tmp_path, tiny_features):
    folder = write_dat(tmp_path / "tiny", tiny_ratings())
    users = ["1::F::25::4::55117", "4::M::56::7::02460", "7::F::::4::1"]  # the others are not listed
    (folder / "users.dat").write_text("\n".join(users) + "\n", encoding="latin-1")
    found = load_data(folder, tiny_features).user_features
    n_ages = 7
    assert found.shape == (30, 2 + n_ages + 2) and found.dtype == np.float32
    gender, age, occupation = found[:, :2], found[:, 2 : 2 + n_ages], found[:, 2 + n_ages :]
    assert gender[:3].tolist() == [[1, 0], [0, 1], [1, 0]] and occupation[:3].tolist() == [[1, 0], [0, 1], [1, 0]]
    assert age[:3].argmax(1).tolist() == [2, 6, 0] and age[:3].sum(1).tolist() == [1, 1, 0]
    assert not found[3:].any()


def test_ratings_of_the_same_second_keep_the_order_of_the_files(data):
    """However the split drew the rows, a model sees the same order in training and from its checkpoint."""
    at_once = dataclasses.replace(data, time=np.zeros_like(data.time))
    drawn = np.random.default_rng(0).permutation(len(data.user))[:200]
    rows = at_once.by_user_and_time(drawn)
    assert rows.tolist() == sorted(drawn.tolist(), key=lambda row: (data.user[row], row))


# --- what models are given -----------------------------------------------------------------------


def test_model_inputs_hold_the_training_rows_alone(data):
    """By user, then time; statistics and columns do not change with the ratings of the other rows."""
    split = split_rows(data, "random", RATIOS)
    others = np.concatenate([split.val, split.test])
    rating = data.rating.copy()
    rating[others] = 9
    changed = dataclasses.replace(data, rating=rating, scale=RatingScale.of(rating[split.train]))
    stats, inputs = model_inputs(data, split.train, FeatureConfig())
    other_stats, other_inputs = model_inputs(changed, split.train, FeatureConfig())
    assert stats == other_stats
    for one, other in ((inputs, other_inputs), (inputs.training(), other_inputs.training())):
        columns = {name: column for name, column in vars(one).items() if isinstance(column, torch.Tensor)}
        assert all(torch.equal(column, vars(other)[name]) for name, column in columns.items()) and len(columns) == 4
    rows, known = data.by_user_and_time(split.train), inputs.training()
    assert torch.equal(known.users(), torch.from_numpy(data.user[rows]))
    for name in ("movie", "rating", "time"):
        assert torch.equal(getattr(known, name), torch.from_numpy(getattr(data, name)[rows]))
    assert inputs.count.tolist() == np.bincount(data.movie[split.train], minlength=len(data.movies)).tolist()
    known = data.rating[split.train]
    assert stats.mean_rating == pytest.approx(known.mean())
    assert (stats.scale, stats.newest) == (RatingScale(1, 5), data.time[split.train].max())
    assert (stats.n_users, stats.n_movies, stats.n_features, stats.n_user_features) == (30, 27, 26, 1 + 7 + 1)
    blocks = [(block.name, block.width) for block in stats.blocks]
    assert blocks == [("title", 8), ("genres", 4), ("year", 13), ("popularity", 1)] and stats.has_years


def test_a_history_holds_the_given_rows_by_time(data):
    rows = np.random.default_rng(0).permutation(len(data.user))[:200]
    history = data.history(rows)
    for user in range(30):
        mine = rows[data.user[rows] == user]
        mine = mine[np.argsort(data.time[mine], kind="stable")]
        own = slice(int(history.offsets[user]), int(history.offsets[user + 1]))
        assert history.movie[own].tolist() == data.movie[mine].tolist()
        assert history.rating[own].tolist() == data.rating[mine].tolist()
        assert history.time[own].tolist() == data.time[mine].tolist()


def test_interactions_are_a_matrix_of_users_and_movies(data):
    rows = np.arange(50)
    chosen = data.select(rows)
    dense = np.zeros((30, 27))
    dense[data.user[rows], data.movie[rows]] = 1
    assert (chosen.matrix().toarray() == dense).all()
    dense[data.user[rows], data.movie[rows]] = data.rating[rows]
    assert (chosen.matrix(chosen.rating).toarray() == dense).all()
    assert (chosen.genres == data.features.vectors[:, 8:]).all()


# --- fingerprints and notes ----------------------------------------------------------------------


def test_the_fingerprint_of_the_ratings_changes_with_any_of_them(data):
    same = dataclasses.replace(data, name="another name", rating=data.rating.copy())
    assert same.fingerprint() == data.fingerprint()
    for name in ("user", "movie", "rating", "time"):
        column = getattr(data, name).copy()
        column[17] += 1
        assert dataclasses.replace(data, **{name: column}).fingerprint() != data.fingerprint()
    assert dataclasses.replace(data, user_ids=data.user_ids[::-1]).fingerprint() != data.fingerprint()


def test_the_fingerprint_of_a_split_is_that_of_its_rows(tiny_run, data, tiny_features, tmp_path):
    """It is equal if the same ratings are tested, whatever the order of the file."""
    split = split_rows(data, "random", RATIOS)
    stored = test_metrics(tiny_run)["split_sha256"]
    assert split_fingerprint(data, split) == stored
    folder = write_dat(tmp_path / "tiny", tiny_ratings())
    shuffle_ratings(folder)
    other = load_data(folder, tiny_features)
    assert split_fingerprint(other, split_rows(other, "random", RATIOS)) != stored
    by_time, other_by_time = (split_rows(one, "user-time", RATIOS) for one in (data, other))
    assert split_fingerprint(other, other_by_time) == split_fingerprint(data, by_time)
    reversed_rows = Split(split.train[::-1], split.val[::-1], split.test[::-1], split.protocol)
    assert split_fingerprint(data, reversed_rows) == stored
    assert split_fingerprint(data, Split(split.train, split.test, split.val, split.protocol)) != stored


def test_an_order_of_the_file_that_stands_in_for_times_is_noted(tiny_features, tmp_path):
    rows = [(user, movie, rating, time // 1000) for user, movie, rating, time in tiny_ratings()]
    by_id = load_data(write_dat(tmp_path / "sorted", sorted(rows)), tiny_features)
    assert "in 100% of these" in note_on_order(by_id)
    assert note_on_order(load_data(write_dat(tmp_path / "drawn", rows), tiny_features)) is None
    assert note_on_order(load_data(write_dat(tmp_path / "timed", tiny_ratings()), tiny_features)) is None
    assert note_on_order(dataclasses.replace(by_id, time=None)) is None


# --- loaders -------------------------------------------------------------------------------------


def test_a_loader_gives_whole_batches(data):
    batches = list(make_loader(data, np.arange(100), 32))
    assert [len(batch["user"]) for batch in batches] == [32, 32, 32, 4]
    assert torch.cat([batch["rating"] for batch in batches]).tolist() == data.rating[:100].tolist()


def test_the_order_depends_on_seed_and_epoch_alone():
    def order(seed, epoch):
        sampler = BatchSampler(np.arange(50), 16, seed)
        sampler.set_epoch(epoch)
        torch.rand(3)  # other random draws do not matter
        return torch.cat(list(sampler)).tolist()

    assert order(0, 1) == order(0, 1) != order(0, 2)
    assert order(0, 1) != order(1, 1)
    assert sorted(order(0, 1)) == list(range(50))


@pytest.mark.parametrize("size_in", ["ratings", "users"])
@pytest.mark.parametrize("similar_length", [True, False])
def test_training_batches_hold_whole_users(data, size_in, similar_length):
    """Of at most 20 ratings or users each, or of one user with more."""
    train = split_rows(data, "random", RATIOS).train
    sampler = UserBatchSampler(data, train, 20, seed=0, batching=UserBatches(size_in, similar_length))
    orders = []
    for epoch in (1, 2):
        sampler.set_epoch(epoch)
        batches = [rows.numpy() for rows in sampler]
        assert len(batches) == len(sampler)
        orders.append(np.concatenate(batches))
        assert sorted(orders[-1]) == sorted(train)
        users = [set(data.user[rows]) for rows in batches]
        assert sum(map(len, users)) == len(set().union(*users))
        for rows, some in zip(batches, users, strict=True):
            assert (len(rows) if size_in == "ratings" else len(some)) <= 20 or len(some) == 1
            for user in some:
                assert (np.diff(data.time[rows][data.user[rows] == user]) >= 0).all()
    assert orders[0].tolist() != orders[1].tolist()


def test_of_users_with_many_ratings_an_epoch_has_successive_ones_from_a_random_place_on(data):
    train = split_rows(data, "random", RATIOS).train
    sampler = UserBatchSampler(data, train, 20, seed=0, batching=UserBatches("ratings", longest=4))
    begins = set()
    for epoch in range(20):
        sampler.set_epoch(epoch)
        rows = np.concatenate([rows.numpy() for rows in sampler])
        for user in range(len(data.user_ids)):
            whole = data.by_user_and_time(train[data.user[train] == user]).tolist()
            found = rows[data.user[rows] == user].tolist()
            assert len(found) == min(4, len(whole))
            first = whole.index(found[0]) if found else 0
            assert found == whole[first : first + 4]
            begins.add((user, first))
    assert len(begins) > 2 * len(data.user_ids)
