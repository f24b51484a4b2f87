"""Ranking: hand-computed values, ties that never help, and agreement with scikit-learn and ranx."""

import math

import numpy as np
import pytest
import ranx
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from Models.lists import UserLists
from Models.ranking import beyond_accuracy, mean_metrics, metrics_at, rank_all, rank_sampled, ranks_of


def lists_of(*movies: list[int]) -> UserLists:
    user = np.repeat(np.arange(len(movies)), [len(one) for one in movies])
    return UserLists.of(user, np.array([movie for one in movies for movie in one], np.int64), len(movies))


def scorer(*rows: list[float]):
    table = torch.from_numpy(np.array(rows, np.float32))
    return lambda users: table[users]


def test_lists_give_back_each_user_s_movies():
    lists = UserLists.of(np.array([2, 0, 2]), np.array([7, 5, 1]), 4)
    assert [lists[user].tolist() for user in range(4)] == [[5], [], [7, 1], []]
    rows, movies = lists.pairs(1, 4)
    assert (rows.tolist(), movies.tolist()) == ([1, 1], [7, 1])


def test_ranks_by_hand():
    score = scorer([0.9, 0.8, 0.7, 0.6, 0.5], [0.1, 0.2, 0.3, 0.4, 0.5], [1, 2, 3, 4, 5])
    ranking = rank_all(score, lists_of([0], [], [0]), lists_of([3, 1], [], [1]), top_n=2)
    assert ranking.users.tolist() == [0, 2]  # user 1 has nothing to find
    assert ranking.ranks.tolist() == [[1, 3], [4, math.inf]]  # movie 0 is seen and out of the way
    assert ranking.lists.tolist() == [[1, 2], [4, 3]]
    found = {name: values.tolist() for name, values in metrics_at(ranking.ranks, ranking.n_relevant, 3).items()}
    assert found["hr@3"] == [1, 0] and found["mrr@3"] == [1, 0]
    assert found["precision@3"] == pytest.approx([2 / 3, 0]) and found["recall@3"] == [1, 0]
    assert found["map@3"] == pytest.approx([(1 + 2 / 3) / 2, 0])
    assert found["ndcg@3"] == pytest.approx([(1 + 1 / 2) / (1 + 1 / math.log2(3)), 0])


def test_ties_never_help():
    seen = lists_of([])
    (ranks,) = rank_all(scorer([1, 1, 1, 1, 1]), seen, lists_of([0, 4])).ranks.tolist()
    assert ranks == [4, 5]
    (ranks,) = rank_all(scorer([2, 1, 1, 1, 0]), seen, lists_of([0, 1])).ranks.tolist()
    assert ranks == [1, 4]
    assert mean_metrics(rank_all(scorer([0.0] * 50), seen, lists_of([3, 9])), [10])["hr@10"] == 0


def test_a_user_without_scores_counts_as_zero():
    nothing = float("nan")
    ranking = rank_all(scorer([nothing] * 4, [1, 2, 3, 4]), lists_of([], []), lists_of([1], [3]))
    assert ranking.ranks.tolist() == [[math.inf], [1]]
    assert ranking.lists[0].tolist() == [-1] * 4
    assert mean_metrics(ranking, [4])["hr@4"] == 0.5


def test_what_is_left_may_be_less_than_the_list():
    ranking = rank_all(scorer([5, 4, 3]), lists_of([0, 1]), lists_of([2]), top_n=10)
    assert ranking.ranks.tolist() == [[1]] and ranking.lists.tolist() == [[2, -1, -1]]


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


def worst_list(scores, seen, relevant) -> list[int]:
    """The plain definition: best scores first, of equal ones the irrelevant first."""
    movies = [movie for movie in range(len(scores)) if movie not in seen]
    return sorted(movies, key=lambda movie: (-scores[movie], movie in relevant))


@settings(max_examples=80, deadline=None)
@given(problem=problems(), k=st.integers(1, 12), chunk=st.integers(1, 7))
def test_metrics_are_those_of_the_plain_definition(problem, k, chunk):
    scores, seen, relevant = problem
    ranking = rank_all(scorer(*scores), lists_of(*seen), lists_of(*relevant), chunk_users=chunk)
    found = metrics_at(ranking.ranks, ranking.n_relevant, k)
    for user, (liked, watched) in enumerate(zip(relevant, seen, strict=True)):
        hits = [movie in liked for movie in worst_list(scores[user], watched, liked)][:k]
        gains = [hit / math.log2(2 + place) for place, hit in enumerate(hits)]
        ideal = sum(1 / math.log2(2 + place) for place in range(min(k, len(liked))))
        expected = {
            "hr": float(any(hits)),
            "precision": sum(hits) / k,
            "recall": sum(hits) / len(liked),
            "mrr": 1 / (1 + hits.index(True)) if any(hits) else 0,
            "map": sum(sum(hits[: i + 1]) / (i + 1) for i in range(len(hits)) if hits[i]) / min(k, len(liked)),
            "ndcg": sum(gains) / ideal,
        }
        for name, value in expected.items():
            assert found[f"{name}@{k}"][user].item() == pytest.approx(value), name
            assert 0 <= found[f"{name}@{k}"][user].item() <= 1 + 1e-12


@settings(max_examples=30, deadline=None)
@given(problem=problems(), seed=st.integers(0, 1000))
def test_the_movies_order_does_not_matter(problem, seed):
    scores, seen, relevant = problem
    order = np.random.default_rng(seed).permutation(scores.shape[1])
    place = np.argsort(order)
    moved = [[place[movie] for movie in one] for one in seen], [[place[movie] for movie in one] for one in relevant]
    before = rank_all(scorer(*scores), lists_of(*seen), lists_of(*relevant)).ranks
    after = rank_all(scorer(*scores[:, order]), lists_of(*moved[0]), lists_of(*moved[1])).ranks
    assert torch.equal(before, after)


def test_ndcg_is_scikit_learn_s_and_all_are_ranx_s():
    random = np.random.default_rng(1)
    scores = random.permutation(40 * 30).reshape(40, 30).astype(float)  # no ties: there both break them their own way
    relevant = [random.permutation(30)[: random.integers(1, 6)].tolist() for _ in range(40)]
    ranking = rank_all(scorer(*scores), lists_of(*[[]] * 40), lists_of(*relevant))
    truth = np.array([[movie in liked for movie in range(30)] for liked in relevant], float)
    found = mean_metrics(ranking, [10])
    assert found["ndcg@10"] == pytest.approx(ndcg_score(truth, scores, k=10))
    qrels = ranx.Qrels({str(u): {str(m): 1 for m in liked} for u, liked in enumerate(relevant)})
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


def test_sampled_negatives_are_unseen_others():
    """Of 200 movies 100 are seen and one is relevant, so the 99 negatives are just the rest."""
    random = np.random.default_rng(0)
    scores = random.normal(size=(5, 200)).astype(np.float32)
    orders = [random.permutation(200).tolist() for _ in range(5)]
    seen, relevant = lists_of(*(order[:100] for order in orders)), lists_of(*(order[100:101] for order in orders))
    ranks = rank_sampled(scorer(*scores), seen, relevant, seed=0)
    for user, order in enumerate(orders):
        assert ranks[user].item() == 1 + (scores[user, order[101:]] >= scores[user, order[100]]).sum()
    with pytest.raises(ValueError, match="fewer than 100"):
        rank_sampled(scorer(*scores), seen, relevant, seed=0, n_negatives=100)
    with pytest.raises(ValueError, match="one relevant"):
        rank_sampled(scorer(*scores), seen, lists_of(*(order[100:102] for order in orders)), seed=0)
    assert (rank_sampled(lambda users: torch.zeros(len(users), 200), seen, relevant, seed=0) == 100).all()


def test_beyond_accuracy_by_hand():
    found = beyond_accuracy(torch.tensor([[0, 1], [0, 2]]), popularity=torch.tensor([4, 2, 0, 1]), n_users=4)
    assert found["coverage"] == 3 / 4
    assert found["overlap"] == 1 / 2  # one of two movies in common
    assert found["popularity"] == (4 + 2 + 4 + 0) / 4
    assert found["novelty"] == (0 + 1 + 0 + 2) / 4
    same = beyond_accuracy(torch.tensor([[0, 1]] * 3), torch.tensor([4, 2, 0, 1]), 4)
    assert same["overlap"] == 1


def test_ranks_of_takes_scores_that_are_missing():
    liked = torch.tensor([[3.0, -math.inf]], dtype=torch.float64)
    assert ranks_of(liked, torch.tensor([[1.0, 3.0, -math.inf]], dtype=torch.float64)).tolist() == [[1, math.inf]]
