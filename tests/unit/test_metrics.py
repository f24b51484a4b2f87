"""Metrics: hand-computed values, ties that never help, and agreement with scikit-learn."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import mean_absolute_error, roc_auc_score, root_mean_squared_error

from utils.metrics import auc_by_user, beyond_accuracy, highest, mae, metrics_at, ranks_of, rating_metrics, rmse, top_n

INFINITY = math.inf

# --- ratings -------------------------------------------------------------------------------------

ratings = arrays(np.float32, st.shared(st.integers(1, 30), key="n"), elements=st.floats(0.5, 5, width=32))


@given(prediction=ratings, rating=ratings)
def test_rating_metrics_equal_those_of_scikit_learn(prediction, rating):
    assert rmse(prediction, rating) == pytest.approx(root_mean_squared_error(rating, prediction), abs=1e-5)
    assert mae(prediction, rating) == pytest.approx(mean_absolute_error(rating, prediction), abs=1e-5)
    assert mae(prediction, rating) <= rmse(prediction, rating) + 1e-9
    order = np.random.default_rng(0).permutation(len(rating))
    assert rmse(prediction[order], rating[order]) == pytest.approx(rmse(prediction, rating))


def test_rating_metrics_by_hand():
    found = rating_metrics(np.float32([3, 5]), np.float32([4, 2]), highest=5.0)
    assert found == pytest.approx({"loss": 5 / 25, "rmse": 5**0.5, "mae": 2.0})


@given(st.data())
def test_auc_is_that_of_scikit_learn_for_each_user(data):
    n = data.draw(st.integers(1, 40))
    user = np.array(data.draw(st.lists(st.integers(0, 4), min_size=n, max_size=n)))
    score = np.array(data.draw(st.lists(st.integers(1, 5), min_size=n, max_size=n)), float)  # with ties
    relevant = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    both = [u for u in np.unique(user) if 0 < relevant[user == u].sum() < (user == u).sum()]
    expected = [roc_auc_score(relevant[user == u], score[user == u]) for u in both]
    np.testing.assert_allclose(auc_by_user(user, score, relevant), expected)


# --- the top-N -----------------------------------------------------------------------------------

score_lists = st.lists(st.sampled_from([-INFINITY, 0.0, 1.0, 2.0, 3.0]), min_size=1, max_size=30)


@given(score_lists, st.integers(1, 40))
def test_the_top_n_is_that_of_a_stable_sort(scores, n):
    """Among equal scores, movies stand in their own order; -inf is never recommended."""
    movies, values = top_n(torch.tensor([scores]), n)
    by_score = sorted((m for m in range(len(scores)) if scores[m] > -INFINITY), key=lambda m: -scores[m])[:n]
    n_shown = min(n, len(scores))
    assert movies.tolist() == [by_score + [-1] * (n_shown - len(by_score))]
    assert values[0, : len(by_score)].tolist() == [scores[m] for m in by_score]


@given(st.lists(arrays(np.float64, 12, elements=st.integers(0, 3)), min_size=1, max_size=5), st.integers(1, 12))
def test_the_top_n_of_a_user_does_not_depend_on_the_others(rows, n):
    together = top_n(torch.from_numpy(np.stack(rows)), n)[0]
    alone = torch.cat([top_n(torch.from_numpy(row[None]), n)[0] for row in rows])
    assert torch.equal(together, alone)


# --- ranks ---------------------------------------------------------------------------------------


@given(
    scores=arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(5, 60)), elements=st.integers(-9, 9)),
    n=st.integers(1, 5),
    width=st.integers(1, 20),
)
def test_the_highest_are_those_of_a_sort_but_for_equal_ones_at_the_cut(scores, n, width):
    found = highest(torch.from_numpy(scores), n, width).numpy()
    for row, columns in zip(scores, found, strict=True):
        assert (np.diff(columns) > 0).all() and columns[0] >= 0 and columns[-1] < len(row)
        assert sorted(row[columns]) == sorted(row)[-n:]


def test_ranks_by_hand():
    """Movie scores 9 to 5, of which 8 and 6 are relevant; and a tie, where the other movie stands first."""
    scores = torch.tensor([[9.0, 8, 7, 6, 5], [1, 1, 0, 0, 0]], dtype=torch.float64)
    relevant = torch.tensor([[6.0, 8], [1, 0]], dtype=torch.float64)
    assert ranks_of(relevant, scores, 5).tolist() == [[2, 4], [2, 5]]
    assert ranks_of(relevant, scores, 4).tolist() == [[2, 4], [2, INFINITY]]
    assert ranks_of(relevant, scores, 1).tolist() == [[INFINITY] * 2] * 2


def test_a_missing_score_has_no_rank():
    relevant = torch.tensor([[3.0, -INFINITY]], dtype=torch.float64)
    assert ranks_of(relevant, torch.tensor([[1.0, 3.0, -INFINITY]], dtype=torch.float64), 3).tolist() == [[1, INFINITY]]


@given(st.data(), st.integers(1, 15))
def test_ranks_are_those_of_the_worst_order(data, n):
    """Best scores first, irrelevant movies first among ties; up to rank n."""
    scores = data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=15))
    relevant = data.draw(st.sets(st.integers(0, len(scores) - 1), min_size=1))
    order = sorted(range(len(scores)), key=lambda movie: (-scores[movie], movie in relevant))
    expected = [k if k <= n else INFINITY for k, movie in enumerate(order, start=1) if movie in relevant]
    own = torch.tensor([[float(scores[movie]) for movie in relevant]])
    assert ranks_of(own, torch.tensor([scores]).float(), n)[0].tolist() == expected


def test_ranking_metrics_by_hand():
    """Relevant movies at ranks 1 and 3 of a user, and one at rank 4 of another."""
    ranks = torch.tensor([[1, 3], [4, INFINITY]], dtype=torch.float64)
    found = {name: values.tolist() for name, values in metrics_at(ranks, torch.tensor([2, 1]), 3).items()}
    assert found["hr@3"] == [1, 0] and found["mrr@3"] == [1, 0]
    assert found["precision@3"] == pytest.approx([2 / 3, 0]) and found["recall@3"] == [1, 0]
    assert found["map@3"] == pytest.approx([(1 + 2 / 3) / 2, 0])
    assert found["ndcg@3"] == pytest.approx([(1 + 1 / 2) / (1 + 1 / math.log2(3)), 0])


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_a_better_rank_never_lowers_a_metric(data):
    ranks = sorted(data.draw(st.sets(st.integers(2, 20), min_size=1, max_size=4)))
    k = data.draw(st.integers(1, 12))
    moved = data.draw(st.sampled_from([i for i, rank in enumerate(ranks) if rank - 1 not in ranks]))
    better = [rank - (i == moved) for i, rank in enumerate(ranks)]
    n = torch.tensor([len(ranks)])
    before, after = (metrics_at(torch.tensor([r], dtype=torch.float64), n, k) for r in (ranks, better))
    assert all(float(after[name]) >= float(before[name]) for name in before)


# --- beyond accuracy -----------------------------------------------------------------------------


def test_beyond_accuracy_by_hand():
    found = beyond_accuracy(torch.tensor([[0, 1], [0, 2]]), popularity=torch.tensor([4, 2, 0, 1]), n_users=4)
    assert found["coverage"] == 3 / 4
    assert found["overlap"] == 1 / 2  # one of two movies in common
    assert found["popularity"] == (4 + 2 + 4 + 0) / 4
    assert found["novelty"] == (0 + 1 + 0 + 2) / 4
    same = beyond_accuracy(torch.tensor([[0, 1]] * 3), torch.tensor([4, 2, 0, 1]), 4)
    assert same["overlap"] == 1
