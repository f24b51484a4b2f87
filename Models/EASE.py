"""EASE: item-item weights in closed form (Steck 2019, "Embarrassingly Shallow Autoencoders").

B = I - P / diag(P)        P = (X'X + penalty I)^-1        X: users by movies, 0 where there is no rating
"""

import scipy.sparse as sp
import torch
from torch import Tensor

PENALTY = 500.0
RATING_WEIGHTS = (0.05, 0.15, 0.4, 0.8, 1.0)  # what a rating at 1/5, 2/5, ... of the highest counts in X


def item_weights(x: sp.csr_matrix, penalty: float = PENALTY, features: Tensor | None = None) -> Tensor:
    """B, float32 [n_movies, n_movies].

    Args:
        x: users by movies
        features: of the movies, [n_movies, F]; each column counts as one more user, with these as weights
    """
    gram = torch.from_numpy((x.T @ x).toarray()).double()
    if features is not None:
        gram += features.double() @ features.double().T
    gram.diagonal().add_(penalty)
    inverse = torch.linalg.inv(gram)
    weights = -inverse / inverse.diagonal()
    return weights.fill_diagonal_(0).float()


def rating_weights(share: Tensor, steps: tuple[float, ...] = RATING_WEIGHTS) -> Tensor:
    """What ratings count, given as shares of the highest: `steps` at 1/5, 2/5, ..., with straight lines between."""
    position = (share * len(steps) - 1).clamp(0, len(steps) - 1)
    below = position.floor().long().clamp(max=len(steps) - 2)
    values = torch.tensor(steps, device=share.device)
    return values[below] + (position - below) * values.diff()[below]
