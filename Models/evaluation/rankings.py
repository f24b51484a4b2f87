"""Evaluation of rankings: NDCG and HR over the full catalogue, without seen movies, ties against the model.

Training runs, comparisons and ablations all use this evaluator.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from torch import Tensor

from Models.Dataset import FittedModel, Model, ScoreFn
from Models.evaluation.fitted import as_fitted
from Models.evaluation.request_times import RequestTimes
from Models.ratings_data import RatingsData
from utils import distributed
from utils.files import UserError
from utils.metrics import INFINITY, Ranking, beyond_accuracy, mean_metrics, metrics_at, ranks_of, top_n
from utils.splits import Split

K = 10  # positions of a top-N that count
MIN_NEW = 0.01  # share of the relevant test rows from which new movies are also measured separately
SAMPLED = 99  # negatives of the sampled protocol
MAX_USERS = 20_000  # most users evaluated; a mean over them has a standard error of .0036 at most


@dataclass(frozen=True)
class RankingEvaluator:
    """Ranking: all movies that a user has not rated yet are ranked; NDCG of the relevant ones chooses the epoch.

    In the test, users' histories are their training and validation ratings, which are no candidates.

    relevance_threshold: rating from which a movie is relevant
    k: positions of a top-N that count
    chunk_users: users scored together; memory grows with this number times the movies, not with all users
    most_users: of more users with relevant movies, this many drawn at random are evaluated, the same for every model
    """

    data: RatingsData
    split: Split
    relevance_threshold: float
    k: int = K
    chunk_users: int = 256
    most_users: int = MAX_USERS
    mode: ClassVar = "max"
    test_file: ClassVar = "test_topn.csv"

    def __post_init__(self):
        """Raises UserError if a part has ratings but no relevant one."""
        for name, rows in (("training", self.split.train), ("validation", self.split.val), ("test", self.split.test)):
            if len(rows) and not len(self.relevant(rows)):
                raise UserError(
                    f"No {name} rating is {self.relevance_threshold:g} or higher: lower --relevance-threshold."
                )

    @property
    def monitor(self) -> str:
        return f"val_ndcg@{self.k}"

    @property
    def protocol(self) -> dict[str, Any]:
        n_users = len(np.unique(self.data.user[self.relevant(self.split.test)]))
        drawn = f"{self.most_users:,} of {n_users:,}, drawn at random"
        return ({"evaluated_users": drawn} if n_users > self.most_users else {}) | {
            "relevance_threshold": self.relevance_threshold,
            "candidates": f"the catalogue of {len(self.data.movies):,} movies without those known of the user",
            "ties": "against the model",
            "history": "training and validation ratings",
        }

    def relevant(self, rows: np.ndarray) -> np.ndarray:
        return rows[self.data.rating[rows] >= self.relevance_threshold]

    def to_find(self, rows: np.ndarray) -> sp.csr_matrix:
        """The relevant ones of these rows, for users who are evaluated, as users by movies."""
        rows = self.relevant(rows)
        return self.data.select(rows[of_evaluated(self.data.user[rows], self.most_users)]).matrix()

    def validate(self, model: Model) -> dict[str, float]:
        train, val = self.split.train, self.split.val
        fitted = as_fitted(model, self.data, train, self.request_times.of(train, val))
        return self.hr_and_ndcg(self.rank(fitted.score, train, val))

    def test(self, model: Model) -> tuple[dict[str, Any], pd.DataFrame]:
        """Metrics of the top-N and, for comparison, of the most popular movies; and the top-N in the data's own ids."""
        score = self.fitted_for_test(model).score
        ranking = self.rank(score, self.split.known, self.split.test)
        metrics: dict[str, Any] = mean_metrics(ranking, self.k)
        metrics |= beyond_accuracy(ranking.topn, self.popularity(self.split.known), len(self.data.user_ids))
        metrics["users"] = len(ranking.users)
        popular = self.rank(self.most_popular(), self.split.known, self.split.test)
        metrics["most_popular"] = mean_metrics(popular, self.k)
        if parts := self.by_part(score):
            metrics["parts"] = parts
        metrics |= self.by_request(model, ranking)
        if sampled := self.among_sampled(score, ranking):
            metrics[f"among_{SAMPLED}_sampled"] = sampled
        return metrics, self.table(ranking)

    def summary(self, metrics: dict[str, Any]) -> str:
        popular, (hr, ndcg) = metrics["most_popular"], (f"hr@{self.k}", f"ndcg@{self.k}")
        words = f"HR@{self.k} {metrics[hr]:.4f}, NDCG@{self.k} {metrics[ndcg]:.4f}"
        words += f" (most popular: {popular[hr]:.4f}, {popular[ndcg]:.4f})"
        if "parts" in metrics:
            new = metrics["parts"]["new_movie"]
            words += f"; among the {new['movies']:,} movies without known ratings, NDCG@{self.k} {new[ndcg]:.4f}"
        if "later_second" in metrics:
            later = metrics["later_second"]
            words += f"; of the {later['share']:.0%} of users whose request comes in a later second than their latest "
            words += f"known rating, {later[hr]:.4f}, {later[ndcg]:.4f}"
        if "request_time_unknown" in metrics:
            unknown = metrics["request_time_unknown"]
            words += f"; without the time of the request, {unknown[hr]:.4f}, {unknown[ndcg]:.4f}"
        return words

    def fitted_for_test(self, model: Model) -> FittedModel:
        """The model, given the training and validation ratings and the request times of the test's lists."""
        known = self.split.known
        return as_fitted(model, self.data, known, self.request_times.of(known, self.split.test))

    @property
    def request_times(self) -> RequestTimes:
        return RequestTimes(self.data, self.split)

    def by_request(self, model: Model, ranking: Ranking) -> dict[str, dict[str, float]]:
        """How metrics depend on the time of the request; {} if the data has no times or the test is no forecast.

        Returns:
            later_second: metrics and share of the users whose request comes in a later second than their latest known
                rating
            request_time_unknown: for models that use the time of the request, metrics with the time of the latest
                known rating in its place
        """
        found: dict[str, dict[str, float]] = {}
        if not self.request_times.is_forecast():
            return found
        later = torch.from_numpy(self.request_times.in_later_second())[ranking.users]
        if later.any():
            found["later_second"] = {"share": float(later.double().mean())}
            found["later_second"] |= self.hr_and_ndcg(ranking.take(later))
        if getattr(model.config, "request_time", False):
            score = as_fitted(model, self.data, self.split.known).score
            unknown = self.rank(score, self.split.known, self.split.test)
            found["request_time_unknown"] = self.hr_and_ndcg(unknown)
        return found

    def hr_and_ndcg(self, ranking: Ranking) -> dict[str, float]:
        metrics = mean_metrics(ranking, self.k)
        return {name: metrics[name] for name in (f"hr@{self.k}", f"ndcg@{self.k}")}

    def new_movies(self) -> np.ndarray:
        """Tested movies without known ratings, bool [n_movies]."""
        tested, known = (self.popularity(rows).numpy() > 0 for rows in (self.split.test, self.split.known))
        return tested & ~known

    def by_part(self, score: ScoreFn) -> dict[str, dict[str, float]]:
        """Metrics of new movies and of those with training ratings; {} if hardly any relevant test row is of a new one.

        Returns:
            for each part with relevant movies: the number of movies and of users; metrics when its movies are ranked
            among themselves; and the same `in_all`, in lists of the whole catalogue, where relevant movies of the other
            part count as wrong. The drop of known movies' NDCG `in_all` is what they lose to new ones
        """
        relevant = self.relevant(self.split.test)
        parts = {"new_movie": self.new_movies(), "known_movie": self.popularity(self.split.train).numpy() > 0}
        of_part = {name: relevant[movies[self.data.movie[relevant]]] for name, movies in parts.items()}
        if len(of_part["new_movie"]) < MIN_NEW * len(relevant):
            return {}
        found, names = {}, (f"hr@{self.k}", f"ndcg@{self.k}")
        for name in (name for name, rows in of_part.items() if len(rows)):
            movies = parts[name]
            alone = self.rank(score, self.split.known, of_part[name], among=movies)
            in_all = mean_metrics(self.rank(score, self.split.known, of_part[name]), self.k)
            found[name] = {"movies": int(movies.sum()), "users": len(alone.users)}
            found[name] |= {key: mean_metrics(alone, self.k)[key] for key in names}
            found[name] |= {f"{key}_in_all": in_all[key] for key in names}
        return found

    def popularity(self, rows: np.ndarray) -> Tensor:
        """Number of ratings of each movie, [n_movies]."""
        return torch.from_numpy(np.bincount(self.data.movie[rows], minlength=len(self.data.movies)))

    def most_popular(self) -> ScoreFn:
        counts = self.popularity(self.split.known)
        return lambda users: counts.expand(len(users), -1)

    def rank(self, score: ScoreFn, seen: np.ndarray, rows: np.ndarray, among: np.ndarray | None = None) -> Ranking:
        """Rank the relevant ones of `rows` among all movies that the user has not rated in the rows `seen`.

        among: the movies that are ranked, bool [n_movies]; default: all
        """
        if among is not None:
            of_all, allowed = score, torch.from_numpy(among)
            score = lambda users: of_all(users).cpu().double().masked_fill(~allowed, -INFINITY)  # noqa: E731
        return rank_all(score, self.data.select(seen).matrix(), self.to_find(rows), self.k, self.chunk_users)

    def among_sampled(self, score: ScoreFn, ranking: Ranking) -> dict[str, float]:
        """Metrics of each user's one relevant movie among sampled others, as in the NCF papers; {} for other splits."""
        seen = self.data.select(self.split.known).matrix()
        unseen = len(self.data.movies) - int(seen.getnnz(1).max())
        if int(ranking.n_relevant.max()) > 1 or unseen <= SAMPLED:
            return {}
        relevant = self.to_find(self.split.test)
        ranks = rank_sampled(score, seen, relevant, seed=0, n_negatives=SAMPLED, chunk_users=self.chunk_users)
        by_user = metrics_at(ranks, torch.ones(len(ranks), dtype=torch.int64), self.k)
        return {name: float(values.mean()) for name, values in by_user.items()}

    def table(self, ranking: Ranking) -> pd.DataFrame:
        """The top-N in the data's own ids, best first."""
        row, position = (ranking.topn >= 0).nonzero(as_tuple=True)
        ids = self.data.ids(ranking.users[row].numpy(), ranking.topn[row, position].numpy())
        columns = {"userId": ids["userId"], "rank": (position + 1).numpy(), "movieId": ids["movieId"]}
        return pd.DataFrame(columns | {"score": ranking.scores[row, position].numpy()})


def of_evaluated(user: np.ndarray, most: int = MAX_USERS) -> np.ndarray:
    """Which rows are of evaluated users, bool [n]: all users or, of more than `most`, this many drawn at random.

    Args:
        user: of each relevant row, int64 [n]
    """
    users = np.unique(user)
    if len(users) <= most:
        return np.ones(len(user), bool)
    return np.isin(user, np.random.default_rng(42).choice(users, most, replace=False))


@torch.inference_mode()
def rank_all(
    score: ScoreFn, seen: sp.csr_matrix, relevant: sp.csr_matrix, n: int = K, chunk_users: int = 256
) -> Ranking:
    """Rank the whole catalogue for each user who has relevant movies; the ranks of `distributed` share the users.

    Args:
        score: the model
        seen: users by movies, non-zero for movies that are not to be recommended
        relevant: users by movies, non-zero for relevant movies
        n: length of the top-N that is kept
    """
    counts = torch.from_numpy(relevant.getnnz(1)).long()
    asked, mine = counts.nonzero().squeeze(1), distributed.shard(len(counts))
    width = int(counts.max())
    own_users = asked[(asked >= mine.start) & (asked < mine.stop)]
    made = []
    for users in own_users.split(chunk_users) if len(own_users) else ():
        scores = score(users).cpu().double().nan_to_num(nan=-INFINITY, neginf=-INFINITY)
        scores[seen[users.numpy()].nonzero()] = -INFINITY
        own = relevant[users.numpy()]
        rows, movies = (torch.from_numpy(part).long() for part in own.nonzero())
        found = torch.full((len(users), width), -INFINITY, dtype=torch.float64)
        found[rows, torch.arange(len(rows)) - torch.from_numpy(own.indptr).long()[rows]] = scores[rows, movies]
        made.append((ranks_of(found, scores, n), *top_n(scores, n)))
    parts = [part for parts in distributed.all_gather(made) for part in parts]
    ranks, topn, best = map(torch.cat, zip(*parts, strict=True))
    return Ranking(asked, ranks, counts[asked], topn, best)


@torch.inference_mode()
def rank_sampled(
    score: ScoreFn,
    seen: sp.csr_matrix,
    relevant: sp.csr_matrix,
    seed: int,
    n_negatives: int = SAMPLED,
    chunk_users: int = 256,
) -> Tensor:
    """Rank of each user's one relevant movie among sampled unseen others, the NCF papers' protocol: float64 [U, 1].

    Negatives are drawn for each user without replacement from the movies neither seen nor relevant. Figures under this
    protocol are far higher than over the full catalogue, and can order models differently: name it next to them.

    Raises:
        ValueError: a user has several relevant movies, or too few others are left to sample from.
    """
    if int(relevant.getnnz(1).max()) > 1:
        raise ValueError("sampled negatives are for one relevant movie per user: use a leave-one-out split")
    random = torch.Generator().manual_seed(seed)
    asked = torch.from_numpy(relevant.getnnz(1)).nonzero().squeeze(1)
    ranks = []
    for users in asked.split(chunk_users):
        scores = score(users).cpu().double().nan_to_num(nan=-INFINITY, neginf=-INFINITY)
        rows, movies = (torch.from_numpy(part).long() for part in relevant[users.numpy()].nonzero())
        draw = torch.rand(scores.shape, generator=random)
        draw[seen[users.numpy()].nonzero()] = -1
        draw[rows, movies] = -1
        drawn = draw[rows].topk(n_negatives, dim=1)
        if len(rows) and float(drawn.values.min()) < 0:
            raise ValueError(f"fewer than {n_negatives} unseen movies are left for some user")
        others = scores[rows].gather(1, drawn.indices)
        own = scores[rows, movies].unsqueeze(1)
        ranks.append(((others >= own).sum(1, keepdim=True) + 1).double().masked_fill(own == -INFINITY, INFINITY))
    return torch.cat(ranks)
