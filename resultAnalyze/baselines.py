"""The models to beat: each is a function from training ratings to predicted ratings, scores for ranking, or both.

Closed forms of a few lines are implemented here; all others come from libraries (requirements-baselines.txt), imported
when they are used.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from Models.configs import PRESETS
from Models.Dataset import FittedModel, ScoreFn
from Models.EASE import PENALTY, item_weights
from Models.inputs import HIGHEST
from Models.layers import rating_weights
from Models.ratings_data import Interactions

WEEK = 7 * 86_400  # seconds
MAX_LEVELS = 20  # distinct ratings


def most_popular(ratings: Interactions, seed: int) -> FittedModel:
    """Everyone gets the movies with the most ratings."""
    counts = torch.from_numpy(np.bincount(ratings.movie, minlength=ratings.n_movies))
    return FittedModel(score=lambda users: counts.expand(len(users), -1))


def popular_lately(ratings: Interactions, seed: int) -> FittedModel:
    """Everyone gets the movies with the most ratings in the last week before the newest one."""
    recent = ratings.movie[ratings.time > ratings.time.max() - WEEK]
    counts = torch.from_numpy(np.bincount(recent, minlength=ratings.n_movies))
    return FittedModel(score=lambda users: counts.expand(len(users), -1))


def biases(ratings: Interactions, seed: int, damping_movie: float = 10.0, damping_user: float = 15.0) -> FittedModel:
    """mean + b_u + b_i; for a movie without ratings this is the user's mean, damped."""
    mean, b_user, b_movie = fit_biases(ratings, damping_movie, damping_user)
    by_movie = torch.from_numpy(b_movie)
    return FittedModel(
        predict=lambda user, movie, time: mean + b_user[user] + b_movie[movie],
        score=lambda users: by_movie.expand(len(users), -1),
    )


def fit_biases(
    ratings: Interactions, damping_movie: float = 10.0, damping_user: float = 15.0, sweeps: int = 10
) -> tuple[float, np.ndarray, np.ndarray]:
    """mean, b_u [n_users], b_i [n_movies]: damped alternating least squares (Koren 2010, "Factor in the Neighbors")."""
    user, movie, rating = ratings.user, ratings.movie, ratings.rating
    n_users, n_movies = ratings.n_users, ratings.n_movies
    mean = rating.mean(dtype=np.float64)
    n_of_user, n_of_movie = np.bincount(user, minlength=n_users), np.bincount(movie, minlength=n_movies)
    b_user, b_movie = np.zeros(n_users), np.zeros(n_movies)
    for _ in range(sweeps):
        b_movie = np.bincount(movie, rating - mean - b_user[user], n_movies) / (damping_movie + n_of_movie)
        b_user = np.bincount(user, rating - mean - b_movie[movie], n_users) / (damping_user + n_of_user)
    return mean, b_user, b_movie


def genre_knn(ratings: Interactions, seed: int, damping: float = 10.0) -> FittedModel:
    """mean + b_u + b_i + the residuals of the user's other ratings, weighted by the cosine of their genres.

    Needs no rating of the movie itself: the usual content baseline for cold movies.
    """
    mean, b_user, b_movie = fit_biases(ratings)
    residual = ratings.rating - mean - b_user[ratings.user] - b_movie[ratings.movie]
    unit = ratings.genres / np.maximum(np.linalg.norm(ratings.genres, axis=1, keepdims=True), 1e-9)
    residuals, counts = ratings.matrix(residual) @ unit, ratings.matrix() @ unit  # sums of cosines by user and genre

    def predict(user: np.ndarray, movie: np.ndarray, time: np.ndarray) -> np.ndarray:
        near, weight = (residuals[user] * unit[movie]).sum(-1), (counts[user] * unit[movie]).sum(-1)
        return mean + b_user[user] + b_movie[movie] + near / (weight + damping)

    def score(users: Tensor) -> Tensor:
        user = users.numpy()
        return torch.from_numpy(b_movie + residuals[user] @ unit.T / (counts[user] @ unit.T + damping))

    return FittedModel(predict, score)


def ease(ratings: Interactions, seed: int, penalty: float = PENALTY, weighted: bool = False) -> FittedModel:
    """Item-item weights in closed form (Models/EASE.py); X holds 1 or, if `weighted`, a rating's weight."""
    x = ratings.matrix(by_height(ratings) if weighted else None)
    return FittedModel(score=linear_score(ratings, x, item_weights(x, penalty)))


def ease_and_lately(ratings: Interactions, seed: int, penalty: float = PENALTY, lately: float = 0.5) -> FittedModel:
    """EASE, weighted by rating, plus recent popularity: `lately` times log(1 + ratings in the last week).

    The default weight is the best of 13 from 0 to 1 by validation on MovieLens 1M, `--split time` 80/10/10.
    """
    taste, now = ease(ratings, seed, penalty, weighted=True).score, popular_lately(ratings, seed).score
    return FittedModel(score=lambda users: taste(users) + lately * torch.log1p(now(users).float()))


def linear_score(ratings: Interactions, x: sp.csr_matrix, weights: Tensor) -> ScoreFn:
    """Scores X B of the users asked for."""
    return or_most_popular(ratings, lambda users: torch.from_numpy(x[users.numpy()].toarray()) @ weights)


def or_most_popular(ratings: Interactions, score: ScoreFn) -> ScoreFn:
    """These scores or, for users without ratings, about whom such a model knows nothing, those of the most popular."""
    rated = torch.from_numpy(np.bincount(ratings.user, minlength=ratings.n_users) > 0)
    popular = most_popular(ratings, seed=0).score

    def score_all(users: Tensor) -> Tensor:
        scores = score(users)
        return torch.where(rated[users][:, None], scores, popular(users).to(scores.dtype))

    return score_all


def slim(ratings: Interactions, seed: int, penalty: float = 0.1, l1_ratio: float = 0.01) -> FittedModel:
    """Item-item weights that are sparse and not negative (Ning and Karypis 2011, "SLIM"): an elastic net per movie.

    Args:
        penalty, l1_ratio: `alpha` and `l1_ratio` of scikit-learn's ElasticNet
    """
    from sklearn.linear_model import ElasticNet

    x = ratings.matrix().tocsc()
    net = ElasticNet(penalty, l1_ratio=l1_ratio, positive=True, fit_intercept=False, tol=1e-3)
    weights = torch.zeros(x.shape[1], x.shape[1])
    for movie in np.flatnonzero(np.diff(x.indptr)):
        raters = slice(x.indptr[movie], x.indptr[movie + 1])
        target = x[:, [movie]].toarray().ravel()
        x.data[raters] = 0  # a movie must not predict itself
        weights[:, movie] = torch.from_numpy(net.fit(x, target).coef_)
        x.data[raters] = 1
    return FittedModel(score=linear_score(ratings, x.tocsr(), weights))


def by_height(ratings: Interactions) -> np.ndarray:
    """The weight of each rating by its value, [n]: low ones hardly say that the user would like a movie."""
    return rating_weights(torch.from_numpy(ratings.rating / ratings.rating.max() * HIGHEST)).numpy()


def item_knn(ratings: Interactions, seed: int, neighbours: int = 100) -> FittedModel:
    """Movies similar to those the user rated, by the cosine of who rated them; the nearest `neighbours` of each."""
    from implicit.nearest_neighbours import CosineRecommender

    x = ratings.matrix()
    model = CosineRecommender(K=neighbours)
    model.fit(x, show_progress=False)
    return FittedModel(score=linear_score(ratings, x, torch.from_numpy(model.similarity.toarray()).float()))


def als(
    ratings: Interactions,
    seed: int,
    factors: int = 64,
    regularization: float = 0.01,
    alpha: float = 1.0,
    iterations: int = 15,
    weighted: bool = False,
) -> FittedModel:
    """Weighted matrix factorisation of who rated what (Hu et al. 2008); a rating's confidence is alpha.

    weighted: the confidence is alpha times the rating's weight
    """
    from implicit.als import AlternatingLeastSquares

    settings = {"factors": factors, "regularization": regularization, "alpha": alpha, "iterations": iterations}
    model = AlternatingLeastSquares(**settings, random_state=seed)
    model.fit(ratings.matrix(by_height(ratings) if weighted else None), show_progress=False)
    return FittedModel(score=factor_score(ratings, model))


def bpr(
    ratings: Interactions,
    seed: int,
    factors: int = 64,
    learning_rate: float = 0.01,
    regularization: float = 0.01,
    iterations: int = 100,
) -> FittedModel:
    """Matrix factorisation trained on pairs (Rendle et al. 2009)."""
    from implicit.bpr import BayesianPersonalizedRanking

    settings = {"factors": factors, "learning_rate": learning_rate, "regularization": regularization}
    model = BayesianPersonalizedRanking(**settings, iterations=iterations, random_state=seed)
    model.fit(ratings.matrix(), show_progress=False)
    return FittedModel(score=factor_score(ratings, model))


def factor_score(ratings: Interactions, model) -> ScoreFn:
    """Products of the factors of a model of the implicit library."""
    users, movies = torch.from_numpy(model.user_factors), torch.from_numpy(model.item_factors)
    return or_most_popular(ratings, lambda asked: users[asked] @ movies.T)


def matrix_factorisation(
    ratings: Interactions,
    seed: int,
    factors: int = 50,
    epochs: int = 40,
    penalty: float = 0.05,
    learning_rate: float = 0.01,
) -> FittedModel:
    """Biased matrix factorisation of the ratings by gradient descent."""
    from cornac.data import Dataset
    from cornac.models import MF

    triples = zip(ratings.user.tolist(), ratings.movie.tolist(), ratings.rating.tolist(), strict=True)
    data = Dataset.build(list(triples), seed=seed)
    model = MF(k=factors, max_iter=epochs, learning_rate=learning_rate, lambda_reg=penalty, use_bias=True, seed=seed)
    model.fit(data)
    p, b_user = (reindexed(part, data.uid_map, ratings.n_users) for part in (model.u_factors, model.u_biases))
    q, b_movie = (reindexed(part, data.iid_map, ratings.n_movies) for part in (model.i_factors, model.i_biases))
    mean = model.global_mean
    of_all = torch.from_numpy(mean + b_movie).float()
    return FittedModel(
        predict=lambda user, movie, time: mean + b_user[user] + b_movie[movie] + (p[user] * q[movie]).sum(1),
        score=lambda users: of_all + torch.from_numpy(p[users.numpy()] @ q.T).float(),
    )


def reindexed(values: np.ndarray, index: dict[int, int], n: int) -> np.ndarray:
    """A library's rows, reordered from its indices to ours; zeros for those that it has not seen."""
    found = np.zeros((n, *values.shape[1:]))
    found[list(index)] = values[list(index.values())]
    return found


def bayesian_fm(ratings: Interactions, seed: int, rank: int = 32, samples: int = 200) -> FittedModel:
    """Factorisation machine on user, movie, the movies of the user and the users of the movie (package myfm, Gibbs).

    It predicts the expectation of an ordered probit model of the ratings (Rendle et al. 2019, "On the Difficulty of
    Evaluating Baselines") or, with more than `MAX_LEVELS` distinct ratings, of a regression.
    """
    from myfm import MyFMOrderedProbit, MyFMRegressor, RelationBlock

    def block_of(x: sp.csr_matrix) -> sp.csr_matrix:
        """Each row's own id and, as in SVD++, n^-1/2 for each of the n others that it has ratings with."""
        implicit = sp.diags(1 / np.sqrt(np.maximum(np.diff(x.indptr), 1))) @ x
        return sp.hstack([sp.eye(x.shape[0]), implicit], format="csr")

    def blocks(user: np.ndarray, movie: np.ndarray) -> list[RelationBlock]:
        return [RelationBlock(user, users), RelationBlock(movie, movies)]

    x, n_users, n_movies = ratings.matrix(), ratings.n_users, ratings.n_movies
    users, movies = block_of(x), block_of(x.T.tocsr())
    levels, level = np.unique(ratings.rating, return_inverse=True)
    is_ordered = len(levels) <= MAX_LEVELS
    model = (MyFMOrderedProbit if is_ordered else MyFMRegressor)(rank=rank, random_seed=seed)
    model.fit(
        sp.csr_matrix((len(ratings.user), 0)),
        level if is_ordered else ratings.rating,
        X_rel=blocks(ratings.user, ratings.movie),
        n_iter=samples,
        n_kept_samples=samples - 20,
        group_shapes=[n_users, n_movies, n_movies, n_users],
    )

    def predict(user: np.ndarray, movie: np.ndarray, time: np.ndarray) -> np.ndarray:
        asked = sp.csr_matrix((len(user), 0)), blocks(user, movie)
        return model.predict_proba(*asked) @ levels if is_ordered else model.predict(*asked)

    return FittedModel(predict)


class Baseline(NamedTuple):
    """A function of ratings, a seed and settings; whether it uses the seed, predicts ratings and needs times."""

    fit: Callable[..., FittedModel]
    is_seeded: bool = False
    predicts: bool = False
    needs_times: bool = False


# Each baseline is one line.
BASELINES: dict[str, Baseline] = {
    "most popular": Baseline(most_popular),
    "most popular of the last week": Baseline(popular_lately, needs_times=True),
    "user + movie bias": Baseline(biases, predicts=True),
    "genre kNN": Baseline(genre_knn, predicts=True),
    "item kNN (implicit)": Baseline(item_knn),
    "MF (cornac)": Baseline(matrix_factorisation, is_seeded=True, predicts=True),
    "Bayesian FM (myfm)": Baseline(bayesian_fm, is_seeded=True, predicts=True),
    "ALS (implicit)": Baseline(als, is_seeded=True),
    "ALS, weighted by rating": Baseline(partial(als, weighted=True), is_seeded=True),
    "BPR (implicit)": Baseline(bpr, is_seeded=True),
    "SLIM (scikit-learn)": Baseline(slim),
    "EASE": Baseline(ease),
    "EASE, weighted by rating": Baseline(partial(ease, weighted=True)),
    "EASE, weighted, and the last week": Baseline(ease_and_lately, needs_times=True),
}


def is_rating_model(name: str) -> bool:
    """Whether a preset or baseline learns how high ratings are, so that they must not all be equal."""
    return PRESETS[name].ranking is None if name in PRESETS else BASELINES[name].predicts


def is_seeded(name: str) -> bool:
    """Whether a preset or baseline draws random numbers."""
    return name in PRESETS or BASELINES[name].is_seeded
