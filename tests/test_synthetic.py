"""Made-up data: the shape of the real one, a taste that can be found, and the same bytes from the same seed."""

import json

import numpy as np
import pytest

from Models.baselines import Rows, biases, genre_knn
from utils.readers import read_dataset

SCRIPT = "utils/synthetic.py"
SIZES = ("--users", 500, "--movies", 800, "--ratings", 30_000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("synthetic")


@pytest.fixture
def made(run_script, folder):
    """The data set and what is known of its truth."""
    if not (folder / "truth.json").is_file():
        run_script(SCRIPT, *SIZES, "--output", folder)
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


def test_genres_tell_of_a_user_s_taste_and_nobody_beats_the_truth(made):
    """Held-out RMSE: constant > biases > biases and the user's genres > the truth."""
    data, truth = made
    user, movie = data.ratings["user"].to_numpy() - 1, data.ratings["movie"].to_numpy() - 1
    stars, genres = data.ratings["rating"].to_numpy(), data.movies["genres"].str[0].astype("category").cat.codes
    held_out = np.random.default_rng(0).random(len(stars)) < 0.2
    known = (column[~held_out] for column in (user, movie, stars))
    rows = Rows(*known, 500, 800, np.eye(genres.max() + 1, dtype=np.float32)[genres])
    asked = user[held_out], movie[held_out], np.zeros(held_out.sum())
    by_bias, by_genre = (
        np.sqrt(np.mean((fit(rows, 0).stars(*asked) - stars[held_out]) ** 2)) for fit in (biases, genre_knn)
    )
    assert truth["rmse_of_truth"] < by_genre < by_bias - 0.01 < by_bias < truth["rmse_of_mean"]


def test_the_seed_decides_every_byte(run_script, made, folder, tmp_path):
    run_script(SCRIPT, *SIZES, "--output", tmp_path / "same")
    run_script(SCRIPT, *SIZES, "--seed", 1, "--output", tmp_path / "other")
    for name in ("ratings.csv", "movies.csv"):
        assert (tmp_path / "same" / name).read_bytes() == (folder / name).read_bytes()
    assert (tmp_path / "other/ratings.csv").read_bytes() != (folder / "ratings.csv").read_bytes()


def test_sizes_that_cannot_be_are_refused(run_script, tmp_path):
    few = run_script(SCRIPT, "--users", 100, "--ratings", 500, "--output", tmp_path, code=1)
    assert "at least 20 for each of the 100 users" in few.stderr
    dense = run_script(SCRIPT, "--users", 100, "--movies", 50, "--ratings", 4000, "--output", tmp_path, code=1)
    assert "a quarter of all pairs" in dense.stderr
