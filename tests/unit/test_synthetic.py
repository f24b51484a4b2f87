"""Synthetic data: the shape of MovieLens, tastes that can be learned, and the same bytes from the same seed."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import main_here

from Models.ratings_data import Interactions
from resultAnalyze import synthetic
from resultAnalyze.baselines import biases, genre_knn
from utils.files import UserError
from utils.readers import read_dataset

SIZES = ("--users", 500, "--movies", 800, "--ratings", 30_000)


def write(folder: Path, *flags: object) -> Path:
    """What the script writes with these flags."""
    main_here(synthetic, *flags, "--output", folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("synthetic"), *SIZES)


@pytest.fixture(scope="module")
def made(folder):
    """The data set and what is known about how it was drawn."""
    return read_dataset(folder), json.loads((folder / "truth.json").read_text())


def test_it_looks_like_movielens(made):
    data, truth = made
    ratings = data.ratings
    assert len(ratings) == truth["ratings"] and 0.8 * 30_000 < len(ratings) < 1.2 * 30_000
    assert not ratings.duplicated(["user", "movie"]).any()
    assert set(ratings["rating"]) == set(np.arange(1, 11) / 2)
    of_user, of_movie = ratings["user"].value_counts(), ratings["movie"].value_counts()
    assert len(of_user) == 500 and of_user.min() >= 20 and of_user.max() > 2 * of_user.median()
    assert of_movie.max() > 10 * of_movie.median()
    assert (ratings.groupby("user")["time"].diff().dropna() >= 0).all()


def test_genres_tell_of_the_taste_of_a_user_and_nothing_beats_the_truth(made):
    """Held-out RMSE: constant > biases > biases and the genres that a user likes > the truth."""
    data, truth = made
    user, movie = data.ratings["user"].to_numpy() - 1, data.ratings["movie"].to_numpy() - 1
    rating, genres = data.ratings["rating"].to_numpy(), data.movies["genres"].str[0].astype("category").cat.codes
    held_out = np.random.default_rng(0).random(len(rating)) < 0.2
    known = (column[~held_out] for column in (user, movie, rating, np.zeros(len(user), np.int64)))
    interactions = Interactions(*known, 500, 800, np.eye(genres.max() + 1, dtype=np.float32)[genres])
    asked = user[held_out], movie[held_out], np.zeros(held_out.sum())
    by_bias, by_genre = (
        np.sqrt(np.mean((fit(interactions, 0).predict(*asked) - rating[held_out]) ** 2)) for fit in (biases, genre_knn)
    )
    assert truth["rmse_of_truth"] < by_genre < by_bias - 0.01 < by_bias < truth["rmse_of_mean"]


def test_chunks_of_users_are_written_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "CHUNK_RATINGS", 1000)
    ratings = read_dataset(write(tmp_path, "--users", 90, "--movies", 300, "--ratings", 3000)).ratings
    assert ratings["user"].is_monotonic_increasing and ratings["user"].nunique() == 90
    assert not ratings.duplicated(["user", "movie"]).any()


def test_the_seed_decides_every_byte(folder, tmp_path):
    write(tmp_path / "same", *SIZES)
    write(tmp_path / "other", *SIZES, "--seed", 1)
    for name in ("ratings.csv", "movies.csv"):
        assert (tmp_path / "same" / name).read_bytes() == (folder / name).read_bytes()
    assert (tmp_path / "other/ratings.csv").read_bytes() != (folder / "ratings.csv").read_bytes()


def test_sizes_that_are_not_possible_are_refused(tmp_path):
    with pytest.raises(UserError, match="100 users need at least 20 each"):
        write(tmp_path, "--users", 100, "--ratings", 500)
    with pytest.raises(UserError, match="a quarter of all pairs"):
        write(tmp_path, "--users", 100, "--movies", 50, "--ratings", 4000)
    assert list(tmp_path.iterdir()) == []
