"""Evaluation of rankings: the whole catalogue by its plain definition, sampled negatives, what the evaluator says."""

import dataclasses
import math

import numpy as np
import pytest
import ranx
import scipy.sparse as sp
import torch
from helpers import RATIOS, random_model
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from Models.Dataset import FittedModel
from Models.evaluation.fitted import as_fitted
from Models.evaluation.rankings import RankingEvaluator, of_evaluated, rank_all, rank_sampled
from Models.RankingRecommender import RankingNCFConfig
from Models.ratings_data import split_rows
from utils.files import UserError
from utils.metrics import mean_metrics, metrics_at
from utils.splits import Split


def matrix(movies: list[list[int]], n_movies: int) -> sp.csr_matrix:
    """Users by movies, 1 at the movies of each user."""
    dense = np.zeros((len(movies), n_movies), np.float32)
    for user, own in enumerate(movies):
        dense[user, own] = 1
    return sp.csr_matrix(dense)


def rank(scores, seen: list[list[int]], relevant: list[list[int]], n: int = 10, chunk_users: int = 256):
    """`rank_all` of a table of scores, users by movies."""
    table = torch.from_numpy(np.array(scores, np.float32))
    n_movies = table.shape[1]
    return rank_all(
        lambda users: table[users], matrix(seen, n_movies), matrix(relevant, n_movies), n, chunk_users=chunk_users
    )


# --- the full catalogue --------------------------------------------------------------------------


def test_a_ranking_by_hand():
    scores = [[0.9, 0.8, 0.7, 0.6, 0.5], [0.1, 0.2, 0.3, 0.4, 0.5], [1, 2, 3, 4, 5]]
    ranking = rank(scores, [[0], [], [0]], [[3, 1], [], [1]], n=3)
    assert ranking.users.tolist() == [0, 2]  # user 1 has nothing to find
    assert ranking.ranks.tolist() == [[1, 3], [math.inf, math.inf]]  # movie 0 is seen and no candidate
    assert ranking.n_relevant.tolist() == [2, 1]
    assert ranking.topn.tolist() == [[1, 2, 3], [4, 3, 2]]
    assert ranking.scores.tolist() == [pytest.approx([0.8, 0.7, 0.6]), [5, 4, 3]]


def test_ties_never_help():
    assert rank([[1] * 5], [[]], [[0, 4]]).ranks.tolist() == [[4, 5]]
    assert rank([[2, 1, 1, 1, 0]], [[]], [[0, 1]]).ranks.tolist() == [[1, 4]]
    assert mean_metrics(rank([[0] * 50], [[]], [[3, 9]]), 10)["hr@10"] == 0


def test_a_user_without_scores_counts_as_zero():
    ranking = rank([[math.nan] * 4, [1, 2, 3, 4]], [[], []], [[1], [3]])
    assert ranking.ranks.tolist() == [[math.inf], [1]]
    assert ranking.topn[0].tolist() == [-1] * 4
    assert mean_metrics(ranking, 4)["hr@4"] == 0.5


def test_a_movie_scored_minus_infinity_has_no_rank_and_is_not_recommended():
    ranking = rank([[-math.inf, 1, 2]], [[]], [[0]])
    assert ranking.ranks.tolist() == [[math.inf]] and ranking.topn.tolist() == [[2, 1, -1]]


def test_fewer_movies_than_n_may_be_left():
    ranking = rank([[5, 4, 3]], [[0, 1]], [[2]])
    assert ranking.ranks.tolist() == [[1]] and ranking.topn.tolist() == [[2, -1, -1]]


@st.composite
def problems(draw):
    """Scores with ties, and for each user some seen and some other relevant movies."""
    n_users, n_movies = draw(st.integers(1, 6)), draw(st.integers(6, 14))
    random = np.random.default_rng(draw(st.integers(0, 10**6)))
    scores = random.integers(0, draw(st.sampled_from([2, 5, 10**6])), (n_users, n_movies)).astype(float)
    orders = [random.permutation(n_movies) for _ in range(n_users)]
    seen = [order[: random.integers(0, 3)].tolist() for order in orders]
    relevant = [order[3 : 3 + random.integers(1, 4)].tolist() for order in orders]
    return scores, seen, relevant


def worst_order(scores, seen, relevant) -> list[int]:
    """The plain definition: best scores first, irrelevant movies first among ties."""
    movies = [movie for movie in range(len(scores)) if movie not in seen]
    return sorted(movies, key=lambda movie: (-scores[movie], movie in relevant))


def plain_metrics(hits: list[bool], n_relevant: int, k: int) -> dict[str, float]:
    """The definitions, from whether each of the first k movies is relevant."""
    gains = [hit / math.log2(2 + position) for position, hit in enumerate(hits)]
    ideal = sum(1 / math.log2(2 + position) for position in range(min(k, n_relevant)))
    return {
        "hr": float(any(hits)),
        "precision": sum(hits) / k,
        "recall": sum(hits) / n_relevant,
        "mrr": 1 / (1 + hits.index(True)) if any(hits) else 0,
        "map": sum(sum(hits[: i + 1]) / (i + 1) for i in range(len(hits)) if hits[i]) / min(k, n_relevant),
        "ndcg": sum(gains) / ideal,
    }


@settings(max_examples=80, deadline=None)
@given(problem=problems(), k=st.integers(1, 12), chunk=st.integers(1, 7))
def test_metrics_are_those_of_the_plain_definition(problem, k, chunk):
    scores, seen, relevant = problem
    ranking = rank(scores, seen, relevant, n=12, chunk_users=chunk)
    found = metrics_at(ranking.ranks, ranking.n_relevant, k)
    for user, (own, known) in enumerate(zip(relevant, seen, strict=True)):
        hits = [movie in own for movie in worst_order(scores[user], known, own)][:k]
        for name, value in plain_metrics(hits, len(own), k).items():
            assert found[f"{name}@{k}"][user].item() == pytest.approx(value), name
            assert 0 <= found[f"{name}@{k}"][user].item() <= 1 + 1e-12


@settings(max_examples=30, deadline=None)
@given(problem=problems(), chunk=st.integers(1, 7))
def test_chunks_do_not_change_a_ranking(problem, chunk):
    whole, in_chunks = rank(*problem), rank(*problem, chunk_users=chunk)
    assert all(torch.equal(part, vars(in_chunks)[name]) for name, part in vars(whole).items())


@settings(max_examples=30, deadline=None)
@given(problem=problems(), seed=st.integers(0, 1000))
def test_ranks_do_not_depend_on_the_order_of_the_movies(problem, seed):
    scores, seen, relevant = problem
    order = np.random.default_rng(seed).permutation(scores.shape[1])
    index = np.argsort(order)
    moved = [[[index[movie] for movie in own] for own in lists] for lists in (seen, relevant)]
    assert torch.equal(rank(scores, seen, relevant).ranks, rank(scores[:, order], *moved).ranks)


def test_metrics_equal_those_of_scikit_learn_and_ranx():
    random = np.random.default_rng(1)
    scores = random.permutation(40 * 30).reshape(40, 30).astype(float)  # no ties, which the libraries break differently
    relevant = [random.permutation(30)[: random.integers(1, 6)].tolist() for _ in range(40)]
    found = mean_metrics(rank(scores, [[]] * 40, relevant), 10)
    truth = np.array([[movie in own for movie in range(30)] for own in relevant], float)
    assert found["ndcg@10"] == pytest.approx(ndcg_score(truth, scores, k=10))
    qrels = ranx.Qrels({str(u): {str(m): 1 for m in own} for u, own in enumerate(relevant)})
    run = ranx.Run({str(u): {str(m): s for m, s in enumerate(row)} for u, row in enumerate(scores)})
    names = {
        "hit_rate@10": "hr",
        "precision@10": "precision",
        "recall@10": "recall",
        "mrr@10": "mrr",
        "ndcg@10": "ndcg",
    }
    theirs = ranx.evaluate(qrels, run, list(names))
    for their_name, name in names.items():
        assert found[f"{name}@10"] == pytest.approx(theirs[their_name]), name


# --- sampled negatives ---------------------------------------------------------------------------


def test_sampled_negatives_are_unseen_others():
    """Of 200 movies 100 are seen and one is relevant, so the 99 negatives are just the rest."""
    random = np.random.default_rng(0)
    scores = random.normal(size=(5, 200)).astype(np.float32)
    orders = [random.permutation(200).tolist() for _ in range(5)]
    seen = matrix([order[:100] for order in orders], 200)
    relevant = matrix([order[100:101] for order in orders], 200)
    two_relevant = matrix([order[100:102] for order in orders], 200)

    def score(users):
        return torch.from_numpy(scores)[users]

    ranks = rank_sampled(score, seen, relevant, seed=0)
    for user, order in enumerate(orders):
        assert ranks[user].item() == 1 + (scores[user, order[101:]] >= scores[user, order[100]]).sum()
    with pytest.raises(ValueError, match="fewer than 100"):
        rank_sampled(score, seen, relevant, seed=0, n_negatives=100)
    with pytest.raises(ValueError, match="one relevant"):
        rank_sampled(score, seen, two_relevant, seed=0)
    assert (rank_sampled(lambda users: torch.zeros(len(users), 200), seen, relevant, seed=0) == 100).all()


def test_sampled_ranking_scores_nobody_without_something_to_find():
    asked = []

    def score(users: torch.Tensor) -> torch.Tensor:
        asked.extend(users.tolist())
        return torch.zeros(len(users), 200)

    ranks = rank_sampled(score, matrix([[0], [1], [2]], 200), matrix([[5], [], [7]], 200), seed=0, chunk_users=2)
    assert asked == [0, 2] and len(ranks) == 2


# --- the evaluators ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def split(data):
    return split_rows(data, "random", RATIOS)


def test_the_ranking_evaluator_ranks_relevant_test_movies_among_unseen_ones(data, split):
    evaluator = RankingEvaluator(data, split, relevance_threshold=4, k=5, chunk_users=7)
    scores = np.random.default_rng(0).normal(size=(30, 27))
    known = evaluator.split.known
    assert sorted(known) == sorted([*split.train, *split.val])
    ranking = evaluator.rank(lambda users: torch.from_numpy(scores)[users], known, split.test)
    users, values = [], []
    for user in range(30):
        rows = split.test[data.user[split.test] == user]
        own = data.movie[rows][data.rating[rows] >= 4].tolist()
        if own:
            order = worst_order(scores[user], data.movie[known][data.user[known] == user].tolist(), own)
            users.append(user)
            values.append(plain_metrics([movie in own for movie in order][:5], len(own), 5)["ndcg"])
            assert ranking.topn[len(users) - 1].tolist() == order[:5]
    assert ranking.users.tolist() == users
    assert mean_metrics(ranking, 5)["ndcg@5"] == pytest.approx(np.mean(values))


def test_of_many_users_a_part_is_ranked_as_it_would_be_among_all(data, split):
    all_users = RankingEvaluator(data, split, relevance_threshold=4)
    some = dataclasses.replace(all_users, most_users=10)
    scores = torch.from_numpy(np.random.default_rng(0).normal(size=(30, 27)))
    whole, part = (one.rank(lambda users: scores[users], one.split.known, split.test) for one in (all_users, some))
    drawn = torch.isin(whole.users, part.users)
    assert len(part.users) == drawn.sum() == 10 < len(whole.users)
    assert torch.equal(part.topn, whole.topn[drawn]) and torch.equal(part.n_relevant, whole.n_relevant[drawn])
    assert some.protocol["evaluated_users"] == f"10 of {len(whole.users)}, drawn at random"
    assert "evaluated_users" not in all_users.protocol


def test_few_tested_users_are_all_evaluated_however_many_there_are():
    """Two thousand rows of three users, in a data set of any size."""
    user = np.repeat([5, 70_000, 190_000], [1000, 999, 1])
    assert of_evaluated(user, most=3).all()
    kept = of_evaluated(user, most=2)
    assert len(np.unique(user[kept])) == 2 and np.isin(user, user[kept]).tolist() == kept.tolist()
    assert np.array_equal(kept, of_evaluated(user, most=2))


def test_a_ranking_among_some_movies_recommends_these_alone(data, split):
    evaluator = RankingEvaluator(data, split, relevance_threshold=4)
    some = np.arange(27) % 2 == 0
    scores = torch.from_numpy(np.random.default_rng(0).normal(size=(30, 27)))
    rows = split.test[some[data.movie[split.test]]]
    topn = evaluator.rank(lambda users: scores[users], evaluator.split.known, rows, among=some).topn
    assert some[topn[topn >= 0]].all()
    scores[:, ~some] = -math.inf
    expected = evaluator.rank(lambda users: scores[users], evaluator.split.known, rows).topn
    assert torch.equal(topn, expected)


def test_the_most_popular_movies_are_counted_in_the_known_rows(data, split):
    evaluator = RankingEvaluator(data, split, relevance_threshold=4)
    known = np.concatenate([split.train, split.val])
    counts = [int((data.movie[known] == movie).sum()) for movie in range(27)]
    assert evaluator.most_popular()(torch.tensor([3, 8])).tolist() == [counts, counts]


def test_a_model_that_ranks_predicts_no_ratings(data, split):
    config = RankingNCFConfig(embedding_dim=4)
    assert as_fitted(random_model(data, split.train, config), data, split.train).predict is None
    assert FittedModel().score is None


@pytest.mark.parametrize("part", ["training", "validation", "test"])
def test_a_part_without_relevant_ratings_is_refused(data, part):
    low, high = np.flatnonzero(data.rating < 4), np.flatnonzero(data.rating >= 4)
    rows = {name: low if name == part else high[k::3] for k, name in enumerate(("training", "validation", "test"))}
    split = Split(*rows.values(), "by hand")
    with pytest.raises(UserError, match=f"No {part} rating is 4 or higher: lower --relevance-threshold"):
        RankingEvaluator(data, split, relevance_threshold=4)


def test_new_and_known_movies_are_measured_by_themselves(data):
    """Checked with plain loops; known movies have training ratings, new ones no known rating at all."""
    split = split_rows(data, "cold-movies", (0.5, 0.2, 0.3))
    evaluator = RankingEvaluator(data, split, relevance_threshold=4, k=3)
    scores = torch.from_numpy(np.random.default_rng(5).normal(size=(30, 27)))
    found = evaluator.by_part(lambda users: scores[users])
    known = np.concatenate([split.train, split.val])
    trained = set(data.movie[split.train].tolist())
    new = set(data.movie[split.test].tolist()) - set(data.movie[known].tolist())
    for name, part in (("new_movie", new), ("known_movie", trained)):
        alone, in_all, hits = [], [], []
        for user in range(30):
            own = split.test[data.user[split.test] == user]
            relevant = {m for m in data.movie[own][data.rating[own] >= 4].tolist() if m in part}
            seen = set(data.movie[known][data.user[known] == user].tolist())
            order = [m for m in scores[user].argsort(descending=True).tolist() if m not in seen]
            if relevant:
                alone.append(ndcg_by_hand([m for m in order if m in part][:3], relevant))
                in_all.append(ndcg_by_hand(order[:3], relevant))
                hits.append(bool(relevant & set(order[:3])))
        assert (found[name]["movies"], found[name]["users"]) == (len(part), len(alone))
        expected = np.mean(alone), np.mean(in_all), np.mean(hits)
        values = (found[name][key] for key in ("ndcg@3", "ndcg@3_in_all", "hr@3_in_all"))
        assert list(values) == pytest.approx(expected)


def test_only_new_movies_to_find_are_measured(data):
    """As with a user's own split: no known movie is among the relevant test rows."""
    split = split_rows(data, "cold-movies", (0.5, 0.2, 0.3))
    new = ~np.isin(data.movie[split.test], data.movie[np.concatenate([split.train, split.val])])
    evaluator = RankingEvaluator(data, dataclasses.replace(split, test=split.test[new]), relevance_threshold=4)
    model = random_model(data, split.train, RankingNCFConfig(embedding_dim=4, hidden_dim=0))
    metrics, _ = evaluator.test(model)
    assert list(metrics["parts"]) == ["new_movie"] and "among the" in evaluator.summary(metrics)


def ndcg_by_hand(top: list[int], relevant: set[int]) -> float:
    gain = sum(1 / np.log2(place + 2) for place, movie in enumerate(top) if movie in relevant)
    return gain / sum(1 / np.log2(place + 2) for place in range(min(3, len(relevant))))


def test_a_few_new_movies_by_chance_are_no_part(data):
    split = split_rows(data, "random", RATIOS)
    assert RankingEvaluator(data, split, relevance_threshold=4).by_part(lambda users: torch.zeros(len(users), 27)) == {}
