"""The models to beat: each is a function from training rows to predicted stars, scores for ranking, or both.

Closed forms of a few lines are ours; all else is a library's (requirements-baselines.txt), imported when asked for.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from Models.dataLoader import RatingsData
from Models.ranking import Scorer


@dataclass(frozen=True)
class Rows:
    """Training ratings in positions, each [n]."""

    user: np.ndarray
    movie: np.ndarray
    rating: np.ndarray
    n_users: int
    n_movies: int
    genres: np.ndarray  # multi-hot [n_movies, n_genres]

    @classmethod
    def of(cls, data: RatingsData, rows: np.ndarray) -> "Rows":
        """These rows of a data set."""
        genres = data.features.vectors[:, data.features.info.bert_dim :]
        ratings = data.user[rows], data.movie[rows], data.rating[rows]
        return cls(*ratings, len(data.user_ids), len(data.movies), genres)

    def matrix(self, weight: np.ndarray | None = None) -> sp.csr_matrix:
        """Users by movies, holding `weight`, or 1 where there is a rating."""
        weight = np.ones(len(self.user), np.float32) if weight is None else weight.astype(np.float32)
        return sp.csr_matrix((weight, (self.user, self.movie)), (self.n_users, self.n_movies))


@dataclass(frozen=True)
class Fitted:
    """A trained model. `stars(user, movie, time)` predicts ratings, `score` ranks; None where the model can't."""

    stars: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray] | None = None
    score: Scorer | None = None


def most_popular(rows: Rows, seed: int) -> Fitted:
    """Everyone gets the movies with the most ratings."""
    counts = torch.from_numpy(np.bincount(rows.movie, minlength=rows.n_movies))
    return Fitted(score=lambda users: counts.expand(len(users), -1))


def biases(rows: Rows, seed: int) -> Fitted:
    """mean + b_u + b_i; for a movie without ratings this is the user's mean, damped."""
    mean, b_user, b_movie = fit_biases(rows)
    by_movie = torch.from_numpy(b_movie)
    return Fitted(
        stars=lambda user, movie, time: mean + b_user[user] + b_movie[movie],
        score=lambda users: by_movie.expand(len(users), -1),
    )


def fit_biases(
    rows: Rows, damping_movie: float = 10, damping_user: float = 15, sweeps: int = 10
) -> tuple[float, np.ndarray, np.ndarray]:
    """mean, b_u [n_users], b_i [n_movies] by damped least squares in turn (Koren 2010, "Factor in the Neighbors")."""
    mean = rows.rating.mean(dtype=np.float64)
    n_user, n_movie = np.bincount(rows.user, minlength=rows.n_users), np.bincount(rows.movie, minlength=rows.n_movies)
    b_user, b_movie = np.zeros(rows.n_users), np.zeros(rows.n_movies)
    for _ in range(sweeps):
        rest = rows.rating - mean - b_user[rows.user]
        b_movie = np.bincount(rows.movie, rest, rows.n_movies) / (damping_movie + n_movie)
        rest = rows.rating - mean - b_movie[rows.movie]
        b_user = np.bincount(rows.user, rest, rows.n_users) / (damping_user + n_user)
    return mean, b_user, b_movie


def genre_knn(rows: Rows, seed: int, damping: float = 10) -> Fitted:
    """mean + b_u + b_i + what is left of the user's other ratings, weighted by the cosine of their genres.

    Needs no rating of the movie itself: the usual content baseline for cold movies.
    """
    mean, b_user, b_movie = fit_biases(rows)
    rest = rows.rating - mean - b_user[rows.user] - b_movie[rows.movie]
    unit = rows.genres / np.maximum(np.linalg.norm(rows.genres, axis=1, keepdims=True), 1e-9)
    of_rest, of_all = rows.matrix(rest) @ unit, rows.matrix() @ unit  # the cosines' sums, by user and genre

    def stars(user: np.ndarray, movie: np.ndarray, time: np.ndarray) -> np.ndarray:
        near, weight = (of_rest[user] * unit[movie]).sum(-1), (of_all[user] * unit[movie]).sum(-1)
        return mean + b_user[user] + b_movie[movie] + near / (weight + damping)

    def score(users: Tensor) -> Tensor:
        user = users.numpy()
        near = of_rest[user] @ unit.T / (of_all[user] @ unit.T + damping)
        return torch.from_numpy(b_movie + near)

    return Fitted(stars, score)


def ease(rows: Rows, seed: int, weights: np.ndarray | None = None, penalty: float = 500) -> Fitted:
    """Item-item weights in closed form (Steck 2019, "Embarrassingly Shallow Autoencoders"): B = I - P / diag(P).

    P is the inverse of X'X + penalty I; X holds 1 or `weights` where there is a rating.
    """
    x = rows.matrix(weights)
    return Fitted(score=linear_scorer(x, item_item(x, penalty)))


def item_item(x: sp.csr_matrix, penalty: float = 500, features: Tensor | None = None) -> Tensor:
    """EASE's B of users by movies x, float32 [n_movies, n_movies].

    features: of movies, [n_movies, F]; each column counts as one more user, with these as weights
    """
    gram = torch.from_numpy((x.T @ x).toarray()).double()
    if features is not None:
        gram += features.double() @ features.double().T
    gram.diagonal().add_(penalty)
    inverse = torch.linalg.inv(gram)
    weights = -inverse / inverse.diagonal()
    return weights.fill_diagonal_(0).float()


def linear_scorer(x: sp.csr_matrix, item_item: Tensor) -> Scorer:
    """Scores X B of the users asked for."""
    return lambda users: torch.from_numpy(x[users.numpy()].toarray()) @ item_item


def ease_stars(rows: Rows, seed: int) -> Fitted:
    """EASE where a rating counts by its stars: low ones hardly say that the user would like a movie."""
    share = torch.from_numpy(rows.rating / rows.rating.max())
    return ease(rows, seed, by_stars(share, EASE_STARS).numpy())


EASE_STARS = (0.05, 0.15, 0.4, 0.8, 1.0)  # what a rating of one to five stars counts


def by_stars(share: Tensor, steps: tuple[float, ...]) -> Tensor:
    """A number for each rating, given as its share of the highest: `steps` at 1/5, 2/5, ..., straight lines between."""
    place = (share * len(steps) - 1).clamp(0, len(steps) - 1)
    below = place.floor().long().clamp(max=len(steps) - 2)
    values = torch.tensor(steps, device=share.device)
    return values[below] + (place - below) * values.diff()[below]


def item_knn(rows: Rows, seed: int) -> Fitted:
    """Movies like those the user rated, by cosine of who rated them; the 100 nearest of each."""
    from implicit.nearest_neighbours import CosineRecommender

    x = rows.matrix()
    model = CosineRecommender(K=100)
    model.fit(x, show_progress=False)
    return Fitted(score=linear_scorer(x, torch.from_numpy(model.similarity.toarray()).float()))


def als(rows: Rows, seed: int) -> Fitted:
    """Weighted matrix factorisation of who rated what (Hu et al. 2008), 64 factors."""
    from implicit.als import AlternatingLeastSquares

    model = AlternatingLeastSquares(factors=64, random_state=seed)
    model.fit(rows.matrix(), show_progress=False)
    return factor_scorer(model)


def bpr(rows: Rows, seed: int) -> Fitted:
    """Matrix factorisation trained on pairs (Rendle et al. 2009), 64 factors."""
    from implicit.bpr import BayesianPersonalizedRanking

    model = BayesianPersonalizedRanking(factors=64, random_state=seed)
    model.fit(rows.matrix(), show_progress=False)
    return factor_scorer(model)


def factor_scorer(model) -> Fitted:
    users, movies = torch.from_numpy(model.user_factors), torch.from_numpy(model.item_factors)
    return Fitted(score=lambda asked: users[asked] @ movies.T)


def matrix_factorisation(rows: Rows, seed: int) -> Fitted:
    """Biased matrix factorisation of the stars by gradient descent; sizes by the number of ratings."""
    from cornac.data import Dataset
    from cornac.models import MF

    factors, epochs, penalty = (50, 40, 0.05) if len(rows.rating) > LARGE else (10, 25, 0.02)
    triples = zip(rows.user.tolist(), rows.movie.tolist(), rows.rating.tolist(), strict=True)
    data = Dataset.build(list(triples), seed=seed)
    model = MF(k=factors, max_iter=epochs, learning_rate=0.01, lambda_reg=penalty, use_bias=True, seed=seed)
    model.fit(data)
    p, b_user = spread(model.u_factors, data.uid_map, rows.n_users), spread(model.u_biases, data.uid_map, rows.n_users)
    q, b_movie = (
        spread(model.i_factors, data.iid_map, rows.n_movies),
        spread(model.i_biases, data.iid_map, rows.n_movies),
    )
    mean = model.global_mean
    all_stars = torch.from_numpy(mean + b_movie).float()
    return Fitted(
        stars=lambda user, movie, time: mean + b_user[user] + b_movie[movie] + (p[user] * q[movie]).sum(1),
        score=lambda users: all_stars + torch.from_numpy(p[users.numpy()] @ q.T).float(),
    )


def spread(values: np.ndarray, places: dict[int, int], n: int) -> np.ndarray:
    """A library's rows, kept in its own order, at our positions; zeros for those that it has not seen."""
    placed = np.zeros((n, *values.shape[1:]))
    placed[list(places)] = values[list(places.values())]
    return placed


def bayesian_fm(rows: Rows, seed: int) -> Fitted:
    """Factorisation machine on user, movie and the user's other movies, by Gibbs sampling (package myfm)."""
    from myfm import MyFMRegressor, RelationBlock

    def blocks(user: np.ndarray, movie: np.ndarray) -> list[RelationBlock]:
        return [RelationBlock(user, user_block), RelationBlock(movie, sp.eye(rows.n_movies, format="csr"))]

    x = rows.matrix()
    implicit = sp.diags(1 / np.sqrt(np.maximum(np.diff(x.indptr), 1))) @ x  # as in SVD++: n_u^-1/2 for each movie
    user_block = sp.hstack([sp.eye(rows.n_users), implicit], format="csr")
    rank, samples = (32, 200) if len(rows.rating) > LARGE else (8, 200)
    model = MyFMRegressor(rank=rank, random_seed=seed)
    model.fit(
        sp.csr_matrix((len(rows.user), 0)),
        rows.rating,
        X_rel=blocks(rows.user, rows.movie),
        n_iter=samples,
        n_kept_samples=samples - 20,
        group_shapes=[rows.n_users, rows.n_movies, rows.n_movies],
    )
    return Fitted(stars=lambda user, movie, time: model.predict(sp.csr_matrix((len(user), 0)), blocks(user, movie)))


LARGE = 500_000  # ratings; below it the factor models are small ones
Fit = Callable[[Rows, int], Fitted]
# A baseline is a line here: its name, its function, and whether its seed changes anything.
BASELINES: dict[str, tuple[Fit, bool]] = {
    "most popular": (most_popular, False),
    "user + movie bias": (biases, False),
    "genre kNN": (genre_knn, False),
    "item kNN (implicit)": (item_knn, False),
    "MF (cornac)": (matrix_factorisation, True),
    "Bayesian FM (myfm)": (bayesian_fm, True),
    "ALS (implicit)": (als, True),
    "BPR (implicit)": (bpr, True),
    "EASE": (ease, False),
    "EASE, stars as weights": (ease_stars, False),
}
