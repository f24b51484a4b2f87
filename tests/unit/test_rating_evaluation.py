"""Evaluation of predicted ratings, and the epoch that each evaluator prefers."""

import numpy as np
import pytest
import torch
from helpers import RATIOS, batch_of, random_model

from Models.evaluation.evaluators import best_epoch
from Models.evaluation.fitted import as_fitted
from Models.evaluation.rankings import RankingEvaluator
from Models.evaluation.ratings import RatingEvaluator
from Models.HistoryRecommender import HistoryConfig
from Models.ratings_data import split_rows
from utils.splits import Split


@pytest.fixture
def split(data):
    return split_rows(data, "random", RATIOS)


def test_the_rating_evaluator_predicts_rows_from_training_ratings_alone(data, split):
    """They are in the order asked for, clipped to the scale, and equal the model's on that history."""
    evaluator = RatingEvaluator(data, split)
    model = random_model(data, split.train, HistoryConfig(embedding_dim=4, hidden_dim=5))
    rows = np.random.default_rng(0).permutation(split.test)
    found = evaluator.predict(as_fitted(model, data, split.train), rows)
    with torch.inference_mode():
        expected = model.predict(batch_of(data, rows), data.history(split.train))
    assert float((expected < 1).sum() + (expected > 5).sum()) > 0  # clipping has an effect
    np.testing.assert_allclose(found, expected.clamp(1, 5), atol=1e-4)
    metrics, table = evaluator.test(model)
    error = table["prediction"] - table["rating"]
    assert metrics["rmse"] == pytest.approx((error**2).mean() ** 0.5)
    assert metrics["mae"] == pytest.approx(error.abs().mean())
    pairs = set(zip(table["userId"], table["movieId"], strict=True))
    ids = data.ids(data.user[split.test], data.movie[split.test])
    assert pairs == set(zip(ids["userId"], ids["movieId"], strict=True)) and len(table) == len(split.test)


def test_errors_of_new_movies_and_new_users_stand_apart(data):
    """User 4 and movie 3 have no training rating; one tested row belongs to both."""
    new = (data.user == 4) | (data.movie == 3)
    rest = np.flatnonzero(~new)
    split = Split(rest[::2], np.empty(0, np.int64), np.concatenate([rest[1::2], np.flatnonzero(new)]), "by hand")
    evaluator = RatingEvaluator(data, split)
    prediction = np.full(len(split.test), 3, np.float32)
    found = evaluator.by_part(prediction, split.test)
    rating, user, movie = (column[split.test] for column in (data.rating, data.user, data.movie))
    parts = {"new_movie": movie == 3, "new_user": user == 4, "warm": (movie != 3) & (user != 4)}
    for name, rows in parts.items():
        assert found[name]["rows"] == rows.sum() > 0
        assert found[name]["rmse"] == pytest.approx(((rating[rows] - 3) ** 2).mean() ** 0.5)
        assert found[name]["mae"] == pytest.approx(abs(rating[rows] - 3).mean())


def test_the_best_epoch_is_the_first_of_equals_by_validation(data, split):
    def epochs(name: str, *values: float) -> list[dict]:
        return [{"epoch": k, name: value} for k, value in enumerate(values, start=1)]

    rating, ranking = RatingEvaluator(data, split), RankingEvaluator(data, split, relevance_threshold=4)
    assert best_epoch(epochs("val_rmse", 1.0, 0.8, 0.9, 0.8), rating) == 2
    assert best_epoch(epochs("val_ndcg@10", 0.1, 0.3, 0.3, 0.2), ranking) == 2
    assert best_epoch(epochs("train_loss", 1.0, 0.5, 0.7), rating) == 3  # without validation, the last
