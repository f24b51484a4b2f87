"""Baselines against their definitions, and what a comparison measures of them."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import tiny_ratings
from sklearn.metrics.pairwise import cosine_similarity

from Models.configs import PRESETS
from Models.EASE import item_weights
from Models.evaluation.rankings import RankingEvaluator
from Models.ratings_data import Interactions, split_rows
from resultAnalyze.baselines import (
    BASELINES,
    WEEK,
    biases,
    ease,
    fit_biases,
    genre_knn,
    most_popular,
    popular_lately,
    slim,
)
from resultAnalyze.compare_baselines import Settings, ranking_row, rating_row, wanted
from resultAnalyze.experiment import check_protocol, scores_of_test_rows
from utils.files import UserError
from utils.metrics import mean_metrics


def interactions(seed: int = 0) -> Interactions:
    """20 users and 13 movies, of which the last has no rating."""
    random = np.random.default_rng(seed)
    pairs = np.unique(random.integers(0, [20, 12], size=(120, 2)), axis=0)
    rating = random.integers(1, 6, len(pairs)).astype(np.float32)
    genres = (random.random((13, 4)) < 0.4).astype(np.float32)
    time = random.integers(0, 3 * WEEK, len(pairs))
    return Interactions(pairs[:, 0], pairs[:, 1], rating, time, 20, 13, genres)


# --- the definitions -----------------------------------------------------------------------------


def test_ease_is_the_minimum_of_its_loss():
    """Without a diagonal, |X - XB|^2 + 5 |B|^2 has no slope at the solution."""
    data = interactions()
    x = torch.from_numpy(data.matrix().toarray()).double()
    scores = ease(data, seed=0, penalty=5).score(torch.arange(20)).double()
    b = torch.linalg.lstsq(x[:, :12], scores).solution.requires_grad_()  # X has full rank: B from X B
    torch.testing.assert_close(x[:, :12] @ b, scores, atol=1e-5, rtol=0)
    assert b[:, :12].diagonal().abs().max() < 1e-4
    (((x - x[:, :12] @ b) ** 2).sum() + 5 * (b**2).sum()).backward()
    slope = b.grad[:, :12] - torch.diag(b.grad[:, :12].diagonal())
    assert slope.abs().max() < 1e-3


def test_weighted_ease_is_ease_of_the_weights():
    data = interactions()
    weights = np.array([0.05, 0.15, 0.4, 0.8, 1.0])[data.rating.astype(int) - 1]
    found = ease(data, 0, weighted=True).score(torch.arange(20))
    x = data.matrix(weights)
    torch.testing.assert_close(found, torch.from_numpy(x.toarray()) @ item_weights(x))


def test_slim_is_the_minimum_of_its_loss():
    """|X - XB|^2 / 2n + l1 sum(B) + l2 |B|^2 / 2 over B >= 0 with an empty diagonal (Karush, Kuhn and Tucker)."""
    data, penalty, l1_ratio = interactions(), 0.05, 0.2
    x = torch.from_numpy(data.matrix().toarray()).double()
    scores = slim(data, 0, penalty, l1_ratio).score(torch.arange(20)).double()
    b = torch.linalg.lstsq(x[:, :12], scores).solution  # X has full rank: B from X B
    assert b[:, :12].diagonal().abs().max() < 1e-4 and b.min() > -1e-4
    slope = x[:, :12].T @ (scores - x) / 20 + penalty * (l1_ratio + (1 - l1_ratio) * b)
    slope, b = (part[:, :12][~torch.eye(12, dtype=torch.bool)] for part in (slope, b))
    assert slope.min() > -2e-3 and slope[b > 1e-3].abs().max() < 2e-3 and 20 < (b > 1e-3).sum() < 100


def test_biases_without_damping_are_least_squares():
    data = interactions()
    one_hot = np.zeros((len(data.user), 33))
    one_hot[np.arange(len(data.user)), data.user] = 1
    one_hot[np.arange(len(data.user)), 20 + data.movie] = 1
    mean = data.rating.mean(dtype=np.float64)
    solution = np.linalg.lstsq(one_hot, data.rating - mean, rcond=None)[0]
    fitted, b_user, b_movie = fit_biases(data, damping_movie=1e-12, damping_user=1e-12, sweeps=500)
    np.testing.assert_allclose(fitted + b_user[data.user] + b_movie[data.movie], mean + one_hot @ solution, atol=1e-5)


def test_biases_predict_the_sum_and_rank_by_movie():
    data = interactions()
    mean, b_user, b_movie = fit_biases(data)
    fitted = biases(data, seed=0)
    user, movie = np.array([3, 0]), np.array([12, 5])
    np.testing.assert_allclose(fitted.predict(user, movie, np.zeros(2)), mean + b_user[user] + b_movie[movie])
    np.testing.assert_allclose(fitted.score(torch.tensor([3, 0])), [b_movie, b_movie])


def test_genre_knn_by_hand():
    data = interactions()
    mean, b_user, b_movie = fit_biases(data)
    fitted = genre_knn(data, seed=0, damping=2)
    cosine = cosine_similarity(data.genres)
    for user, movie in ((3, 12), (0, 5)):  # movie 12 has no rating
        own = data.user == user
        near = cosine[movie, data.movie[own]]
        rest = data.rating[own] - mean - b_user[user] - b_movie[data.movie[own]]
        expected = mean + b_user[user] + b_movie[movie] + (near @ rest) / (near.sum() + 2)
        found = fitted.predict(np.array([user]), np.array([movie]), np.array([0]))[0]
        assert found == pytest.approx(expected, abs=1e-5)
        scores = fitted.score(torch.tensor([user]))[0]
        assert float(scores[movie] + mean + b_user[user]) == pytest.approx(expected, abs=1e-5)


def test_most_popular_counts_ratings():
    data = interactions()
    scores = most_popular(data, seed=0).score(torch.tensor([3, 5]))
    assert scores[0].tolist() == scores[1].tolist() == np.bincount(data.movie, minlength=13).tolist()


def test_most_popular_of_the_last_week_counts_the_ratings_since_a_week_before_the_newest():
    data = interactions()
    days = np.arange(len(data.user)) % 20 * 86_400  # the newest: day 19; a week before: day 12, just excluded
    scores = popular_lately(dataclasses.replace(data, time=days), seed=0).score(torch.tensor([3]))[0]
    assert scores.tolist() == np.bincount(data.movie[days >= 13 * 86_400], minlength=13).tolist()


@pytest.mark.parametrize("name", list(BASELINES))
def test_every_baseline_gives_finite_output_and_repeats(name):
    fit = BASELINES[name].fit
    try:
        first, again = fit(interactions(), 1), fit(interactions(), 1)
    except ImportError as error:
        pytest.skip(f"{error.name} is not installed (requirements-baselines.txt)")
    user, movie = np.array([0, 19, 4]), np.array([12, 0, 7])
    if first.predict:
        prediction = first.predict(user, movie, np.zeros(3))
        assert prediction.shape == (3,) and np.isfinite(prediction).all()
        np.testing.assert_allclose(prediction, again.predict(user, movie, np.zeros(3)), rtol=1e-4)
    if first.score:
        scores = first.score(torch.tensor([0, 19]))
        assert scores.shape == (2, 13) and scores.isfinite().all()
    assert first.predict or first.score


@pytest.mark.parametrize(
    "name", ["item kNN (implicit)", "ALS (implicit)", "BPR (implicit)", "EASE", "SLIM (scikit-learn)"]
)
def test_users_without_ratings_get_the_most_popular_movies(name):
    data = dataclasses.replace(interactions(), n_users=23)
    try:
        fitted = BASELINES[name].fit(data, 0)
    except ImportError as error:
        pytest.skip(f"{error.name} is not installed (requirements-baselines.txt)")
    of_old, of_new = fitted.score(torch.tensor([3, 21]))
    assert of_new.tolist() == np.bincount(data.movie, minlength=13).tolist() and of_old.tolist() != of_new.tolist()


# --- the comparison ------------------------------------------------------------------------------


def test_the_ndcg_of_the_most_popular_movies_by_hand(data):
    """Recomputed with plain loops from the files."""
    split = split_rows(data, "random", (0.8, 0, 0.2))
    test, ratings = set(split.test.tolist()), tiny_ratings()
    counts = dict.fromkeys(data.movies["movie"], 0)
    for row, (_, movie, _, _) in enumerate(ratings):
        counts[movie] += row not in test
    values = []
    for user in data.user_ids:
        own = [(row, movie, rating) for row, (u, movie, rating, _) in enumerate(ratings) if u == user]
        relevant = {movie for row, movie, rating in own if row in test and rating >= 4}
        seen = {movie for row, movie, _ in own if row not in test}
        order = sorted((m for m in counts if m not in seen), key=lambda m: (-counts[m], m in relevant))
        gain = sum(1 / np.log2(2 + position) for position, movie in enumerate(order[:10]) if movie in relevant)
        if relevant:
            values.append(gain / sum(1 / np.log2(2 + position) for position in range(min(10, len(relevant)))))
    evaluator = RankingEvaluator(data, split, relevance_threshold=4)
    for score in (most_popular(data.select(split.train), 0).score, evaluator.most_popular()):
        ranking = evaluator.rank(score, split.train, split.test)
        assert mean_metrics(ranking, 10)["ndcg@10"] == pytest.approx(np.mean(values))


@pytest.fixture(scope="module")
def cold_evaluator(data):
    return RankingEvaluator(data, split_rows(data, "cold-movies", (0.5, 0.2, 0.3)), relevance_threshold=4)


def test_cold_movies_are_tested_ones_without_a_known_rating(data, cold_evaluator):
    split = cold_evaluator.split
    known = set(data.movie[[*split.train, *split.val]].tolist())
    expected = set(data.movie[split.test].tolist()) - known
    assert expected and set(np.flatnonzero(cold_evaluator.new_movies())) == expected


def test_errors_of_cold_movies_have_columns_of_their_own(data, cold_evaluator):
    test, cold = cold_evaluator.split.test, cold_evaluator.new_movies()
    fitted = biases(data.select(cold_evaluator.split.known), 0)
    row, _ = rating_row(cold_evaluator, fitted, cold)
    prediction = fitted.predict(data.user[test], data.movie[test], np.zeros(len(test)))
    known = data.rating[cold_evaluator.split.train]
    error = prediction.clip(known.min(), known.max()) - data.rating[test]
    assert row["rmse"] == pytest.approx((error**2).mean() ** 0.5, abs=1e-4)
    assert row["mae"] == pytest.approx(abs(error).mean(), abs=1e-4)
    assert row["cold_rmse"] == pytest.approx((error[cold[data.movie[test]]] ** 2).mean() ** 0.5, abs=1e-4)
    assert row["cold_auc"] == 0.5  # the cold movies of a user are all alike to it
    known = data.select(cold_evaluator.split.known)
    ranked = [ranking_row(cold_evaluator, fit(known, 0), cold)[0] for fit in (biases, most_popular)]
    # neither knows anything about cold movies: ties, which count equally against both
    assert ranked[0]["cold_ndcg@10"] == ranked[1]["cold_ndcg@10"] > 0
    assert "cold_rmse" not in rating_row(cold_evaluator, fitted, np.zeros(27, bool))[0]


def test_a_model_without_predictions_orders_test_rows_by_its_scores(data, cold_evaluator):
    """User by user, in chunks."""
    evaluator = dataclasses.replace(cold_evaluator, chunk_users=7)
    table = torch.from_numpy(np.random.default_rng(0).normal(size=(30, 27)))
    fitted = most_popular(data.select(evaluator.split.known), 0)
    fitted = dataclasses.replace(fitted, score=lambda users: table[users])
    test = evaluator.split.test
    expected = table.numpy()[data.user[test], data.movie[test]]
    np.testing.assert_allclose(scores_of_test_rows(fitted, None, evaluator), expected)


def test_only_models_that_draw_random_numbers_have_a_row_per_seed():
    settings = Settings(models=("EASE", "BPR (implicit)", "gru"), seeds=(3, 4))
    rows = [("EASE", 3), ("BPR (implicit)", 3), ("BPR (implicit)", 4), ("gru", 3), ("gru", 4)]
    assert wanted(settings, of_choices=False, has_times=True) == rows
    assert set(Settings().models) == {*BASELINES, *PRESETS}


def test_results_of_two_protocols_do_not_share_a_folder(tmp_path):
    check_protocol(tmp_path, {"k": 10, "data": "tiny"})
    check_protocol(tmp_path, {"k": 10, "data": "tiny"})
    with pytest.raises(UserError, match="another protocol: name another folder with --output"):
        check_protocol(tmp_path, {"k": 5, "data": "tiny"})
    assert pd.read_json(tmp_path / "protocol.json", typ="series").to_dict() == {"k": 10, "data": "tiny"}
