"""Ranking evaluation: where the movies a user liked stand among all that could be recommended.

One routine ranks for every model: full catalogue, seen movies out, ties against the model. All metrics come from the
ranks of a user's relevant movies, so two of them can't disagree. A user without any relevant movie has no metric and is
left out; a user for whom a model has no scores counts as zero.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from Models import parallel
from Models.lists import UserLists

# Scores of every movie for some users: int64 [U] -> float [U, n_movies]; higher is better.
Scorer = Callable[[Tensor], Tensor]
INFINITY = float("inf")


@dataclass(frozen=True)
class Ranking:
    """Outcome for the users who have relevant movies.

    users: their positions [U]
    ranks: of each user's relevant movies, ascending from 1, float64 [U, R]; infinite where there are fewer than R
        or a model had no score
    n_relevant: how many each has, [U]
    lists: the best movies, int64 [U, N], -1 where fewer than N are left
    scores: of the listed movies, float64 [U, N]
    """

    users: Tensor
    ranks: Tensor
    n_relevant: Tensor
    lists: Tensor
    scores: Tensor


@torch.inference_mode()
def rank_all(score: Scorer, seen: UserLists, relevant: UserLists, top_n: int = 10, chunk_users: int = 256) -> Ranking:
    """Rank the whole catalogue for each user who has relevant movies; the ranks of `parallel` share the users.

    Args:
        score: the model
        seen: movies that are not to be recommended (training, and validation when testing)
        relevant: movies that should stand high
        top_n: length of the lists that are kept
        chunk_users: users scored together; memory grows with this number times the movies, not with all users
    """
    counts = relevant.counts()
    width = int(counts.max())
    ranks, lists, best = [], [], []
    mine = parallel.share(len(counts))
    for first in range(mine.start, mine.stop, chunk_users):
        last = min(first + chunk_users, mine.stop)
        scores = score(torch.arange(first, last)).double().cpu().nan_to_num(nan=-INFINITY)
        scores[seen.pairs(first, last)] = -INFINITY
        rows, movies = relevant.pairs(first, last)
        liked = torch.full((last - first, width), -INFINITY, dtype=torch.float64)
        place = torch.arange(len(rows)) - (relevant.start[first:last] - relevant.start[first])[rows]
        liked[rows, place] = scores[rows, movies]
        ranks.append(ranks_of(liked, scores))
        for kept, part in zip((lists, best), top_lists(scores, top_n), strict=True):
            kept.append(part)
    found = (torch.cat(part) for part in (ranks, lists, best))
    ranks, lists, best = (torch.cat(part) for part in zip(*parallel.gathered(tuple(found)), strict=True))
    has = counts > 0
    return Ranking(has.nonzero().squeeze(1), ranks[has], counts[has], lists[has], best[has])


def ranks_of(liked: Tensor, scores: Tensor) -> Tensor:
    """Ranks of the `liked` scores [U, R] among all `scores` [U, M], of which they are part; ascending.

    Among equal scores the other movies stand first, so a tie never helps; -inf has no rank (infinite).
    """
    liked = liked.sort(dim=1, descending=True).values
    ascending = scores.sort(dim=1).values
    at_least = scores.shape[1] - torch.searchsorted(ascending, liked)  # movies with this score or a higher one
    liked_at_least = liked.shape[1] - torch.searchsorted(liked.flip(1).contiguous(), liked)
    nth = torch.arange(1, liked.shape[1] + 1)
    ranks = (at_least - liked_at_least + nth).double()
    return ranks.masked_fill(liked == -INFINITY, INFINITY)


def top_lists(scores: Tensor, top_n: int) -> tuple[Tensor, Tensor]:
    """The movies of the highest scores, best first, int64 [U, N], -1 where a score is -inf; and the scores."""
    best = scores.topk(min(top_n, scores.shape[1]), dim=1)
    return best.indices.masked_fill(best.values == -INFINITY, -1), best.values


def metrics_at(ranks: Tensor, n_relevant: Tensor, k: int) -> dict[str, Tensor]:
    """Each user's metrics of the first k places, float64 [U] each; names are hr@k, ndcg@k, ...

    With hits the relevant movies among the first k:
    hr = 1 if there is a hit; precision = hits / k; recall = hits / relevant;
    mrr = 1 / rank of the first hit; map = mean over min(k, relevant) of the precision at each hit's place;
    ndcg = sum of 1 / log2(1 + rank) over hits / the greatest possible sum (Jarvelin and Kekalainen 2002, gain 0 or 1).
    """
    hit = ranks <= k  # [U, R]
    hits = hit.sum(1).double()
    nth = torch.arange(1, ranks.shape[1] + 1, dtype=torch.float64)
    possible = n_relevant.clamp(max=k)
    ideal = (1 / torch.log2(1 + torch.arange(1, k + 1, dtype=torch.float64))).cumsum(0)[possible - 1]
    return {
        f"hr@{k}": hit[:, 0].double(),
        f"ndcg@{k}": torch.where(hit, 1 / torch.log2(1 + ranks), 0.0).sum(1) / ideal,
        f"recall@{k}": hits / n_relevant,
        f"precision@{k}": hits / k,
        f"mrr@{k}": torch.where(hit[:, 0], 1 / ranks[:, 0], 0.0),
        f"map@{k}": torch.where(hit, nth / ranks, 0.0).sum(1) / possible,
    }


def beyond_accuracy(lists: Tensor, popularity: Tensor, n_users: int) -> dict[str, float]:
    """What the lists [U, N] are like, whoever likes them.

    Args:
        popularity: training ratings of each movie, [n_movies]
        n_users: users of the data set

    Returns:
        coverage: share of the catalogue that is in some list
        overlap: mean share of movies that two users' lists have in common, over all pairs of users
        popularity: mean training ratings of a listed movie
        novelty: mean of -log2(share of all users who rated a listed movie), a movie that nobody rated counting as rated
            once (Vargas and Castells 2011, self-information)
    """
    n_lists, n = lists.shape
    listed = lists[lists >= 0]
    times = torch.bincount(listed, minlength=len(popularity)).double()  # in how many lists each movie is
    pairs = n_lists * (n_lists - 1)
    rated = popularity.double()[listed]
    return {
        "coverage": float((times > 0).double().mean()),
        "overlap": float((times * (times - 1)).sum() / (n * pairs)) if pairs else 1.0,
        "popularity": float(rated.mean()),
        "novelty": float(-(rated.clamp(min=1) / n_users).log2().mean()),
    }


@torch.inference_mode()
def rank_sampled(
    score: Scorer, seen: UserLists, relevant: UserLists, seed: int, n_negatives: int = 99, chunk_users: int = 256
) -> Tensor:
    """Rank of each user's one relevant movie among sampled unseen others, the NCF papers' protocol: float64 [U, 1].

    Negatives are drawn for each user without repetition from the movies neither seen nor relevant. Figures under this
    protocol are far higher than over the full catalogue, and can order models otherwise: name it beside them.

    Raises:
        ValueError: a user has several relevant movies, or too few others are left to sample from.
    """
    counts = relevant.counts()
    if int(counts.max()) > 1:
        raise ValueError("sampled negatives are for one relevant movie a user: use a leave-one-out split")
    random = torch.Generator().manual_seed(seed)
    ranks = []
    for first in range(0, len(counts), chunk_users):
        last = min(first + chunk_users, len(counts))
        scores = score(torch.arange(first, last)).double().cpu().nan_to_num(nan=-INFINITY)
        rows, movies = relevant.pairs(first, last)
        draw = torch.rand(scores.shape, generator=random)
        draw[seen.pairs(first, last)] = -1
        draw[rows, movies] = -1
        drawn = draw[rows].topk(n_negatives, dim=1)
        if len(rows) and float(drawn.values.min()) < 0:
            raise ValueError(f"fewer than {n_negatives} unseen movies are left for some user")
        others = scores[rows].gather(1, drawn.indices)
        liked = scores[rows, movies].unsqueeze(1)
        ranks.append(((others >= liked).sum(1, keepdim=True) + 1).double().masked_fill(liked == -INFINITY, INFINITY))
    return torch.cat(ranks)


def mean_metrics(ranking: Ranking, ks: Sequence[int]) -> dict[str, float]:
    """Metrics averaged over the users who have relevant movies."""
    by_user = [metrics_at(ranking.ranks, ranking.n_relevant, k) for k in ks]
    return {name: float(values.mean()) for found in by_user for name, values in found.items()}
