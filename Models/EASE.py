"""EASE: item-item weights in closed form (Steck 2019, "Embarrassingly Shallow Autoencoders").

B = I - P / diag(P)        P = (X'X + penalty I)^-1        X: users by movies, 0 where there is no rating

Time grows with the third and memory with the second power of the number of movies, so in large catalogues B is solved
only for the movies with the most ratings.
"""

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from Models.inputs import YEAR, DataStats, ModelInputs
from Models.layers import ALL, rating_weights
from Models.sequences import History

PENALTY = 500.0
OF_CONTENT = ("text", "category", YEAR)  # kinds of blocks whose features count as users
OF_NAMES = 0.1  # weight of names relative to these; by validation on MovieLens 1M, 75/5/20


def item_weights(x: sp.csr_matrix, penalty: float = PENALTY, content: Tensor | None = None) -> Tensor:
    """B, float32 [n_movies, n_movies].

    Args:
        x: users by movies
        content: F F', [n_movies, n_movies], of features F of the movies; each feature counts as one more user
    """
    gram = torch.from_numpy((x.T @ x).toarray()).double()
    if content is not None:
        gram += content
    gram.diagonal().add_(penalty)
    inverse = torch.linalg.inv(gram)
    weights = -inverse / inverse.diagonal()
    return weights.fill_diagonal_(0).float()


def rating_matrix(known: History, stats: DataStats, rows: Tensor | slice = ALL) -> sp.csr_matrix:
    """x: the weights of the ratings in these rows of the histories, users by movies, float32."""
    pairs = known.users()[rows].numpy(), known.movie[rows].numpy()
    weights = rating_weights(known.rating[rows]).numpy()
    return sp.csr_matrix((weights, pairs), (stats.n_users, stats.n_movies), np.float32)


def log_score(product: Tensor) -> Tensor:
    """x B as a term of a sum of logarithms; finite for movies that no rating supports."""
    return (product.clamp(min=0) + 0.1).log()


def most_rated(count: Tensor, n: int) -> Tensor | slice:
    """The n movies with the most ratings, int64 ascending, or a slice for all; `count` is the ratings of each movie."""
    if len(count) <= n:
        return ALL
    return count.argsort(descending=True, stable=True)[:n].sort().values


def as_numpy(movies: Tensor | slice) -> np.ndarray | slice:
    """The same movies as an index of a SciPy matrix."""
    return movies if isinstance(movies, slice) else movies.numpy()


def content_gram(inputs: ModelInputs, stats: DataStats, movies: Tensor | slice = ALL) -> Tensor:
    """F F' of n movies' texts, categories and decades, plus a tenth of that of names: float64 [n, n]."""
    kept = [block.name for block in stats.blocks if block.kind in OF_CONTENT]
    n = len(inputs.count[movies])
    total = torch.zeros(n, n, dtype=torch.float64)
    for part in (inputs.block(name, stats)[movies].double() for name in kept):
        total += part @ part.T
    for names in inputs.names:
        total += OF_NAMES * products(names, movies)
    return total


def products(names: Tensor, movies: Tensor | slice = ALL) -> Tensor:
    """N N' of n rows of a sparse matrix N, dense float32 [n, n]."""
    matrix = sp.csr_matrix((names.values().numpy(), names.indices().numpy()), names.shape)
    matrix = matrix[as_numpy(movies)]
    return torch.from_numpy((matrix @ matrix.T).toarray())
