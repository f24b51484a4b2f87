"""The torch Dataset over columns of ratings, the batches that models want, and what models give back."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from torch import Tensor, nn
from torch.utils.data import Dataset

Batch = dict[str, Tensor]


class TrainingOutput(NamedTuple):
    """What a model's forward gives for a training batch.

    loss: a mean, a scalar
    n_samples: number of samples the loss is averaged over
    prediction: predicted ratings, not clipped to the scale, [B]; None where the model only ranks
    """

    loss: Tensor
    n_samples: Tensor | int
    prediction: Tensor | None = None


# Scores of every movie for some users: int64 [U] -> float [U, n_movies]; higher is better.
ScoreFn = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class FittedModel:
    """A trained model, whatever made it, as evaluation sees it; None where the model can't.

    predict: user, movie and time, [n] each -> predicted ratings on the scale of models, not clipped, [n]
    score: see ScoreFn
    """

    predict: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray] | None = None
    score: ScoreFn | None = None


@dataclass(frozen=True)
class RowBatches:
    """Training batches of single ratings, shuffled in each epoch."""


@dataclass(frozen=True)
class UserBatches:
    """Training batches of whole users, each user's ratings oldest first; the users are shuffled in each epoch.

    size_in: what --batch-size counts
    similar_length: group users with about as many ratings, to reduce padding
    longest: ratings of a user in an epoch; of a user with more, successive ones from a random place on
    """

    size_in: Literal["ratings", "users"]
    similar_length: bool = True
    longest: int | None = None


def reads_histories(model: nn.Module) -> bool:
    """Whether a model's scores and predictions depend on histories: they do where it does not say."""
    return getattr(model, "reads_histories", True)


class MovieLensDataset(Dataset):
    """Ratings as equally long tensors on one device, so that a batch is gathered where it is used.

    Item features live once in the model, not once per rating.

    Args:
        user: indices of users, int64 [n]
        movie: indices of movies, int64 [n]
        rating: as models see it, from 1 to 5 whatever the scale of the data, float32 [n]
        time: seconds since 1970, int64 [n]
    """

    def __init__(self, user: Tensor, movie: Tensor, rating: Tensor, time: Tensor):
        self.columns: Batch = {"user": user, "movie": movie, "rating": rating, "time": time}

    def __len__(self) -> int:
        return len(self.columns["rating"])

    def __getitem__(self, rows: Tensor | int) -> Batch:
        """The columns at these rows: each [B] for a tensor of B row numbers, a scalar for one number."""
        if isinstance(rows, Tensor):
            rows = rows.to(self.columns["rating"].device, non_blocking=True)
        return {name: column[rows] for name, column in self.columns.items()}
