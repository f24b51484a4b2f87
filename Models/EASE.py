"""EASE: item-item weights in closed form (Steck 2019, "Embarrassingly Shallow Autoencoders").

B = I - P / diag(P)        P = (X'X + penalty I)^-1        X: users by movies, 0 where there is no rating
"""

import scipy.sparse as sp
import torch
from torch import Tensor

PENALTY = 500.0


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
