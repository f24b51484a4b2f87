"""Baselines against their definitions, and the comparison as a user runs it."""

import csv
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, tiny_ratings
from sklearn.metrics.pairwise import cosine_similarity

from Models.baselines import BASELINES, Rows, ease, fit_biases, genre_knn, most_popular

SCRIPT = "resultAnalyze/compare_baselines.py"


def rows(seed: int = 0) -> Rows:
    random = np.random.default_rng(seed)
    pairs = np.unique(random.integers(0, [20, 12], size=(120, 2)), axis=0)
    rating = random.integers(1, 6, len(pairs)).astype(np.float32)
    genres = (random.random((13, 4)) < 0.4).astype(np.float32)
    return Rows(pairs[:, 0], pairs[:, 1], rating, 20, 13, genres)  # movie 12 has no rating


def test_ease_is_the_minimum_of_its_objective():
    """Without a diagonal, |X - XB|^2 + 5 |B|^2 has no slope at the solution."""
    data = rows()
    x = torch.from_numpy(data.matrix().toarray()).double()
    scores = ease(data, seed=0, penalty=5).score(torch.arange(20)).double()
    b = torch.linalg.lstsq(x[:, :12], scores).solution.requires_grad_()  # X has full rank: B from X B
    torch.testing.assert_close(x[:, :12] @ b, scores, atol=1e-5, rtol=0)
    assert b[:, :12].diagonal().abs().max() < 1e-4
    (((x - x[:, :12] @ b) ** 2).sum() + 5 * (b**2).sum()).backward()
    slope = b.grad[:, :12] - torch.diag(b.grad[:, :12].diagonal())
    assert slope.abs().max() < 1e-3


def test_biases_without_damping_are_least_squares():
    data = rows()
    one_hot = np.zeros((len(data.user), 33))
    one_hot[np.arange(len(data.user)), data.user] = 1
    one_hot[np.arange(len(data.user)), 20 + data.movie] = 1
    mean = data.rating.mean(dtype=np.float64)
    solution = np.linalg.lstsq(one_hot, data.rating - mean, rcond=None)[0]
    fitted, b_user, b_movie = fit_biases(data, damping_movie=1e-12, damping_user=1e-12, sweeps=500)
    np.testing.assert_allclose(fitted + b_user[data.user] + b_movie[data.movie], mean + one_hot @ solution, atol=1e-5)


def test_genre_knn_by_hand():
    data = rows()
    mean, b_user, b_movie = fit_biases(data)
    fitted = genre_knn(data, seed=0, damping=2)
    cosine = cosine_similarity(data.genres)
    for user, movie in ((3, 12), (0, 5)):  # movie 12 has no rating
        mine = data.user == user
        near = cosine[movie, data.movie[mine]]
        rest = data.rating[mine] - mean - b_user[user] - b_movie[data.movie[mine]]
        expected = mean + b_user[user] + b_movie[movie] + (near @ rest) / (near.sum() + 2)
        assert fitted.stars(np.array([user]), np.array([movie]), np.array([0]))[0] == pytest.approx(expected, abs=1e-5)
        scores = fitted.score(torch.tensor([user]))[0]
        assert float(scores[movie] + mean + b_user[user]) == pytest.approx(expected, abs=1e-5)


def test_most_popular_counts():
    scores = most_popular(rows(), seed=0).score(torch.tensor([3, 5]))
    assert scores[0].tolist() == scores[1].tolist() == np.bincount(rows().movie, minlength=13).tolist()


@pytest.mark.parametrize("name", list(BASELINES))
def test_every_baseline_gives_finite_output_and_repeats(name):
    fit, _ = BASELINES[name]
    try:
        first, again = fit(rows(), 1), fit(rows(), 1)
    except ImportError as error:
        pytest.skip(f"{error.name} is not installed (requirements-baselines.txt)")
    user, movie = np.array([0, 19, 4]), np.array([12, 0, 7])
    if first.stars:
        stars = first.stars(user, movie, np.zeros(3))
        assert stars.shape == (3,) and np.isfinite(stars).all()
        np.testing.assert_allclose(stars, again.stars(user, movie, np.zeros(3)), rtol=1e-4)
    if first.score:
        scores = first.score(torch.tensor([0, 19]))
        assert scores.shape == (2, 13) and scores.isfinite().all()
    assert first.stars or first.score


def test_a_comparison_is_complete_and_goes_on_where_it_stopped(tiny, tiny_features, tmp_path):
    """The libraries are made to be missing: their rows say what to install."""
    (tmp_path / "implicit.py").write_text("raise ImportError('gone', name='implicit')\n")
    models = ["most popular", "user + movie bias", "EASE", "ALS (implicit)", "Recommender"]
    places = ("--data", tiny, "--features", tiny_features, "--output", tmp_path / "out")
    shape = ("--ratios", 0.5, 0.3, 0.2, "--seeds", 0)

    def compare(*flags: object) -> subprocess.CompletedProcess:
        command = [sys.executable, ROOT / SCRIPT, *places, *shape, *flags]
        environment = os.environ | {"PYTHONPATH": str(tmp_path)}
        return subprocess.run([str(word) for word in command], capture_output=True, text=True, env=environment)

    first = compare("--models", *models[:3])
    assert first.returncode == 0, first.stderr
    second = compare("--models", *models)
    assert second.returncode == 0, second.stderr
    assert "EASE, seed" not in second.stdout and "Recommender, seed 0" in second.stdout
    with (tmp_path / "out/comparison.csv").open(encoding="utf-8") as file:
        found = {row["model"]: row for row in csv.DictReader(file)}
    assert list(found) == ["most popular", "user + movie bias", "EASE", "Recommender"]
    assert found["most popular"]["rmse"] == found["EASE"]["rmse"] == ""
    assert all(0 < float(found[name]["rmse"]) < 3 for name in ("user + movie bias", "Recommender"))
    assert all(0 <= float(row["ndcg@10"]) <= 1 and 0 < float(row["coverage"]) <= 1 for row in found.values())
    table = (tmp_path / "out/comparison.md").read_text(encoding="utf-8")
    assert "| ALS (implicit) | | implicit is not installed: pip install -r requirements-baselines.txt" in table
    assert (tmp_path / "out/comparison.png").read_bytes().startswith(b"\x89PNG")
    other = compare("--models", "EASE", "--relevant", 3)
    assert other.returncode == 1 and "another protocol" in other.stderr
    assert "There is no model" in compare("--models", "EASY").stderr
    (tmp_path / "out/comparison.csv").write_text("model,seed,rmse\nEASE,0,\n", encoding="utf-8")
    assert "another version" in compare("--models", "EASE").stderr


def test_the_popular_row_by_hand(tiny_features, tiny):
    """NDCG of the most popular movies, recomputed with plain loops from the files."""
    from Models.dataLoader import load_data, split_rows
    from Models.lists import UserLists
    from Models.ranking import mean_metrics, rank_all

    data = load_data(tiny, tiny_features)
    split = split_rows(data, "random", (0.8, 0, 0.2))
    test, ratings = set(split.test.tolist()), tiny_ratings()
    counts = dict.fromkeys(data.movies["movie"], 0)
    for row, (_, movie, _, _) in enumerate(ratings):
        counts[movie] += row not in test
    values = []
    for user in data.user_ids:
        mine = [(row, movie, stars) for row, (u, movie, stars, _) in enumerate(ratings) if u == user]
        liked = {movie for row, movie, stars in mine if row in test and stars >= 4}
        seen = {movie for row, movie, _ in mine if row not in test}
        order = sorted((m for m in counts if m not in seen), key=lambda m: (-counts[m], m in liked))
        gain = sum(1 / np.log2(2 + place) for place, movie in enumerate(order[:10]) if movie in liked)
        if liked:
            values.append(gain / sum(1 / np.log2(2 + place) for place in range(min(10, len(liked)))))
    train = split.train
    train_rows = Rows(data.user[train], data.movie[train], data.rating[train], 30, 27, np.zeros((27, 1)))
    hits = split.test[data.rating[split.test] >= 4]
    seen_lists = UserLists.of(data.user[train], data.movie[train], 30)
    found = rank_all(most_popular(train_rows, 0).score, seen_lists, UserLists.of(data.user[hits], data.movie[hits], 30))
    assert mean_metrics(found, [10])["ndcg@10"] == pytest.approx(np.mean(values))


def test_cold_movies_have_columns_of_their_own(tiny, tiny_features, tmp_path, run_script):
    places = ("--data", tiny, "--features", tiny_features, "--output", tmp_path / "out")
    run_script(SCRIPT, *places, "--split", "cold-movies", "--models", "most popular", "user + movie bias", "genre kNN")
    with (tmp_path / "out/comparison.csv").open(encoding="utf-8") as file:
        found = {row["model"]: row for row in csv.DictReader(file)}
    assert float(found["user + movie bias"]["cold_auc"]) == 0.5  # a user's cold movies all look alike to it
    assert float(found["genre kNN"]["cold_rmse"]) > 0 and found["most popular"]["cold_rmse"] == ""
    # both know nothing of cold movies: ties, which count against them alike
    assert found["most popular"]["cold_ndcg@10"] == found["user + movie bias"]["cold_ndcg@10"]
    assert "cold_auc" in (tmp_path / "out/comparison.md").read_text(encoding="utf-8")
