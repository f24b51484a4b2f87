"""When the lists of an evaluation are asked for, which is all that models are told about the tested ratings."""

import dataclasses

import numpy as np
import pytest
import torch
from helpers import RATIOS, random_model

from Models.evaluation.fitted import as_fitted
from Models.evaluation.rankings import RankingEvaluator
from Models.ratings_data import split_rows
from Models.Sequential import SequentialConfig
from utils.metrics import mean_metrics
from utils.splits import Split


def timed(data, **times: list[int]):
    """Data of users 0 and 1 with ratings at these times, and the rows of each part."""
    rows = {name: len(of_part) for name, of_part in times.items()}
    n = sum(rows.values())
    user = np.array([0, 1] * n)[:n]
    some = dataclasses.replace(
        data, user=user, movie=np.arange(n), rating=np.full(n, 5.0, np.float32), time=np.concatenate([*times.values()])
    )
    return some, np.split(np.arange(n), np.cumsum(list(rows.values()))[:-1])


def test_lists_are_asked_for_with_the_first_tested_rating_of_each_user(data):
    """But not before the latest known rating, which is when users without tested ratings ask."""
    some, parts = timed(data, train=[10, 20, 40, 30], val=[50], test=[70, 75, 60, 90])  # of user 0, 1, 0, 1 ...
    assert some.user[parts[2]].tolist() == [1, 0, 1, 0]
    evaluator = RankingEvaluator(some, Split(*parts, "by hand"), relevance_threshold=4)
    assert evaluator.request_times.of(parts[0], parts[1])[:3].tolist() == [50, 30, 0]
    assert evaluator.request_times.of(evaluator.split.known, parts[2])[:3].tolist() == [75, 60, 0]


def test_where_the_test_is_no_forecast_no_time_of_it_is_told(data):
    """A tested rating of user 0 is older than a known one; user 1, with later ones only, is no exception."""
    some, parts = timed(data, train=[10, 20, 40, 30], val=[50], test=[70, 25, 60, 90])
    evaluator = RankingEvaluator(some, Split(*parts, "by hand"), relevance_threshold=4)
    assert evaluator.request_times.of(parts[0], parts[1])[:3].tolist() == [40, 30, 0]
    assert evaluator.request_times.of(evaluator.split.known, parts[2])[:3].tolist() == [50, 30, 0]
    assert evaluator.by_request(None, None) == {}


def test_on_a_split_by_time_all_users_ask_when_the_test_begins(data):
    some, parts = timed(data, train=[10, 20], val=[30, 40], test=[60, 50, 60, 90])
    evaluator = RankingEvaluator(some, Split(*parts, "by hand", at_once=True), relevance_threshold=4)
    assert evaluator.request_times.of(evaluator.split.known, parts[2])[:3].tolist() == [50, 50, 50]
    assert evaluator.request_times.of(parts[0], parts[1])[:3].tolist() == [30, 30, 30]


@pytest.mark.parametrize("part", ["val", "test"])
def test_models_are_told_when_their_lists_are_asked_for(data, part):
    """In validation as in the test; a model that is not told gives other scores."""
    split = split_rows(data, "leave-one-out", RATIOS)
    evaluator = RankingEvaluator(data, split, relevance_threshold=1)
    model = random_model(data, split.train, SequentialConfig(embedding_dim=4, max_length=8, num_layers=1))
    known, rows = (split.train, split.val) if part == "val" else (evaluator.split.known, split.test)
    told = as_fitted(model, data, known, evaluator.request_times.of(known, rows))
    expected = mean_metrics(evaluator.rank(told.score, known, rows), 10)
    found = evaluator.validate(model) if part == "val" else evaluator.test(model)[0]
    assert found["ndcg@10"] == pytest.approx(expected["ndcg@10"])
    users = torch.arange(30)
    assert not torch.allclose(told.score(users), as_fitted(model, data, known).score(users), atol=1e-3)
