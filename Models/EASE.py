"""EASE: item-item weights in closed form (Steck 2019, "Embarrassingly Shallow Autoencoders").

B = I - P / diag(P)        P = (X'X + penalty I)^-1        X: users by movies, 0 where there is no rating
"""

import scipy.sparse as sp
import torch
from torch import Tensor

from Models.inputs import YEAR, DataStats, ModelInputs

PENALTY = 500.0
OF_CONTENT = ("text", "category", YEAR)  # kinds of blocks that count as users
OF_NAMES = 0.1  # what names count beside them; by validation on MovieLens 1M, 75/5/20


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


def content_gram(inputs: ModelInputs, stats: DataStats) -> Tensor:
    """F F' of texts, categories and decades, and a tenth of that of names: float64 [n_movies, n_movies]."""
    parts = [inputs.block(block.name, stats).double() for block in stats.blocks if block.kind in OF_CONTENT]
    total = torch.zeros(stats.n_movies, stats.n_movies, dtype=torch.float64)
    for part in parts:
        total += part @ part.T
    for names in inputs.names:
        total += OF_NAMES * products(names)
    return total


def products(names: Tensor) -> Tensor:
    """N N' of a sparse matrix N, dense float32 [n, n]."""
    matrix = sp.csr_matrix((names.values().numpy(), names.indices().numpy()), names.shape)
    return torch.from_numpy((matrix @ matrix.T).toarray())
