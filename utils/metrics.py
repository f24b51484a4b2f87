"""Metrics as pure functions: errors of predicted ratings, AUC, ranks and ranking metrics, top-N."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

INFINITY = float("inf")

# --- ratings -------------------------------------------------------------------------------------


def rmse(prediction: np.ndarray, rating: np.ndarray) -> float:
    """Root mean squared error: sqrt(mean((prediction - rating)^2)), in the unit of the ratings."""
    return float(np.sqrt(np.square(prediction.astype(np.float64) - rating).mean()))


def mae(prediction: np.ndarray, rating: np.ndarray) -> float:
    """Mean absolute error: mean(|prediction - rating|), in the unit of the ratings."""
    return float(np.abs(prediction.astype(np.float64) - rating).mean())


def rating_metrics(prediction: np.ndarray, rating: np.ndarray, highest: float) -> dict[str, float]:
    """RMSE and MAE and, as `loss`, the original's mean squared error on rating / highest."""
    error = rmse(prediction, rating)
    return {"loss": (error / highest) ** 2, "rmse": error, "mae": mae(prediction, rating)}


def auc_by_user(user: np.ndarray, score: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """For each user with relevant and other rows, the share of their pairs in which the relevant row scores higher.

    A tie counts half: this is the area under the ROC curve, computed from ranks (Mann and Whitney 1947).

    Returns:
        float64 [users with both kinds of rows], in the order of the users' numbers
    """
    import pandas as pd

    rank = pd.Series(score).groupby(user).rank().to_numpy()
    rows = pd.DataFrame({"user": user, "relevant": relevant, "rank": rank})
    n, n_relevant = rows.groupby("user").size(), rows.groupby("user")["relevant"].sum()
    ranks = rows[rows["relevant"]].groupby("user")["rank"].sum().reindex(n.index, fill_value=0)
    both = (n_relevant > 0) & (n_relevant < n)
    return ((ranks - n_relevant * (n_relevant + 1) / 2) / (n_relevant * (n - n_relevant)))[both].to_numpy()


# --- ranking -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ranking:
    """The ranks of some users' relevant movies, and the users' top-N.

    Users without relevant movies have no metric and are left out.

    users: their indices [U]
    ranks: of each user's relevant movies, ascending from 1, float64 [U, R]; infinite beyond N, where there are fewer
        than R, or where the model gave no score
    n_relevant: how many each user has, [U]
    topn: the movies with the highest scores, int64 [U, N], -1 where fewer than N are left
    scores: of these movies, float64 [U, N]
    """

    users: Tensor
    ranks: Tensor
    n_relevant: Tensor
    topn: Tensor
    scores: Tensor

    def take(self, users: Tensor) -> "Ranking":
        """Only these users, a mask bool [U]."""
        return Ranking(*(part[users] for part in vars(self).values()))


def top_n(scores: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """The movies with the n highest scores, best first, and these scores; ties in the movies' order.

    Args:
        scores: [U, n_movies]; -inf for movies that are not to be recommended

    Returns:
        int64 [U, N] with N = min(n, n_movies), -1 where fewer than N movies are left, and [U, N]
    """
    n = min(n, scores.shape[1])
    values, movies = scores.topk(n, dim=1)
    tied = (scores >= values[:, -1:]).sum(1) > n  # of ties at the cut, topk takes any
    movies[tied] = scores[tied].sort(dim=1, descending=True, stable=True).indices[:, :n]
    movies = movies.sort(dim=1).values
    values, order = scores.gather(1, movies).sort(dim=1, descending=True, stable=True)
    return movies.gather(1, order).masked_fill(values == -INFINITY, -1), values


def highest(scores: Tensor, n: int, width: int = 16) -> Tensor:
    """The columns of the n highest scores of each row, int64 [U, n] ascending; any of the ties at the cut.

    The n highest are in the n blocks with the highest maxima, so only these are searched.

    Args:
        width: columns of a block, which are not adjacent, so that many maxima are computed at a time
    """
    n_blocks = scores.shape[1] // width
    maxima = scores[:, : n_blocks * width].unflatten(1, (width, n_blocks)).amax(1)
    blocks = maxima.topk(min(n, n_blocks), sorted=False).indices
    columns = (blocks[:, :, None] + n_blocks * torch.arange(width, device=scores.device)).flatten(1)
    rest = torch.arange(n_blocks * width, scores.shape[1], device=scores.device).expand(len(scores), -1)
    columns = torch.cat([columns, rest], 1)
    return columns.gather(1, scores.gather(1, columns).topk(n, sorted=False).indices).sort(1).values


def ranks_of(relevant: Tensor, scores: Tensor, n: int) -> Tensor:
    """Ranks of the `relevant` scores [U, R] among all `scores` [U, M], which include them; ascending.

    In ties the other movies come first, so a tie never helps. Ranks beyond n are infinite, as is that of -inf. The best
    n + R scores therefore suffice: a relevant one not above the lowest of these has n others before it.
    """
    relevant = relevant.sort(dim=1, descending=True).values
    n_best = min(n + relevant.shape[1], scores.shape[1])
    best = scores.topk(n_best, dim=1).values
    at_least = n_best - torch.searchsorted(
        best.flip(1).contiguous(), relevant
    )  # movies with this score or a higher one
    relevant_at_least = relevant.shape[1] - torch.searchsorted(relevant.flip(1).contiguous(), relevant)
    nth = torch.arange(1, relevant.shape[1] + 1)
    ranks = (at_least - relevant_at_least + nth).double()
    cut = best[:, -1:] if n_best < scores.shape[1] else -INFINITY
    return ranks.masked_fill((relevant <= cut) | (relevant == -INFINITY) | (ranks > n), INFINITY)


def metrics_at(ranks: Tensor, n_relevant: Tensor, k: int) -> dict[str, Tensor]:
    """Each user's metrics at the first k positions, float64 [U] each; names are hr@k, ndcg@k, ...

    Hits are the relevant movies among the first k:
    hr = 1 if there is a hit; precision = hits / k; recall = hits / relevant;
    mrr = 1 / rank of the first hit; map = mean over min(k, relevant) of the precision at each hit's rank;
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


def metric_names(k: int) -> list[str]:
    """The names of `metrics_at`."""
    return list(metrics_at(torch.ones(1, 1), torch.ones(1, dtype=torch.int64), k))


def mean_metrics(ranking: Ranking, k: int) -> dict[str, float]:
    """Metrics at the first k positions, averaged over the users who have relevant movies."""
    return {name: float(v.mean()) for name, v in metrics_at(ranking.ranks, ranking.n_relevant, k).items()}


def beyond_accuracy(topn: Tensor, popularity: Tensor, n_users: int) -> dict[str, float]:
    """Properties of recommendations [U, N], apart from their accuracy.

    Args:
        popularity: number of known ratings of each movie, [n_movies]
        n_users: users of the data set

    Returns:
        coverage: share of the catalogue that is recommended to at least one user
        overlap: mean share of movies that two users' top-N have in common, over all pairs of users
        popularity: mean number of known ratings of a recommended movie
        novelty: mean of -log2(share of all users who rated a recommended movie), where a movie without ratings counts
            as rated once (Vargas and Castells 2011, self-information)
    """
    n_lists, n = topn.shape
    recommended = topn[topn >= 0]
    times = torch.bincount(recommended, minlength=len(popularity)).double()
    pairs = n_lists * (n_lists - 1)
    rated = popularity.double()[recommended]
    return {
        "coverage": float((times > 0).double().mean()),
        "overlap": float((times * (times - 1)).sum() / (n * pairs)) if pairs else 1.0,
        "popularity": float(rated.mean()),
        "novelty": float(-(rated.clamp(min=1) / n_users).log2().mean()),
    }
